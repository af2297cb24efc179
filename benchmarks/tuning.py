"""Tuning, side by side with what it replaces: python benchmarks/tuning.py [--quick] [--only PART ...].

epochs   the last two blocks on the stamps, against the same training with the frozen part in the loop
steps    a step of training the whole network, against plain timm and torch
stamps   `headstart fit` as it comes, against the tutorials' recipe, and against the floor on other splits
digits   few labels a class: a network tuned and kept, by a margin that is no chance

Each part is written as soon as it is measured, beside what earlier runs measured of the others, so a run that was cut short
goes on with --only. All of them take about an hour on two cores.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import headstart
import measure
from fit import KEEP_MEMORY
from headstart.evidence.intervals import paired_bootstrap
from measure import HEADSTART, HERE, RESULTS, WORK, Target, at_least, at_most, exactly, run_timed, say, summarise

NUM_SEEDS = 5
LABELS_A_CLASS, DIGIT_SIDE = 20, 64
BATCH_SIZE, SIDE, NUM_STEPS = 32, 224, 12
# In this order, so that 'auto' finds an empty cache: what it has time for follows from what the floor took.
STRATEGIES = ("auto", "extract")
# The first steps of a process allocate what the later ones use again.
WARM_STEPS = 2


def measure_epochs(*, quick: bool) -> dict[str, Any]:
    """Ours, theirs, ours again, each in a fresh process; the floor and its features are there beforehand."""
    _, table = measure.prepare_stamps(quick=quick)
    epochs, few = ("3", "2") if quick else ("10", "3")
    with measure.scratch_folder() as scratch:
        ours = [_train_ours(table, epochs, scratch, scratch / "cache-0")]
        theirs = _train_theirs(table, epochs, scratch / "cache-0")
        keeping = _train_theirs(table, few, scratch / "cache-0", **KEEP_MEMORY)
        if not quick:
            ours.append(_train_ours(table, epochs, scratch, scratch / "cache-1"))
    per_epoch = summarise([seconds for one in ours for seconds in one["epoch_seconds"][1:]])
    whole = summarise([one["prepare_seconds"] + sum(one["epoch_seconds"]) for one in ours])
    per_epoch_theirs = summarise(theirs["epoch_seconds"][1:])
    apart = [
        abs(one[name][epoch] - theirs[name][epoch]) / theirs[name][epoch]
        for one in ours
        for name in ("train_loss", "valid_loss")
        for epoch in range(int(epochs))
    ]
    return {
        "seconds_an_epoch": {"ours": per_epoch, "theirs": per_epoch_theirs},
        "seconds_all": {"ours": whole, "theirs": sum(theirs["epoch_seconds"]), "epochs": int(epochs)},
        "times_faster_an_epoch": per_epoch_theirs["median"] / per_epoch["median"],
        "times_faster_all": sum(theirs["epoch_seconds"]) / whole["median"],
        "theirs_keeping_memory_an_epoch": summarise(keeping["epoch_seconds"][1:]),
        "first_loss_apart": abs(ours[0]["train_loss"][0] - theirs["train_loss"][0]) / theirs["train_loss"][0],
        "losses_apart_at_most": max(apart),
        "ours": ours,
        "theirs": theirs,
    }


def _train_ours(table: Path, epochs: str, scratch: Path, cache: Path) -> dict[str, Any]:
    """From a store that has the floor's features, and no states at the cut."""
    fit = [HEADSTART, "fit", table, "--strategy", "extract", "--out", scratch / "any.hs"]
    run_timed(fit, HEADSTART_CACHE=str(cache))
    told = run_timed([sys.executable, HERE / "tune_epochs.py", table, epochs], HEADSTART_CACHE=str(cache)).told
    say(f"ours: {told['prepare_seconds']:.1f} s, then {[round(seconds, 2) for seconds in told['epoch_seconds']]}")
    return told


def _train_theirs(table: Path, epochs: str, cache: Path, **environment: str) -> dict[str, Any]:
    command = [sys.executable, HERE / "peers" / "frozen_again.py", table, epochs]
    told = run_timed(command, HEADSTART_CACHE=str(cache), **environment).told
    how = ", the allocator told to keep memory" if environment else ""
    say(f"theirs{how}: {[round(seconds, 2) for seconds in told['epoch_seconds']]}")
    return told


def measure_steps(*, quick: bool) -> dict[str, Any]:
    """Rounds of theirs and ours in turn, each a fresh process, on the same batches."""
    folder, _ = measure.prepare_stamps(quick=quick)
    steps = 3 if quick else NUM_STEPS
    with measure.scratch_folder() as scratch:
        batches = scratch / "batches.npz"
        _write_batches(folder, batches, steps)
        rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
        for number in range(1 if quick else 5):
            for side, script in (("theirs", HERE / "peers" / "timm_steps.py"), ("ours", HERE / "tune_steps.py")):
                rounds[side].append(run_timed([sys.executable, script, batches]).told)
            took = {side: np.median(done[-1]["step_seconds"][WARM_STEPS:]) for side, done in rounds.items()}
            say(f"round {number + 1}: a step takes {took['ours']:.2f} s, theirs {took['theirs']:.2f} s")
        keeping = run_timed([sys.executable, HERE / "peers" / "timm_steps.py", batches], **KEEP_MEMORY).told
    seconds = {
        side: summarise([float(np.median(one["step_seconds"][WARM_STEPS:])) for one in done]) for side, done in rounds.items()
    }
    losses = {side: done[0]["losses"] for side, done in rounds.items()}
    apart = [abs(a - b) / b for a, b in zip(losses["ours"], losses["theirs"], strict=True)]
    return {
        "seconds_a_step": seconds,
        "times_faster": seconds["theirs"]["median"] / seconds["ours"]["median"],
        "theirs_keeping_memory": float(np.median(keeping["step_seconds"][WARM_STEPS:])),
        "losses": losses,
        "first_losses_apart_at_most": max(apart[:3]),
        "rounds": rounds,
    }


def _write_batches(folder: Path, path: Path, steps: int) -> None:
    random = np.random.default_rng(0)
    found = sorted(folder.glob("*/*.jpg"))
    chosen = random.choice(len(found), steps * BATCH_SIZE, replace=steps * BATCH_SIZE > len(found))
    classes = sorted({place.parent.name for place in found})
    pixels = [np.asarray(Image.open(found[index]).convert("RGB").resize((SIDE, SIDE)), np.float32) for index in chosen]
    np.savez(
        path,
        pixels=(np.stack(pixels).transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32),
        labels=np.array([classes.index(found[index].parent.name) for index in chosen]),
        head=random.normal(0, 0.02, (len(classes), 1280)).astype(np.float32),
        batch_size=BATCH_SIZE,
        rate=3e-4,
    )


def measure_stamps(*, quick: bool) -> dict[str, Any]:
    """From an empty cache on the fixed split, against the peer; then the floor and what is kept on other splits."""
    folder, table = measure.prepare_stamps(quick=quick)
    with measure.scratch_folder() as scratch:
        cache = {"HEADSTART_CACHE": str(scratch / "cache")}
        command = [HEADSTART, "fit", table, "--strategy", "auto", "--out", scratch / "auto.hs", "--json"]
        say("auto on the fixed split, from an empty cache")
        ours = run_timed(command, **cache)
        say(f"{ours.seconds:.1f} s, accuracy {ours.told['test']['accuracy']:.3f}, kept {ours.told['gate']['kept']}")
        epochs = ["1"] if quick else []
        theirs = run_timed([sys.executable, HERE / "peers" / "codelab.py", table, *epochs])
        say(f"codelab: {theirs.seconds:.1f} s, accuracy {theirs.told['accuracy']:.3f}")
        splits = []
        for seed in range(1, 1 + (1 if quick else NUM_SEEDS)):
            other = scratch / f"split-{seed}.csv"
            run_timed([sys.executable, HERE / "data" / "split_csv.py", folder, other, "--seed", str(seed)])
            fresh = {"HEADSTART_CACHE": str(scratch / f"cache-{seed}")}
            splits.append({"seed": seed} | {name: _fit(other, name, scratch, fresh) for name in STRATEGIES})
            say(f"seed {seed}: " + ", ".join(f"{name} {splits[-1][name]['accuracy']:.3f}" for name in STRATEGIES))
    means = {name: float(np.mean([one[name]["accuracy"] for one in splits])) for name in STRATEGIES}
    return {
        "seconds": {"ours": ours.seconds, "theirs": theirs.seconds},
        "accuracy": {"ours": ours.told["test"]["accuracy"], "theirs": theirs.told["accuracy"]},
        "gate": ours.told["gate"],
        "mean_accuracy_of_other_splits": means,
        "other_splits": splits,
    }


def _fit(table: Path, strategy: str, scratch: Path, cache: dict[str, str], *more: str) -> dict[str, Any]:
    out = scratch / f"{strategy}.hs"
    done = run_timed([HEADSTART, "fit", table, "--strategy", strategy, *more, "--out", out, "--json"], **cache)
    told = done.told
    return {"seconds": done.seconds, "accuracy": told["test"]["accuracy"], "gate": told["gate"], "steps": told["seconds"]}


def measure_digits(*, quick: bool) -> dict[str, Any]:
    """Twenty labels a class; the floor's and the kept model's answers to all other digits, item by item."""
    folder, table = WORK / "digits", WORK / "digits.csv"
    if not folder.exists():
        run_timed([sys.executable, HERE / "data" / "digits.py", folder])
    run_timed([sys.executable, HERE / "data" / "split_csv.py", folder, table, "--per-class", str(LABELS_A_CLASS)])
    rows = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    asked = [(path, label) for path, label, side in rows if side == "test"]
    # The pictures are 64 pixels wide, and so is the network's input: the whole network is then cheap to tune.
    size = ("--image-size", str(DIGIT_SIDE))
    # By default a minute or so may be spent here; that is too little for five folds of the whole network.
    more = ("--budget", "15s" if quick else "4m")
    with measure.scratch_folder() as scratch:
        cache = {"HEADSTART_CACHE": str(scratch / "cache")}
        fits, right = {}, {}
        for name in STRATEGIES:
            fits[name] = _fit(table, name, scratch, cache, *size, *(more if name == "auto" else ()))
            model = headstart.load(scratch / f"{name}.hs")
            answers = model.predict([path for path, _ in asked])
            right[name] = np.array([answer.label == label for answer, (_, label) in zip(answers, asked, strict=True)])
            say(f"{name}: accuracy {right[name].mean():.4f} of {len(asked)}, kept {fits[name]['gate']['kept']}")
    gain, low, high = paired_bootstrap(right["auto"], right["extract"], 0)
    return {"fits": fits, "num_test": len(asked), "gain": gain, "gain_ci95": [low, high]}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "epochs": measure_epochs,
    "steps": measure_steps,
    "stamps": measure_stamps,
    "digits": measure_digits,
}


def judge(parts: dict[str, dict[str, Any]]) -> list[Target]:
    """Each target with what was measured, or None where its part has not run."""

    def of(part: str, read: Callable[[dict[str, Any]], float]) -> float | None:
        return read(parts[part]) if part in parts else None

    kept = [
        gate["kept"]
        for gate in (
            *(
                [parts["stamps"]["gate"], *(one["auto"]["gate"] for one in parts["stamps"]["other_splits"])]
                if "stamps" in parts
                else ()
            ),
            *([parts["digits"]["fits"]["auto"]["gate"]] if "digits" in parts else ()),
        )
    ]
    return [
        at_least("epochs: theirs / ours, an epoch from the second on", of("epochs", lambda p: p["times_faster_an_epoch"]), 8),
        at_least("epochs: theirs / ours, all with the first and its views", of("epochs", lambda p: p["times_faster_all"]), 4),
        at_most("epochs: first epoch's loss apart, relative", of("epochs", lambda p: p["first_loss_apart"]), 0.01),
        at_least("steps: theirs / ours, a step of the whole network", of("steps", lambda p: p["times_faster"]), 2),
        at_most("steps: first losses apart, relative", of("steps", lambda p: p["first_losses_apart_at_most"]), 1e-3),
        at_least(
            "stamps: accuracy of auto less codelab's",
            of("stamps", lambda p: p["accuracy"]["ours"] - p["accuracy"]["theirs"]),
            0.02,
        ),
        at_most(
            "stamps: seconds of auto / codelab's", of("stamps", lambda p: p["seconds"]["ours"] / p["seconds"]["theirs"]), 0.2
        ),
        at_least(
            f"stamps: mean accuracy of auto less the floor's, {NUM_SEEDS} other splits",
            of("stamps", lambda p: p["mean_accuracy_of_other_splits"]["auto"] - p["mean_accuracy_of_other_splits"]["extract"]),
            0.0,
        ),
        at_least("digits: accuracy gained over the floor, lower end of 95 %", of("digits", lambda p: p["gain_ci95"][0]), 1e-9),
        exactly(
            "digits: auto keeps a tuned network",
            of("digits", lambda p: float(p["fits"]["auto"]["gate"]["kept"] != "extract")),
            1,
        ),
        at_least("fits in which auto keeps the floor, and says why", float(kept.count("extract")) if kept else None, 1),
    ]


def main() -> None:
    options = measure.read_options(
        __doc__, lambda parser: parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    )
    path = (WORK / "results" if options.quick else RESULTS) / "tuning.json"
    parts = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.exists() else {}
    for name in options.only:
        before = os.getloadavg()[0]
        measured = PARTS[name](quick=options.quick)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        parts[name] = {"date": when, "load_average": {"before": before, "after": os.getloadavg()[0]}, **measured}
        data = (
            "stamps (benchmarks/data/stamps.py) and digits (benchmarks/data/digits.py); splits by benchmarks/data/split_csv.py"
        )
        measure.write_result("tuning", data=data, values={"parts": parts}, targets=judge(parts), quick=options.quick)


if __name__ == "__main__":
    main()
