"""Fitting again after one per cent new items: python benchmarks/refit.py [--quick].

A fit from an empty cache, then seven pictures more (cartoons of the same package, which the benchmark data leave out), then
the same fit again. Only what is new may be computed: told by the fit, and counted in the store. About two minutes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, get_args

import measure
from data.stamps import CLASSES, SOURCE, write_on_white
from headstart.backbones import locate
from headstart.features import compile_prefix
from headstart.features.extract import feature_store
from headstart.features.store import store_key
from headstart.preprocess.image import Geometry
from headstart.preprocess.items import content_key
from measure import HEADSTART, Target, at_most, exactly, run_timed, say, summarise

SHARE = 0.01


def main() -> None:
    options = measure.read_options(__doc__)
    folder, _ = measure.prepare_stamps(quick=options.quick)
    num_items = sum(1 for _ in folder.glob("*/*.jpg"))
    num_new = -(-num_items // round(1 / SHARE))
    rounds = [run_round(folder, num_new, number) for number in range(1 if options.quick else 3)]
    first, again = (summarise([one[side]["seconds"] for one in rounds]) for side in ("first", "again"))
    values = {
        "items": num_items,
        "new_items": num_new,
        "seconds": {"first": first, "again": again},
        "again_of_first": again["median"] / first["median"],
        "rounds": rounds,
    }
    data = f"{num_items} stamps in 10 classes (benchmarks/data/stamps.py), then {num_new} cartoons of the same package added"
    measure.write_result("refit", data=data, values=values, targets=judge(values), quick=options.quick)


def run_round(folder: Path, num_new: int, number: int) -> dict[str, Any]:
    with measure.scratch_folder() as scratch:
        data, cache = scratch / "stamps", str(scratch / "cache")
        shutil.copytree(folder, data)
        old = sorted(data.glob("*/*.jpg"))
        command = [HEADSTART, "fit", data, "--strategy", "extract", "--out", scratch / "model.hs", "--json"]
        sides: dict[str, Any] = {}
        for side in ("first", "again"):
            if side == "again":
                add_cartoons(data, num_new, number)
            done = run_timed(command, HEADSTART_CACHE=cache)
            told = done.told
            sides[side] = {
                "seconds": done.seconds,
                "cache": told["cache"],
                "steps": told["seconds"],
                "train_and_test": [told["counts"]["train"], told["counts"]["test"]],
                "old_items_stored": count_stored(old, cache),
            }
            say(f"round {number + 1}, {side}: {done.seconds:.2f} s, {told['cache']['misses']} computed")
    before, after = (sides[side]["old_items_stored"] for side in ("first", "again"))
    return sides | {"old_items_computed_again": {name: after[name] - before[name] for name in after}}


def add_cartoons(data: Path, count: int, number: int) -> None:
    """Other cartoons in each round, spread over the classes that have some."""
    cartoons = [path for label in CLASSES for path in sorted((SOURCE / label).rglob("*cartoon*/**/*.png"))]
    step = len(cartoons) // count
    for path in cartoons[number % step :: step][:count]:
        parts = path.relative_to(SOURCE).with_suffix(".jpg").parts
        write_on_white(path, data / parts[0] / f"new_{'_'.join(parts)}")


def count_stored(paths: list[Path], cache: str) -> dict[str, int]:
    """How many of the items have features in the store, for each geometry."""
    os.environ["HEADSTART_CACHE"] = cache
    prefix = compile_prefix(locate("auto")).wait()
    keys = [store_key(content_key(path)) for path in paths]
    counts = {}
    for geometry in get_args(Geometry):
        with feature_store(prefix, prefix.spec.preprocess.with_geometry(geometry)) as store:
            counts[geometry] = int(store.get_many(keys)[1].sum())
    return counts


def judge(values: dict[str, Any]) -> list[Target]:
    rounds, new = values["rounds"], values["new_items"]
    computed = max(one["again"]["cache"]["misses"] for one in rounds)
    again = max(sum(one["old_items_computed_again"].values()) for one in rounds)
    return [
        exactly("items computed by the second fit, by its own count (worst round)", computed, new),
        exactly("old items computed by the second fit in any geometry, by the store (worst)", again, 0),
        at_most("second fit / first fit", values["again_of_first"], 0.1),
    ]


if __name__ == "__main__":
    main()
