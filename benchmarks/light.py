"""The base install, and what costs time where nothing is trained: python benchmarks/light.py [--only PART ...] [--quick].

- *install*: `pip install` of this checkout into a new environment: seconds, megabytes, and that nothing that trains is in it.
- *demo*: `make demo` in a fresh clone with a new environment, as a newcomer runs it.
- *fit*: a fit of the stamps from an empty and from a warm cache against the bare forward pass of as many images, in turn.
- *same*: a cold fit of the stamps in that environment against one in the full one: probabilities of the test items.
- *auto*: `--strategy auto` on the stamps with the default budget and with one that nothing fits, against `extract`.
- *classes*: 400 classes of 3 texts against 200 classes of 6.
- *tables*: reading a CSV of 40,000 columns, and one of 40,000 labels.

Takes about 10 minutes on two cores; needs the registry that pip is set up for.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import measure
from fit import run_own
from measure import HEADSTART, ROOT, Target, at_least, at_most, exactly, run_timed, say, summarise

TRAINING = ("torch", "torchvision", "timm", "transformers", "scipy", "scikit-learn", "pyarrow")
ROUNDS = 3
WORDS = "amber birch cedar delta ember fjord grove haven indigo jasper kelp lotus maple nectar olive prairie quartz".split()


def light_environment(folder: Path) -> tuple[Path, float]:
    """Make a new environment with this checkout and what it asks for; gives its folder and the seconds it took."""
    words = [
        "-c",
        "import subprocess, sys, venv\n"
        "venv.create(sys.argv[1], with_pip=True)\n"
        "subprocess.run([sys.argv[1] + '/bin/pip', 'install', '--quiet', sys.argv[2]], check=True)",
        str(folder),
        str(ROOT),
    ]
    return folder, run_timed([sys.executable, *words]).seconds


def measure_install(_: Any) -> dict[str, Any]:
    with measure.scratch_folder() as scratch:
        folder, seconds = light_environment(scratch / "environment")
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        listed = run_timed([folder / "bin" / "pip", "list", "--format", "json"]).told
    packages = {package["name"]: package["version"] for package in listed}
    return {
        "seconds": seconds,
        "megabytes": size / 1e6,
        "packages": packages,
        "training_packages": sorted(set(map(str.lower, packages)) & set(TRAINING)),
    }


def measure_demo(_: Any) -> dict[str, Any]:
    with measure.scratch_folder() as scratch:
        clone = scratch / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        done = run_timed(["make", "-C", clone, "demo"], HEADSTART_CACHE=str(scratch / "cache"))
    return {"seconds": done.seconds}


def measure_fit(options: Any) -> dict[str, Any]:
    folder, split = measure.prepare_stamps(quick=options.quick)
    num_items = sum(1 for _ in folder.glob("*/*"))
    with measure.scratch_folder() as scratch:
        rounds = [run_own(split, scratch, num_items, number=number) for number in range(1 if options.quick else ROUNDS)]
    seconds = {
        "cold": [each["cold"] for each in rounds],
        "warm": [value for each in rounds for value in each["warm"]],
        "bare_forward": [each["bare_forward"] for each in rounds],
    }
    accuracy = rounds[-1]["cold_summary"]["test"]["accuracy"]
    return {"seconds": {name: summarise(values) for name, values in seconds.items()}, "test_accuracy": accuracy}


def measure_same(options: Any) -> dict[str, Any]:
    _, split = measure.prepare_stamps(quick=options.quick)
    with measure.scratch_folder() as scratch:
        folder, _ = light_environment(scratch / "environment")
        found = {}
        for name, program in (("light", folder / "bin" / "headstart"), ("full", HEADSTART)):
            out, cache = scratch / f"{name}.hs", str(scratch / f"cache-{name}")
            fitted = run_timed([program, "fit", split, "--strategy", "extract", "--out", out, "--json"], HEADSTART_CACHE=cache)
            items = sorted((split.parent / split.stem).glob("*/*"))[:200]
            answers = run_timed([program, "predict", out, *items, "--json"], HEADSTART_CACHE=cache).told["predictions"]
            found[name] = {
                "seconds": fitted.seconds,
                "accuracy": fitted.told["test"]["accuracy"],
                "answers": [answer["probabilities"] for answer in answers],
            }
    pairs = zip(found["light"].pop("answers"), found["full"].pop("answers"), strict=True)
    return found | {"largest_difference": max(abs(one[label] - other[label]) for one, other in pairs for label in one)}


def measure_auto(options: Any) -> dict[str, Any]:
    _, split = measure.prepare_stamps(quick=options.quick)
    ways = {"extract": ["--strategy", "extract"], "auto": [], "auto, 10 s": ["--budget", "10s"]}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    gates: dict[str, Any] = {}
    with measure.scratch_folder() as scratch:
        cache = str(scratch / "cache")
        run_timed([HEADSTART, "fit", split, "--strategy", "extract", "--out", scratch / "first.hs"], HEADSTART_CACHE=cache)
        for number in range(1 if options.quick else ROUNDS):
            for way, words in ways.items():
                out = scratch / f"{way}-{number}.hs"
                done = run_timed([HEADSTART, "fit", split, *words, "--out", out, "--json"], HEADSTART_CACHE=cache)
                seconds[way].append(done.seconds)
                gates[way] = done.told["gate"]
                say(f"{way}: {done.seconds:.1f} s")
    return {"seconds": {way: summarise(values) for way, values in seconds.items()}, "gates": gates}


def write_texts(path: Path, *, num_classes: int, per_class: int) -> None:
    """A table of short texts whose words say the class, in part."""
    drawn = random.Random(0)
    rows = ["text,label"]
    for label in range(num_classes):
        own = [drawn.choice(WORDS) + drawn.choice(WORDS) for _ in range(3)]
        for _ in range(per_class):
            rows.append(f"{' '.join(drawn.sample(own, 2) + drawn.choices(WORDS, k=6))},class {label:03d}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def measure_classes(options: Any) -> dict[str, Any]:
    sizes = ((20, 6), (40, 3)) if options.quick else ((200, 6), (400, 3))
    seconds: dict[str, list[float]] = {}
    with measure.scratch_folder() as scratch:
        for number in range(1 if options.quick else ROUNDS):
            for num_classes, per_class in sizes:
                data = scratch / f"{num_classes}.csv"
                write_texts(data, num_classes=num_classes, per_class=per_class)
                words = ["fit", data, "--strategy", "extract", "--out", scratch / f"{num_classes}-{number}.hs", "--json"]
                done = run_timed([HEADSTART, *words], HEADSTART_CACHE=str(scratch / "cache"))
                seconds.setdefault(f"{num_classes} x {per_class}", []).append(done.seconds)
                say(f"{num_classes} classes: {done.seconds:.1f} s")
    return {"seconds": {name: summarise(values) for name, values in seconds.items()}}


READ = (
    "import json, resource, sys, time\n"
    "from headstart.data.source import read_with_findings\n"
    "from headstart.errors import HeadstartError\n"
    "started = time.perf_counter()\n"
    "try: ended = len(read_with_findings(sys.argv[1]).dataset.labels)\n"
    "except HeadstartError as error: ended = type(error).__name__\n"
    "print(json.dumps({'seconds': time.perf_counter() - started, 'ended': ended, "
    "'megabytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))\n"
)


def measure_tables(options: Any) -> dict[str, Any]:
    count = 400 if options.quick else 40_000
    with measure.scratch_folder() as scratch:
        columns, labels = scratch / "columns.csv", scratch / "labels.csv"
        names = ["text", "label", *(f"c{number}" for number in range(count))]
        rows = [[f"a text of number {row}", "ab"[row % 2], *("0" for _ in range(count))] for row in range(6)]
        columns.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n", encoding="utf-8")
        lines = [f"a text of number {row},label {row // 2}" for row in range(2 * count)]
        labels.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
        found = {
            path.stem: [run_timed([sys.executable, "-c", READ, path]).told for _ in range(ROUNDS)] for path in (columns, labels)
        }
    return {
        name: {
            "seconds": summarise([run["seconds"] for run in runs]),
            "ended": runs[0]["ended"],
            "megabytes": max(run["megabytes"] for run in runs),
        }
        for name, runs in found.items()
    }


PARTS = {
    "install": measure_install,
    "demo": measure_demo,
    "fit": measure_fit,
    "same": measure_same,
    "auto": measure_auto,
    "classes": measure_classes,
    "tables": measure_tables,
}


def judge(found: dict[str, Any]) -> list[Target]:
    install, demo, fit, same, auto, classes, tables = (found.get(part) for part in PARTS)
    waits = ratio = cold = warm = None
    if fit:
        cold, warm = (fit["seconds"][name]["median"] / fit["seconds"]["bare_forward"]["median"] for name in ("cold", "warm"))
    if auto:
        medians = {way: values["median"] for way, values in auto["seconds"].items()}
        waits = medians["auto, 10 s"] - medians["extract"]
    if classes:
        few, many = (statistics.median(values["values"]) for values in classes["seconds"].values())
        ratio = many / few
    return [
        at_most("install: megabytes of the environment", install and install["megabytes"], 450),
        exactly("install: packages that train", float(len(install["training_packages"])) if install else None, 0),
        at_most("demo: seconds of `make demo` in a fresh clone", demo and demo["seconds"], 60),
        at_most("fit: seconds from an empty cache / bare forward pass", cold, 2.2),
        at_most("fit: seconds from a warm cache / bare forward pass", warm, 0.85),
        at_least("fit: test accuracy", fit and fit["test_accuracy"], 0.91),
        at_most("same: probabilities of light and full install differ by", same and same["largest_difference"], 1e-5),
        at_most("auto: seconds more than extract where nothing fits the budget", waits, 3),
        at_most("classes: 400 x 3 texts, seconds / those of 200 x 6", ratio, 3),
        at_most("tables: seconds to read 40,000 columns", tables and tables["columns"]["seconds"]["median"], 2),
        at_most("tables: seconds to read 40,000 labels", tables and tables["labels"]["seconds"]["median"], 2),
    ]


def main() -> None:
    options = measure.read_options(__doc__, lambda parser: measure.add_only(parser, PARTS))
    data = "643 stamps (benchmarks/data/stamps.py); texts and tables made by this file"
    measure.measure_parts("light", PARTS, judge, data=data, options=options)


if __name__ == "__main__":
    main()
