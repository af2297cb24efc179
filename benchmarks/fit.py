"""The whole `headstart fit`, from an empty and from a warm cache, against two peers: python benchmarks/fit.py [--quick].

The same 643 pictures and the same fixed split for all, each in a fresh process, timed from its start to its end. Rounds of
our own (bare forward pass, cold fit, warm fits) lie before, between and after the peers, so that all see the same machine.
Takes about 20 minutes on two cores; `--peers` names fewer peers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import measure
from measure import HEADSTART, HERE, Target, at_least, at_most, run_timed, say, summarise

NUM_FOLDS = 5
# What lets glibc keep freed memory; torch on the CPU gains 2-3x, but nobody sets it, so it is told beside the targets.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
PEERS = ("codelab", "fastai", "codelab-malloc")
COUNTED_PEERS = ("codelab", "fastai")


def main() -> None:
    options = measure.read_options(
        __doc__, lambda parser: parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    )
    folder, split = measure.prepare_stamps(quick=options.quick)
    num_items = sum(1 for _ in folder.glob("*/*"))
    peers: dict[str, dict[str, Any]] = {}
    with measure.scratch_folder() as scratch:
        rounds = [run_own(split, scratch, num_items, number=0)]
        for peer in options.peers:
            peers[peer] = run_peer(peer, split, quick=options.quick)
            rounds.append(run_own(split, scratch, num_items, number=len(rounds)))
        cache = scratch / f"cache-{len(rounds) - 1}"
        loaded = run_watched(split, scratch, cache)
        folds = run_folds(folder, scratch, cache)
    values = describe_rounds(rounds) | {"peers": peers, "warm_run_loaded": loaded, "folds": folds}
    data = f"{num_items} stamps in 10 classes (benchmarks/data/stamps.py), fixed 80/20 split (benchmarks/data/split_csv.py)"
    measure.write_result("fit", data=data, values=values, targets=judge(values), quick=options.quick)


def run_own(split: Path, scratch: Path, num_items: int, *, number: int) -> dict[str, Any]:
    """One cold fit, two warm ones, and the bare forward pass of as many images."""
    cache, out = scratch / f"cache-{number}", scratch / f"model-{number}.hs"
    command = [HEADSTART, "fit", split, "--strategy", "extract", "--out", out, "--overwrite", "--json"]
    say(f"fit from an empty cache, round {number}")
    cold = run_timed(command, HEADSTART_CACHE=str(cache))
    compiled = next((cache / "compiled").glob("*/prefix.onnx"))
    bare = run_timed([sys.executable, HERE / "forward.py", compiled, str(num_items)]).told
    warm = [run_timed(command, HEADSTART_CACHE=str(cache)) for _ in range(2)]
    say(f"cold {cold.seconds:.2f} s, warm {', '.join(f'{run.seconds:.2f}' for run in warm)} s, bare {bare['seconds']:.2f} s")
    return {
        "cold": cold.seconds,
        "cold_summary": keep_numbers(cold.told),
        "warm": [run.seconds for run in warm],
        "warm_summary": keep_numbers(warm[-1].told),
        "bare_forward": bare["seconds"],
        "without_leaks": json.loads((out / "report.json").read_text(encoding="utf-8"))["evaluation"].get("without_leaks"),
    }


def keep_numbers(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        key: summary[key] for key in ("counts", "test", "floor", "majority_accuracy", "seconds", "items_per_second", "cache")
    }


def run_peer(peer: str, split: Path, *, quick: bool) -> dict[str, Any]:
    """A peer in a fresh process; {"missing": why} if it cannot be installed here."""
    say(f"peer {peer}")
    epochs = ["1"] if quick else []
    if peer == "fastai":
        python, why = fastai_python()
        if python is None:
            say(f"fastai is left out: {why}")
            return {"missing": why}
        done = run_timed([python, HERE / "peers" / "fastai_finetune.py", split, *epochs])
    else:
        changes = KEEP_MEMORY if peer == "codelab-malloc" else {}
        done = run_timed([sys.executable, HERE / "peers" / "codelab.py", split, *epochs], **changes)
    say(f"{peer}: {done.seconds:.1f} s, accuracy {done.told['accuracy']:.3f}")
    return {"seconds": done.seconds, "told": done.told} | ({"environment": KEEP_MEMORY} if peer == "codelab-malloc" else {})


def fastai_python() -> tuple[Path | None, str]:
    """The interpreter of an environment that adds fastai to this one's packages, torch included; or why there is none."""
    place = measure.WORK / "fastai-venv"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        packages = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
        )
        own = next(path for path in sys.path if path.endswith("site-packages"))
        (Path(packages.stdout.strip()) / "this-project.pth").write_text(own + "\n", encoding="utf-8")
    probe = [python, "-W", "ignore", "-c", "import fastai.vision.all"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "fastai"]
        subprocess.run(command, capture_output=True, check=False)
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(place, ignore_errors=True)
        return None, f"fastai cannot be installed beside this torch: {done.stderr.strip()[-300:]}"
    return python, ""


def run_watched(split: Path, scratch: Path, cache: Path) -> dict[str, Any]:
    """A warm fit whose loaded modules are looked at."""
    told = scratch / "watched.json"
    command = [
        sys.executable,
        HERE / "watched.py",
        told,
        "fit",
        split,
        "--strategy",
        "extract",
        "--out",
        scratch / "watched.hs",
        "--json",
    ]
    run_timed(command, HEADSTART_CACHE=str(cache))
    return json.loads(told.read_text(encoding="utf-8"))


def run_folds(folder: Path, scratch: Path, cache: Path) -> dict[str, Any]:
    """A whole fit for each fold: everything is chosen within its train part, and each item is a test item once."""
    rows = []
    for number, split in enumerate(measure.prepare_folds(folder, NUM_FOLDS)):
        out = scratch / f"fold-{number}.hs"
        summary = run_timed(
            [HEADSTART, "fit", split, "--strategy", "extract", "--out", out, "--json"], HEADSTART_CACHE=str(cache)
        ).told
        without = json.loads((out / "report.json").read_text(encoding="utf-8"))["evaluation"].get("without_leaks")
        rows.append({**keep_numbers(summary), "without_leaks": without})
        say(f"fold {number}: accuracy {summary['test']['accuracy']:.3f} of {summary['counts']['test']}")
    sizes = [row["counts"]["test"] for row in rows]
    right = sum(row["test"]["accuracy"] * size for row, size in zip(rows, sizes, strict=True))
    return {"accuracy": right / sum(sizes), "by_fold": [row["test"]["accuracy"] for row in rows], "fits": rows}


def describe_rounds(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seconds": {
            "cold": summarise([one["cold"] for one in rounds]),
            "warm": summarise([seconds for one in rounds for seconds in one["warm"]]),
            "bare_forward": summarise([one["bare_forward"] for one in rounds]),
        },
        "test_accuracy": rounds[0]["cold_summary"]["test"]["accuracy"],
        "rounds": rounds,
    }


def judge(values: dict[str, Any]) -> list[Target]:
    cold, warm, bare = (values["seconds"][name]["median"] for name in ("cold", "warm", "bare_forward"))
    ran = {name: peer for name, peer in values["peers"].items() if "seconds" in peer}
    targets = []
    for name in COUNTED_PEERS:
        seconds = ran[name]["seconds"] if name in ran else None
        targets.append(at_least(f"{name}: its seconds / ours, empty cache", seconds and seconds / cold, 20))
        targets.append(at_least(f"{name}: its seconds / ours, warm cache", seconds and seconds / warm, 80))
    loaded = values["warm_run_loaded"]
    accuracies = [ran[name]["told"]["accuracy"] for name in COUNTED_PEERS if name in ran]
    accuracy = values["test_accuracy"] if len(accuracies) == len(COUNTED_PEERS) else None
    return [
        *targets,
        at_most("fit from an empty cache / bare forward pass of the same images", cold / bare, 2.2),
        at_most("fit from a warm cache / bare forward pass of the same images", warm / bare, 0.85),
        measure.exactly("training packages loaded by the warm fit: torch", float("torch" in loaded["training_packages"]), 0),
        at_least("test accuracy, against the better peer's", accuracy, max(accuracies, default=0.0)),
        at_least(f"accuracy over {NUM_FOLDS} folds, a whole fit each", values["folds"]["accuracy"], 0.88),
    ]


if __name__ == "__main__":
    main()
