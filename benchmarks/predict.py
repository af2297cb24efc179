"""`headstart predict` of one picture from a cold process: python benchmarks/predict.py [--quick].

Against a process that does nothing but import onnxruntime, numpy and Pillow and open the same model. The two run in turn.
About a minute, after a fit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import measure
from measure import HEADSTART, HERE, at_most, exactly, run_timed, say, summarise

LEAST = (
    "import sys, numpy, onnxruntime; from PIL import Image; "
    "onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
)


def main() -> None:
    options = measure.read_options(__doc__)
    repeats = 3 if options.quick else 11
    folder, split = measure.prepare_stamps(quick=options.quick)
    picture = sorted(folder.glob("*/*.jpg"))[0]
    with measure.scratch_folder() as scratch:
        artifact, cache = scratch / "stamps.hs", str(scratch / "cache")
        say("fitting the model to predict with")
        run_timed([HEADSTART, "fit", split, "--strategy", "extract", "--out", artifact, "--json"], HEADSTART_CACHE=cache)
        seconds = time_both(artifact, picture, repeats, cache)
        told = scratch / "watched.json"
        run_timed([sys.executable, HERE / "watched.py", told, "predict", artifact, picture, "--json"], HEADSTART_CACHE=cache)
        loaded = json.loads(told.read_text(encoding="utf-8"))
        size = (artifact / "model.onnx").stat().st_size
    medians = {side: summarise(values) for side, values in seconds.items()}
    ratio = medians["predict"]["median"] / medians["import_and_open"]["median"]
    values = {"seconds": medians, "ratio": ratio, "model_bytes": size, "predict_loaded": loaded}
    targets = [
        at_most("predict of one picture / importing onnxruntime, numpy, Pillow and opening the model", ratio, 2.0),
        exactly("torch among the modules that predict loaded", float("torch" in loaded["training_packages"]), 0),
    ]
    data = f"one stamp, {picture.stat().st_size} bytes; model.onnx of a fit on the stamps"
    measure.write_result("predict", data=data, values=values, targets=targets, quick=options.quick)


def time_both(artifact: Path, picture: Path, repeats: int, cache: str) -> dict[str, list[float]]:
    """Seconds of both sides, in turn; the first turn, which brings the files into memory, is not counted."""
    commands: dict[str, list[Any]] = {
        "import_and_open": [sys.executable, "-c", LEAST, artifact / "model.onnx"],
        "predict": [HEADSTART, "predict", artifact, picture, "--json"],
    }
    seconds: dict[str, list[float]] = {side: [] for side in commands}
    for number in range(repeats + 1):
        for side, command in commands.items():
            taken = run_timed(command, HEADSTART_CACHE=cache).seconds
            if number:
                seconds[side].append(taken)
    say(", ".join(f"{side} {summarise(values)['median']:.3f} s" for side, values in seconds.items()))
    return seconds


if __name__ == "__main__":
    main()
