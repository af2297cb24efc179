"""Sounds: python benchmarks/sounds.py [--quick] [--only PART ...].

prompts  spoken prompts in three languages: `fit --strategy auto` on 10 labels a class, mean of 10 draws
speed    seconds of such a fit, against the bare networks on the same batches
drumkits kinds of drums, every kit held out in turn: several backbones together against the best one alone
features features from OGG files end to end, against the bare networks on the same batches
memory   windows of an hour of sound, against those of a minute

Each of the prompts' languages is one speaker, so they tell voices as much as languages. 30 prompts are silence, ten in each
class, which nobody can tell apart: `check` names them, and both scores are given, with them and without. The data come from
Debian: `apt-get install -y asterisk-core-sounds-{en,fr,it}-wav hydrogen-drumkits`. The backbones need `pip install --no-deps
resemblyzer==0.1.4 openwakeword==0.5.1`.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import measure
from headstart.backbones import locate
from headstart.backbones.bundled import SOUND_BACKBONES
from headstart.features import compile_prefix, extract
from headstart.features.prefix import Prefix
from headstart.features.store import clear
from headstart.inference import ordered_map
from headstart.preprocess.batches import in_batches
from headstart.records import Sample
from headstart.runtime import cache_root
from measure import HEADSTART, HERE, WORK, Target, at_least, at_most, run_timed, say, summarise

PER_CLASS, DRAWS = 10, 10
SILENT = "silence_"
"""How the names of the prompts begin that hold none."""
BOOTSTRAPS = 2_000
RATE_HZ = 16_000
WAYS = (*SOUND_BACKBONES, "auto")


def prepare(name: str) -> list[Path]:
    """The files of 'prompts' or 'drumkits', in folders of classes."""
    folder = WORK / name
    if not folder.exists():
        run_timed([sys.executable, HERE / "data" / f"{name}.py", folder])
    return sorted(folder.glob("*/*"))


def write_table(path: Path, train: list[Path], test: list[Path]) -> None:
    """A table of both sides; the group of a file is what stands before two underscores in its name, else itself."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(["audio", "label", "group", "split"])
        for side, files in (("train", train), ("test", test)):
            table.writerows([file, file.parent.name, file.name.partition("__")[0], side] for file in files)


def fit(table: Path, out: Path, backbone: str, *, seed: int, cache: dict[str, str], strategy: str) -> dict[str, Any]:
    """What a fit told, and the seconds of its process."""
    columns = ["--item-column", "audio", "--label-column", "label", "--group-column", "group", "--split-column", "split"]
    how = ["--modality", "audio", "--backbone", backbone, "--strategy", strategy, "--seed", str(seed)]
    done = run_timed([HEADSTART, "fit", table, *columns, *how, "--out", out, "--json"], **cache)
    told = done.told
    return {name: told[name] for name in ("backbone", "strategy", "floor", "seconds")} | {
        "test": told["test"],
        "process_seconds": done.seconds,
    }


def measure_prompts(options: Any) -> dict[str, Any]:
    """Draws of few labels, with the silent files among them and without; each its own fit."""
    everything = prepare("prompts")
    sets = {"all": everything, "audible": [file for file in everything if not file.name.startswith(SILENT)]}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sets}
    with measure.scratch_folder() as scratch:
        cache = {"HEADSTART_CACHE": str(scratch / "cache")}
        table, out = scratch / "table.csv", scratch / "prompts.hs"
        for draw in range(2 if options.quick else DRAWS):
            for name, files in sets.items():
                write_table(table, *_draw(files, draw, most=100 if options.quick else None))
                told = fit(table, out, "auto", seed=draw, cache=cache, strategy="auto")
                found[name].append({"seed": draw} | told)
                say(f"prompts, {name}, draw {draw}: {told['test']['accuracy']:.4f} by {told['backbone']}")
    mean = {name: float(np.mean([one["test"]["accuracy"] for one in fits])) for name, fits in found.items()}
    return {"labels_a_class": PER_CLASS, "draws": len(found["all"]), "accuracy": mean, "fits": found}


def _draw(files: list[Path], seed: int, *, most: int | None) -> tuple[list[Path], list[Path]]:
    """So many files of each class, and the others, or some of them."""
    order = [files[place] for place in np.random.default_rng(seed).permutation(len(files))]
    train, seen = [], dict.fromkeys((file.parent.name for file in files), 0)
    for file in order:
        if seen[file.parent.name] < PER_CLASS:
            seen[file.parent.name] += 1
            train.append(file)
    return train, sorted(set(files) - set(train))[:: max(1, len(files) // most) if most else 1]


def measure_speed(options: Any) -> dict[str, Any]:
    """A fit whose networks are compiled and whose features are not stored, against the networks alone, in turn."""
    with measure.scratch_folder() as scratch:
        table, cache = scratch / "table.csv", {"HEADSTART_CACHE": str(scratch / "cache")}
        write_table(table, *_draw(prepare("prompts"), 0, most=100 if options.quick else None))
        return _time_fit(table, scratch / "prompts.hs", cache, options)


def _time_fit(table: Path, out: Path, cache: dict[str, str], options: Any) -> dict[str, Any]:
    with table.open(newline="", encoding="utf-8") as lines:
        samples = [Sample(id=row["audio"], item=Path(row["audio"]), labels=()) for row in csv.DictReader(lines)]
    os.environ |= cache
    prefixes = [compile_prefix(locate(name, modality="audio")).wait() for name in SOUND_BACKBONES]
    seconds: dict[str, list[float]] = {"fit": [], "bare": []}
    for _ in range(1 if options.quick else 3):
        seconds["bare"].append(sum(time_bare(prefix, samples) for prefix in prefixes))
        clear(cache_root())
        seconds["fit"].append(fit(table, out, "auto", seed=0, cache=cache, strategy="auto")["process_seconds"])
    told = {side: summarise(values) for side, values in seconds.items()}
    return {"items": len(samples), "seconds": told, "times_bare": told["fit"]["median"] / told["bare"]["median"]}


def time_bare(prefix: Prefix, samples: list[Sample]) -> float:
    """Seconds of the network on batches that are there already, in headstart's own arrangement."""
    preprocess = prefix.spec.preprocess
    by_size = sorted(samples, key=lambda sample: preprocess.size(sample.item))
    few_at_once = in_batches(by_size, prefix.batch_size, lambda sample: preprocess.size(sample.item))
    batches = [preprocess.collate([preprocess.prepare(sample.item) for sample in few]) for few in few_at_once]
    started = time.perf_counter()
    for _ in ordered_map(prefix, batches, num_workers=prefix.num_workers):
        pass
    return time.perf_counter() - started


def measure_drumkits(options: Any) -> dict[str, Any]:
    """Every kit held out once: which of its samples each way gets right."""
    files = prepare("drumkits")
    kits = sorted({file.name.partition("__")[0] for file in files})[: 3 if options.quick else None]
    right: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    kept = []
    with measure.scratch_folder() as scratch:
        cache = {"HEADSTART_CACHE": str(scratch / "cache")}
        for kit in kits:
            test = [file for file in files if file.name.partition("__")[0] == kit]
            write_table(scratch / "table.csv", [file for file in files if file not in set(test)], test)
            for way in WAYS:
                out = scratch / "drums.hs"
                told = fit(scratch / "table.csv", out, way, seed=0, cache=cache, strategy="extract")
                done = run_timed([HEADSTART, "predict", out, *test, "--json"], **cache)
                said = [each["label"] for each in done.told["predictions"]]
                right[way].append(np.array([label == file.parent.name for label, file in zip(said, test, strict=True)]))
            kept.append({"kit": kit, "items": len(test), "kept": told["backbone"]})
            say(f"drumkits, {kit}: " + ", ".join(f"{way} {right[way][-1].mean():.3f}" for way in WAYS))
    accuracy = {way: float(np.concatenate(each).mean()) for way, each in right.items()}
    best = max(SOUND_BACKBONES, key=accuracy.__getitem__)
    return {
        "kits": [one | {way: round(float(right[way][n].mean()), 4) for way in WAYS} for n, one in enumerate(kept)],
        "accuracy": accuracy,
        "best_alone": best,
        "gain_over_best_alone": _gain(right["auto"], right[best]),
    }


def _gain(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, Any]:
    """The paired difference of accuracies, with a 95 % interval by drawing kits anew."""
    gains = np.array([one.sum() - int(other.sum()) for one, other in zip(ours, theirs, strict=True)], float)
    counts = np.array([len(one) for one in ours], float)
    drawn = np.random.default_rng(0).integers(len(counts), size=(BOOTSTRAPS, len(counts)))
    low, high = np.percentile(gains[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return {"mean": float(gains.sum() / counts.sum()), "ci95_over_kits": [float(low), float(high)]}


def measure_features(options: Any) -> dict[str, Any]:
    """The prompts as OGG Vorbis: features end to end and bare, in turn, for each backbone."""
    folder = WORK / "prompts-ogg"
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number, path in enumerate(prepare("prompts")[:: 20 if options.quick else 3]):
        target = folder / f"{path.parent.name}-{path.stem}.ogg"
        if not target.exists():
            soundfile.write(target, *soundfile.read(path))
        samples.append(Sample(id=str(number), item=target, labels=()))
    results = {}
    with measure.scratch_folder() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch)
        for name in SOUND_BACKBONES:
            prefix = compile_prefix(locate(name, modality="audio")).wait()
            rates: dict[str, list[float]] = {"end_to_end": [], "bare": []}
            for _ in range(2 if options.quick else 5):
                clear(cache_root())
                rates["bare"].append(len(samples) / time_bare(prefix, samples))
                rates["end_to_end"].append(len(samples) / _time_extraction(prefix, samples))
            told = {side: summarise(values) for side, values in rates.items()}
            ratio = told["end_to_end"]["median"] / told["bare"]["median"]
            results[name] = {"sounds_per_second": told, "of_bare": ratio}
            say(f"features, {name}: {ratio:.2f} of the bare network's rate")
    return {"items": len(samples), "backbones": results}


def _time_extraction(prefix: Prefix, samples: list[Sample]) -> float:
    started = time.perf_counter()
    table = extract(prefix, prefix.spec.preprocess, samples)
    seconds = time.perf_counter() - started
    if (table.misses, len(table.failures)) != (len(samples), 0):
        raise SystemExit(f"{table.misses} computed, {len(table.failures)} unreadable of {len(samples)}")
    return seconds


_WINDOWING = """
import sys
from headstart.preprocess.audio import AudioPreprocess
windows = AudioPreprocess().prepare(sys.argv[1])
line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(windows.shape[0], int(line.split()[1]) * 1024)
"""


def measure_memory(options: Any) -> dict[str, Any]:
    """Peak memory of a process that cuts one sound into windows."""
    peaks = {}
    with measure.scratch_folder() as scratch:
        for name, minutes in (("minute", 1), ("hour", 10 if options.quick else 60)):
            path = scratch / f"{name}.flac"
            _write_noise(path, minutes)
            done = subprocess.run([sys.executable, "-c", _WINDOWING, path], capture_output=True, text=True, check=True)
            count, peak = map(int, done.stdout.split())
            peaks[name] = {"minutes": minutes, "file_bytes": path.stat().st_size, "windows": count, "peak_bytes": peak}
            say(f"memory, {minutes} minutes: {peak / 1e6:.0f} MB")
    return {"peaks": peaks, "more_megabytes": (peaks["hour"]["peak_bytes"] - peaks["minute"]["peak_bytes"]) / 1e6}


def _write_noise(path: Path, minutes: int) -> None:
    random = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        for _ in range(6 * minutes):
            file.write(0.1 * random.standard_normal((10 * 44_100, 2)).astype(np.float32))


PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "prompts": measure_prompts,
    "speed": measure_speed,
    "drumkits": measure_drumkits,
    "features": measure_features,
    "memory": measure_memory,
}


def judge(parts: dict[str, Any]) -> list[Target]:
    """Each target with what was measured, or None where its part has not run."""
    prompts, speed, drums, features, memory = (parts.get(name) for name in PARTS)
    accuracy = prompts["accuracy"] if prompts else {}
    told = f"prompts: accuracy, {PER_CLASS} labels a class, mean of {DRAWS} draws"
    return [
        at_least(told, accuracy.get("all"), 0.985),
        at_least(f"{told}, without the silent ones", accuracy.get("audible"), 0.985),
        at_most("prompts: seconds of a whole fit / bare networks", speed and speed["times_bare"], 2),
        at_least("drumkits: accuracy over the best backbone alone", drums and drums["gain_over_best_alone"]["mean"], 0),
        *(
            at_least(f"{name}: features from OGG / bare network", features and features["backbones"][name]["of_bare"], 0.8)
            for name in SOUND_BACKBONES
        ),
        at_most("memory: MB more for an hour than for a minute", memory and memory["more_megabytes"], 64),
    ]


def main() -> None:
    options = measure.read_options(__doc__, lambda parser: measure.add_only(parser, PARTS))
    for name in measure.FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    data = "spoken prompts (benchmarks/data/prompts.py) and drum samples (benchmarks/data/drumkits.py)"
    measure.measure_parts("sounds", PARTS, judge, data=data, options=options)


if __name__ == "__main__":
    main()
