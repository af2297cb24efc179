"""Clips: how near their features come to the bare network, and what they tell beside a single frame.

    python benchmarks/clips.py [--quick] [--only speed accuracy]

Two sets of 100 clips of 10 seconds are made once, of the same pictures: with a key frame a second, as cameras write them, and
as x264 writes by itself, one group of pictures from beginning to end. The bare rates are of the network on as many random
frames as were sampled: as anybody opens it (every core on one batch of 32), and in headstart's own arrangement (each core on a
batch of its own). About 15 minutes on two cores, 10 of them to make the clips.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av

import forward
import headstart
import measure
from data.clips import write_clips
from features import milliseconds, time_extraction
from headstart.backbones import locate
from headstart.features import compile_prefix, extract
from headstart.features.clips import suit_prefix
from headstart.features.prefix import Prefix
from headstart.features.store import clear
from headstart.preprocess.clips import ClipPreprocess
from headstart.preprocess.containers import HEAD_BYTES, find_video_kind
from headstart.preprocess.video import video_seconds
from headstart.records import Sample
from headstart.runtime import cache_root
from measure import Target, at_least, say, summarise

SETS: dict[str, dict[str, str]] = {"a key frame a second": {"g": "25"}, "one group of pictures": {}}
CODEC = "libx264" if "libx264" in av.codecs_available else "mpeg4"
NUM_STAGED = 20


def main() -> None:
    options = measure.read_options(__doc__, lambda parser: measure.add_only(parser, PARTS))
    for name in measure.FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    data = "clips of the stamps, 640x360, 25 frames a second: the view wanders and comes nearer; see benchmarks/data/clips.py"
    with measure.scratch_folder() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch / "cache")
        measure.measure_parts("clips", PARTS, judge, data=data, options=options)


def measure_speed(options: Any) -> dict[str, Any]:
    """Rates of the three sides for each set, in turn, and the stages of ours."""
    stamps, _ = measure.prepare_stamps(quick=options.quick)
    per_class, seconds, repeats = (1, 4.0, 1) if options.quick else (10, 10.0, 5)
    found: dict[str, Any] = {"codec": CODEC}
    for name, settings in SETS.items():
        folder = measure.WORK / f"clips-{seconds:g}-seconds-{name.replace(' ', '-')}"
        say(f"clips with {name}")
        paths = write_clips(stamps, folder, per_class=per_class, seconds=seconds, settings=settings)
        pictures = compile_prefix(locate("auto")).wait()
        prefix = suit_prefix(pictures, paths)
        found[name] = measure_set(name, paths, pictures, prefix, repeats)
    return found


def measure_set(name: str, paths: Sequence[Path], pictures: Prefix, prefix: Prefix, repeats: int) -> dict[str, Any]:
    preprocess = prefix.spec.preprocess.with_fitting("pad")
    samples = [Sample(id=str(path), item=path) for path in paths]
    num_frames = sum(len(preprocess.prepare(path)) for path in paths)
    session = forward.default_session(pictures.model_path)
    extract(prefix, preprocess, samples[:4])
    rates: dict[str, list[float]] = {"end_to_end": [], "raw_default": [], "raw_own_arrangement": []}
    for number in range(repeats):
        clear(cache_root())
        rates["raw_default"].append(num_frames / forward.time_default(session, num_frames))
        rates["end_to_end"].append(num_frames / time_extraction(prefix, preprocess, samples))
        own = forward.time_threads(pictures, pictures.batch_size, pictures.num_workers, num_frames)
        rates["raw_own_arrangement"].append(num_frames / own)
        say(f"{name}, run {number + 1}: " + ", ".join(f"{side} {values[-1]:.1f}/s" for side, values in rates.items()))
    told = {side: summarise(values) for side, values in rates.items()}
    ours = told["end_to_end"]["median"]
    return {
        "clips": len(paths),
        "frames_sampled": num_frames,
        "kilobytes_a_clip": sum(path.stat().st_size for path in paths) / len(paths) / 1e3,
        "frames_per_second": told,
        "clips_per_second": ours * len(paths) / num_frames,
        "of_raw_default": ours / told["raw_default"]["median"],
        "of_raw_own_arrangement": ours / told["raw_own_arrangement"]["median"],
        "stages": time_stages(paths[:NUM_STAGED], prefix, preprocess),
    }


def time_stages(paths: Sequence[Path], prefix: Prefix, preprocess: ClipPreprocess) -> dict[str, float]:
    """Milliseconds a clip of each stage alone, on one thread."""
    contents = [path.read_bytes() for path in paths]
    kinds = [find_video_kind(content[:HEAD_BYTES]) for content in contents]
    prepared = [preprocess.prepare(content) for content in contents]
    batches = [preprocess.collate([frames]) for frames in prepared]
    jobs: dict[str, Callable[[], object]] = {
        "read and hash": lambda: [preprocess.digest(preprocess.load(path)) for path in paths],
        "go through the packets": lambda: [
            video_seconds(content, kind, name="clip") for content, kind in zip(contents, kinds, strict=True) if kind
        ],
        "packets, decode, scale": lambda: [preprocess.prepare(content) for content in contents],
        "normalise": lambda: [preprocess.collate([frames]) for frames in prepared],
        "network": lambda: [prefix(batch) for batch in batches],
    }
    return {name: round(milliseconds(job, len(paths)), 3) for name, job in jobs.items()}


def measure_accuracy(options: Any) -> dict[str, Any]:
    """Models of clips, asked about clips and about a frame of each, and models of a frame each: the same folds for all."""
    stamps, _ = measure.prepare_stamps(quick=options.quick)
    per_class, seconds, num_folds = (4, 1.0, 2) if options.quick else (20, 3.0, 5)
    say("short clips")
    paths = write_clips(stamps, measure.WORK / f"clips-{seconds:g}-seconds", per_class=per_class, seconds=seconds)
    frames = [write_middle_frame(path) for path in paths]
    found: dict[str, list[float]] = {"clips": [], "clips_asked_by_one_frame": [], "single_frames": []}
    with measure.scratch_folder() as scratch:
        for fold in range(num_folds):
            tested = {path for number, path in enumerate(paths) if number % num_folds == fold}
            tables = {
                name: write_table(scratch / f"{name}-{fold}.csv", items, paths, tested)
                for name, items in (("clips", paths), ("single_frames", frames))
            }
            models = {
                name: headstart.fit(table, out=scratch / f"{name}-{fold}.hs", strategy="extract", group_column="group")
                for name, table in tables.items()
            }
            for name, model in models.items():
                found[name].append(model.report.content["summary"]["test"]["accuracy"])
            asked = [(frame, path.parent.name) for frame, path in zip(frames, paths, strict=True) if path in tested]
            answers = models["clips"].predict([frame for frame, _ in asked])
            right = sum(answer.label == label for answer, (_, label) in zip(answers, asked, strict=True))
            found["clips_asked_by_one_frame"].append(right / len(asked))
            say(f"fold {fold + 1}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in found.items()))
    means = {name: {"mean": statistics.mean(values), "folds": values} for name, values in found.items()}
    return {"clips": len(paths), "seconds": seconds, "accuracy": means}


def write_middle_frame(path: Path) -> Path:
    """The frame in the middle of a clip as a PNG beside it."""
    target = path.with_suffix(".png")
    if not target.exists():
        with av.open(str(path)) as container:
            shown = [frame.to_image() for frame in container.decode(video=0)]
        shown[len(shown) // 2].save(target)
    return target


def write_table(target: Path, items: Sequence[Path], paths: Sequence[Path], tested: set[Path]) -> Path:
    lines = ["path,label,split,group"]
    for item, path in zip(items, paths, strict=True):
        lines.append(f"{item},{path.parent.name},{'test' if path in tested else 'train'},{path.stem}")
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


PARTS: measure.Parts = {"speed": measure_speed, "accuracy": measure_accuracy}


def judge(parts: dict[str, Any]) -> list[Target]:
    """Each target with what was measured, or None where its part has not run."""
    sides = {"of_raw_default": "default session", "of_raw_own_arrangement": "a batch on each core"}
    speed, told = parts.get("speed"), parts.get("accuracy")
    gained = told and told["accuracy"]["clips"]["mean"] - told["accuracy"]["single_frames"]["mean"]
    return [
        *(
            at_least(f"clips with {name}: features / bare network, {words}", speed and speed[name][side], 0.7)
            for name in SETS
            for side, words in sides.items()
        ),
        at_least("accuracy of whole clips less that of one frame of each", gained, 0.0),
    ]


if __name__ == "__main__":
    main()
