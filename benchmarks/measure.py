"""What every benchmark shares: processes that are timed, data that is prepared, and the JSON that is written at the end.

A benchmark gives `write_result` its values and its targets; that adds what is needed to judge and to repeat them: command,
hardware, versions, commit, date and load. A quick run goes to the work folder, so that it never passes for a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headstart.runtime import hardware

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
WORK = Path(os.environ.get("HEADSTART_BENCHMARK_WORK") or ROOT / "build" / "benchmarks").absolute()
HEADSTART = Path(sys.executable).parent / "headstart"

IMAGES = ("pillow", "av", "torchvision", "timm")
TEXTS = ("tokenizers", "transformers", "sentence-transformers", "setfit")
PACKAGES = ("headstart", "numpy", "onnxruntime", "lmdb", "scikit-learn", "onnx", "torch", *IMAGES, *TEXTS)
# Settings of whoever starts the benchmarks that would make the libraries under them behave otherwise than for a user.
FOREIGN_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "HEADSTART_THREADS", "HEADSTART_DEVICE", "HEADSTART_CACHE_LIMIT")

WORDS = {True: "met", False: "MISSED", None: "not measured"}

_LOAD_AT_START = os.getloadavg()[0]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was to be reached, and what was."""

    name: str
    wanted: str
    measured: float | None
    """None where it was not measured."""
    met: bool | None


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A process that ran."""

    seconds: float
    """From its start to its end, the interpreter's own start included."""
    stdout: str

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object on the last line of its output."""
        return json.loads(self.stdout.strip().splitlines()[-1])


def at_least(name: str, measured: float | None, bound: float) -> Target:
    return Target(name=name, wanted=f">= {bound:g}", measured=measured, met=None if measured is None else measured >= bound)


def at_most(name: str, measured: float | None, bound: float) -> Target:
    return Target(name=name, wanted=f"<= {bound:g}", measured=measured, met=None if measured is None else measured <= bound)


def exactly(name: str, measured: float | None, wanted: float) -> Target:
    return Target(name=name, wanted=f"= {wanted:g}", measured=measured, met=None if measured is None else measured == wanted)


def read_options(description: str | None, extend: Callable[[argparse.ArgumentParser], object] | None = None) -> Any:
    """Read the words after the benchmark's name; all of them know --quick."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little data, few runs: does the benchmark itself work?")
    if extend:
        extend(parser)
    return parser.parse_args()


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment of a user: without foreign settings, with the changes named."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN_SETTINGS} | changes


def run_timed(command: Sequence[str | Path], **changes: str) -> Timed:
    """Run a process to its end and time it.

    Args:
        command: its words.
        **changes: environment variables, such as HEADSTART_CACHE.

    Returns:
        Its seconds and its output.

    Raises:
        SystemExit: if it fails, with what it said.
    """
    words = [str(word) for word in command]
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=clean_environment(**changes), cwd=WORK)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}{done.stdout[-1000:]}")
    return Timed(seconds=seconds, stdout=done.stdout)


@contextmanager
def scratch_folder():
    """A folder for caches and models, gone afterwards."""
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=WORK) as folder:
        yield Path(folder)


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Median and single values, as a result holds them."""
    return {"median": statistics.median(values), "values": [round(value, 4) for value in values]}


def say(text: str) -> None:
    print(f"[{datetime.now(UTC):%H:%M:%S}] {text}", flush=True)


def prepare_stamps(*, quick: bool) -> tuple[Path, Path]:
    """Write the 643 pictures and their fixed split, if they are not there.

    Returns:
        The folder of classes, and the CSV of the split; of every class the first 14 pictures only, if quick.
    """
    folder, split = WORK / "stamps", WORK / "stamps.csv"
    WORK.mkdir(parents=True, exist_ok=True)
    if not split.exists():
        run_timed([sys.executable, HERE / "data" / "stamps.py", folder])
        run_timed([sys.executable, HERE / "data" / "split_csv.py", folder, split])
    if not quick:
        return folder, split
    few, few_split = WORK / "stamps-quick", WORK / "stamps-quick.csv"
    if not few_split.exists():
        for label in sorted(folder.iterdir()):
            (few / label.name).mkdir(parents=True, exist_ok=True)
            for path in sorted(label.iterdir())[:14]:
                (few / label.name / path.name).write_bytes(path.read_bytes())
        run_timed([sys.executable, HERE / "data" / "split_csv.py", few, few_split])
    return few, few_split


def prepare_folds(folder: Path, num_folds: int) -> list[Path]:
    """Write the splits of a cross-validation over a folder of classes."""
    out = folder.with_name(f"{folder.name}-folds.csv")
    run_timed([sys.executable, HERE / "data" / "split_csv.py", folder, out, "--folds", str(num_folds)])
    return [out.with_suffix(f".{fold}.csv") for fold in range(num_folds)]


def write_result(name: str, *, data: str, values: Mapping[str, Any], targets: Sequence[Target], quick: bool) -> None:
    """Write a benchmark's JSON and show its targets."""
    folder = WORK / "results" if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "command": f"python benchmarks/{name}.py {' '.join(sys.argv[1:])}".strip(),
        "quick": quick,
        "data": data,
        "hardware": hardware(),
        "versions": _versions(),
        "commit": commit(),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": {"before": _LOAD_AT_START, "after": os.getloadavg()[0]},
        **values,
        "targets": [asdict(target) for target in targets],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"written: {path}")
    for target in content["targets"]:
        print(describe(target))


Parts = Mapping[str, Callable[[Any], dict[str, Any]]]


def add_only(parser: argparse.ArgumentParser, parts: Parts) -> None:
    """Let a benchmark be run in parts."""
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART")


def measure_parts(
    name: str, parts: Parts, judge: Callable[[dict[str, Any]], Sequence[Target]], *, data: str, options: Any
) -> None:
    """Measure the parts that are asked for, and write each beside those that were measured before.

    Args:
        name: of the benchmark.
        parts: how each is measured, given the options.
        judge: its targets, given what was measured of each part.
        data: what it was measured on.
        options: `only` and `quick`.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    path = (WORK / "results" if options.quick else RESULTS) / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.exists() else {}
    for part in options.only:
        before = os.getloadavg()[0]
        measured = parts[part](options)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        load = {"before": before, "after": os.getloadavg()[0]}
        found[part] = {"date": when, "commit": commit(), "load_average": load} | measured
        write_result(name, data=data, values={"parts": found}, targets=judge(found), quick=options.quick)


def describe(target: Mapping[str, Any]) -> str:
    """One line of the table of targets."""
    measured = "-" if target["measured"] is None else f"{target['measured']:.4g}"
    return f"  {target['name']:<74} {target['wanted']:>10} {measured:>10}  {WORDS[target['met']]}"


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str | None:
    """The commit that is measured; None outside a repository."""
    return _git("rev-parse", "HEAD") or None


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""
