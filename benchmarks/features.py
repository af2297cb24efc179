"""Features from JPEG files against the bare network on random tensors, in one process: python benchmarks/features.py [--quick].

Two bare rates are given: ONNX Runtime as anybody opens it (every core on one batch of 32), and headstart's own arrangement
(each core on a batch of its own), which is the faster one. Each stage is then timed alone, on one thread, to show where the
time goes. Takes about five minutes on two cores.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import forward
import measure
from headstart.backbones import locate
from headstart.features import compile_prefix, extract
from headstart.features.extract import feature_store
from headstart.features.prefix import Prefix
from headstart.features.store import clear, store_key
from headstart.preprocess.image import ImagePreprocess
from headstart.preprocess.items import load_bytes
from headstart.preprocess.recipe import Preprocess
from headstart.records import Sample
from headstart.runtime import cache_root, num_cores
from measure import Target, at_least, say, summarise
from pictures import write_pictures

SIZES = {"500x375": (500, 375), "1 megapixel": (1155, 866)}
NUM_STAGED = 160


def main() -> None:
    options = measure.read_options(__doc__)
    count, repeats = (96, 2) if options.quick else (1000, 5)
    folder, _ = measure.prepare_stamps(quick=options.quick)
    sets = {"stamps": sorted(folder.glob("*/*.jpg"))}
    for name, (width, height) in SIZES.items():
        sets[name] = write_pictures(measure.WORK / f"pictures-{width}x{height}", count, width=width, height=height)
    for name in measure.FOREIGN_SETTINGS:
        os.environ.pop(name, None)
    with measure.scratch_folder() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch)
        prefix = compile_prefix(locate("auto")).wait()
        results = {name: measure_set(name, paths, prefix, repeats) for name, paths in sets.items()}
    data = "; ".join(f"{name}: {len(paths)} JPEGs, {mean_kilobytes(paths):.0f} kB on average" for name, paths in sets.items())
    values = {"arrangement": {"threads": prefix.num_workers, "batch_size": prefix.batch_size}, "sets": results}
    measure.write_result("features", data=data, values=values, targets=judge(results), quick=options.quick)


def mean_kilobytes(paths: Sequence[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / len(paths) / 1e3


def measure_set(name: str, paths: Sequence[Path], prefix: Prefix, repeats: int) -> dict[str, Any]:
    """Rates of the three sides, in turn, and the stages of ours."""
    preprocess = prefix.spec.preprocess.with_geometry("pad")
    samples = [Sample(id=str(path), item=path) for path in paths]
    session = forward.default_session(prefix.model_path)
    extract(prefix, preprocess, samples[: 4 * prefix.batch_size])
    rates: dict[str, list[float]] = {"end_to_end": [], "raw_default": [], "raw_own_arrangement": []}
    for number in range(repeats):
        clear(cache_root())
        rates["raw_default"].append(len(paths) / forward.time_default(session, len(paths)))
        rates["end_to_end"].append(len(paths) / time_extraction(prefix, preprocess, samples))
        own = forward.time_threads(prefix, prefix.batch_size, prefix.num_workers, len(paths))
        rates["raw_own_arrangement"].append(len(paths) / own)
        say(f"{name}, run {number + 1}: " + ", ".join(f"{side} {values[-1]:.1f}/s" for side, values in rates.items()))
    told = {side: summarise(values) for side, values in rates.items()}
    ours = told["end_to_end"]["median"]
    return {
        "items": len(paths),
        "images_per_second": told,
        "of_raw_default": ours / told["raw_default"]["median"],
        "of_raw_own_arrangement": ours / told["raw_own_arrangement"]["median"],
        "stages": time_stages(paths[:NUM_STAGED], prefix, preprocess),
    }


def time_extraction(prefix: Prefix, preprocess: Preprocess, samples: Sequence[Sample]) -> float:
    started = time.perf_counter()
    table = extract(prefix, preprocess, samples)
    seconds = time.perf_counter() - started
    if (table.misses, len(table.failures)) != (len(samples), 0):
        raise SystemExit(f"{table.misses} computed, {len(table.failures)} unreadable of {len(samples)}: this is no measurement")
    return seconds


def time_stages(paths: Sequence[Path], prefix: Prefix, preprocess: ImagePreprocess) -> dict[str, Any]:
    """Milliseconds an item of each stage alone on one thread, and what share of their sum that is."""
    contents = [load_bytes(path) for path in paths]
    pixels = np.stack([preprocess.pixels(content) for content in contents])
    batch = preprocess.normalise(pixels[: prefix.batch_size])
    vectors = prefix(batch)
    digests = [hashlib.sha256(str(path).encode()).digest() for path in paths]

    def store_all() -> None:
        clear(cache_root())
        with feature_store(prefix, preprocess) as store:
            for start in range(0, len(paths), len(batch)):
                few = digests[start : start + len(batch)]
                store.put_many([store_key(digest) for digest in few], vectors[: len(few)])

    def run_network() -> None:
        for start in range(0, len(paths), len(batch)):
            prefix(batch[: min(len(batch), len(paths) - start)])

    jobs: dict[str, Callable[[], object]] = {
        "read and hash": lambda: [hashlib.sha256(load_bytes(path)).digest() for path in paths],
        "decode": lambda: [preprocess.decode(content) for content in contents],
        "decode and resize": lambda: [preprocess.pixels(content) for content in contents],
        "normalise": lambda: preprocess.normalise(pixels),
        "network": run_network,
        "store": store_all,
    }
    taken = {name: milliseconds(job, len(paths)) for name, job in jobs.items()}
    taken["resize"] = max(0.0, taken.pop("decode and resize") - taken["decode"])
    total = sum(taken.values())
    return {
        "milliseconds_an_item_on_one_thread": {name: round(value, 4) for name, value in taken.items()},
        "share": {name: round(value / total, 4) for name, value in taken.items()},
        "total_milliseconds": total,
        "images_per_second_if_all_cores_were_always_busy": num_cores() * 1e3 / total,
    }


def milliseconds(job: Callable[[], object], num_items: int, repeats: int = 3) -> float:
    """Median of a few runs, for one item."""
    values = []
    for _ in range(repeats):
        started = time.perf_counter()
        job()
        values.append(time.perf_counter() - started)
    return summarise(values)["median"] / num_items * 1e3


def judge(results: dict[str, Any]) -> list[Target]:
    sides = {"of_raw_default": "default session", "of_raw_own_arrangement": "a batch on each core"}
    return [
        at_least(f"{name}: features from JPEG / bare network, {words}", one[side], 0.8)
        for name, one in results.items()
        for side, words in sides.items()
    ]


if __name__ == "__main__":
    main()
