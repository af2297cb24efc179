"""Every benchmark in order, then one table of what was to be reached: python benchmarks/run.py [--only NAME ...] [--quick].

What `make bench` runs. On two cores at rest the whole takes about two hours; --quick takes a few, and only shows that the
benchmarks work. The table goes to benchmarks/results/README.md too. Exits with 1 if a benchmark fails or a target is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import HERE, RESULTS, WORDS, WORK, at_least, at_most, clean_environment, describe, say

NAMES = ("light", "predict", "refit", "features", "clips", "fit", "tuning", "texts", "sounds", "language", "heads", "memory")
# heads.py keeps a layout of its own, by case, and knows no quick run.
HEADS_TIMES_FASTER = {"ridge-5000": 4, "logistic-643": 20, "logistic-5000": 3}
HEADS_EQUAL_LOG_LOSS = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="little data, few runs: do the benchmarks themselves work?")
    parser.add_argument("--table", action="store_true", help="run nothing; show the results that are there")
    options = parser.parse_args()
    names = [name for name in NAMES if name in options.only and not (options.quick and name == "heads")]
    WORK.mkdir(parents=True, exist_ok=True)
    failed = [] if options.table else [name for name in names if not run(name, quick=options.quick)]
    missed = show_table([name for name in names if name not in failed], WORK / "results" if options.quick else RESULTS)
    if not options.quick:
        write_summary()
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed or missed else 0


def run(name: str, *, quick: bool) -> bool:
    """Run one benchmark; False if it fails."""
    words = ["--quick"] if quick else []
    say(f"{name} {' '.join(words)}")
    started = time.perf_counter()
    done = subprocess.run([sys.executable, HERE / f"{name}.py", *words], check=False, env=clean_environment())
    say(
        f"{name} took {time.perf_counter() - started:.0f} s"
        + (f" and failed with {done.returncode}" if done.returncode else "")
    )
    return done.returncode == 0


def show_table(names: list[str], folder: Path) -> int:
    """Print a line for each target; gives the number of those missed."""
    missed = 0
    for name in names:
        content = read_result(folder / f"{name}.json")
        print(f"\n{heading(name, content)}")
        for target in content.get("targets", []):
            print(describe(target))
            missed += target["met"] is False
    return missed


def read_result(path: Path) -> dict[str, Any]:
    """A benchmark's JSON with its targets; empty if it has not run."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if "targets" in content else content | {"targets": targets_of_heads(content["cases"])}


def heading(name: str, content: dict[str, Any]) -> str:
    if not content:
        return f"{name}: not run yet"
    dirty = " with uncommitted changes" if content.get("uncommitted_changes") else ""
    return f"{name}: {content.get('date', 'no date')}, commit {(content.get('commit') or 'unknown')[:12]}{dirty}"


def write_summary() -> None:
    """Put the targets of all results that are there into benchmarks/results/README.md."""
    lines = [
        "# What was to be reached, and what was",
        "",
        "Written by `python benchmarks/run.py` from the JSON files beside it.",
    ]
    for name in NAMES:
        content = read_result(RESULTS / f"{name}.json")
        lines += ["", f"**{heading(name, content)}**"]
        if content:
            lines += [
                "",
                f"`{content['command'].strip()}`, {content['hardware']['cpu']}, {content['hardware']['cores']} cores",
                "",
            ]
            lines += ["| target | wanted | measured | |", "|---|---|---|---|"]
        for target in content.get("targets", []):
            measured = "-" if target["measured"] is None else f"{target['measured']:.4g}"
            lines.append(f"| {target['name']} | {target['wanted']} | {measured} | {WORDS[target['met']]} |")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def targets_of_heads(cases: dict[str, Any]) -> list[dict[str, Any]]:
    """The exact heads' targets, from the cases that were measured."""
    targets = []
    for case, bound in HEADS_TIMES_FASTER.items():
        found = cases.get(case, {})
        targets.append(at_least(f"{case}: seconds of scikit-learn / ours", found.get("times_faster"), bound))
        if "best_log_loss" in found:
            ours, theirs = found["best_log_loss"].values()
            targets.append(at_most(f"{case}: difference of the best log-losses", abs(ours - theirs), HEADS_EQUAL_LOG_LOSS))
    return [asdict(target) for target in targets]


if __name__ == "__main__":
    sys.exit(main())
