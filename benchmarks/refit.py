"""Fitting again after one per cent new items: python benchmarks/refit.py [--quick].

A fit from an empty cache, then seven pictures more (cartoons of the same package, which the benchmark data leave out), then
the same fit again. Only what is new may be computed: told by the fit, and counted in the store. About two minutes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import measure
from data.stamps import CLASSES, SOURCE, write_on_white
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
        command = [HEADSTART, "fit", data, "--out", scratch / "model.hs", "--json"]
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
                "stored_by_geometry": count_stored(cache),
            }
            say(f"round {number + 1}, {side}: {done.seconds:.2f} s, {told['cache']['misses']} computed")
    before, after = (sides[side]["stored_by_geometry"] for side in ("first", "again"))
    growth = {name: after[name] - before.get(name, 0) for name in after}
    return {**sides, "stored_growth_by_geometry": growth, "stored_growth": sum(growth.values())}


def add_cartoons(data: Path, count: int, number: int) -> None:
    """Other cartoons in each round, spread over the classes that have some."""
    cartoons = [path for label in CLASSES for path in sorted((SOURCE / label).rglob("*cartoon*/**/*.png"))]
    step = len(cartoons) // count
    for path in cartoons[number % step :: step][:count]:
        label = path.relative_to(SOURCE).parts[0]
        write_on_white(path, data / label / f"new-{path.stem}.jpg")


def count_stored(cache: str) -> dict[str, int]:
    told = json.loads(run_timed([HEADSTART, "cache", "info", "--json"], HEADSTART_CACHE=cache).stdout)
    return {row["describe"]["geometry"]: row["items"] for row in told["features"]}


def judge(values: dict[str, Any]) -> list[Target]:
    rounds, new = values["rounds"], values["new_items"]
    return [
        exactly(
            "items computed again, by the fit's own count (worst round)",
            max(r["again"]["cache"]["misses"] for r in rounds),
            new,
        ),
        exactly("features added to the store, of every geometry (worst round)", max(r["stored_growth"] for r in rounds), new),
        at_most("second fit / first fit", values["again_of_first"], 0.1),
    ]


if __name__ == "__main__":
    main()
