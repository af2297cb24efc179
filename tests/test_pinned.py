"""Three whole fits give the numbers that they gave before, and features keep their keys: a change of structure changes neither.

`pinned.json` holds them; `python tests/test_pinned.py` writes it anew, for a change that is meant to change them.

Data: 300 digits (scripts/demo.py names the source), 240 sentences of film reviews (C. J. Hutto and E. Gilbert, VADER, ICWSM
2014; MIT licence) and 48 synthetic sounds.
"""

import csv
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.cli import main

HERE = Path(__file__).parent
PINNED = HERE / "pinned.json"
NUM_DIGITS = 300


def write_digits(folder):
    """A folder of PNGs per digit."""
    rows = np.loadtxt(HERE.parent / "scripts" / "digits.csv.gz", delimiter=",", max_rows=NUM_DIGITS)
    for index, row in enumerate(rows):
        place = folder / str(int(row[-1]))
        place.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((255 - row[:-1].reshape(8, 8) * 255 / 16).astype("uint8"))
        pixels.resize((64, 64), Image.Resampling.BICUBIC).save(place / f"{index:03d}.png")
    return folder


def write_prompts(folder):
    """A folder of WAV files per kind."""
    from sound_models import write_sounds

    return write_sounds(folder, per_class=12)


DATA = {
    "photos": write_digits,
    "reviews": lambda folder: HERE / "reviews.csv",
    "prompts": write_prompts,
}


def fit_and_measure(name, folder):
    """Fit from an empty cache; gives the keys of what was kept, the test scores, and what the model answers to test items."""
    data = DATA[name](folder / name)
    cache, out = folder / "cache", folder / f"{name}.hs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(cache))
        options = ["--strategy", "extract", "--precision", "float32", "--seed", "0"]
        fitted = call(patch, "fit", data, *options, "--out", out)
        answers = call(patch, "predict", out, *items_of(data))["predictions"]
    with (out / "splits.csv").open(newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    return {
        "compiled": sorted(path.stem for path in (cache / "compiled").iterdir()),
        "features": sorted(path.stem for path in (cache / "features").iterdir()),
        "splits": "".join(split[1] for split in splits),
        "test": {key: value for key, value in fitted["test"].items() if key in ("accuracy", "log_loss", "macro_f1")},
        "probabilities": [answer["probabilities"] for answer in answers],
    }


def call(patch, *words):
    """Run a command here; gives the object that it prints."""
    patch.setattr(sys, "argv", ["headstart", *map(str, words), "--json"])
    with tempfile.TemporaryFile("w+") as printed, pytest.MonkeyPatch.context() as inner:
        inner.setattr(sys, "stdout", printed)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        printed.seek(0)
        return json.loads(printed.read())


def items_of(data):
    """The first items, as `predict` takes them."""
    if data.is_file():
        with data.open(newline="", encoding="utf-8") as file:
            return [row["text"] for row in csv.DictReader(file)][:20]
    return sorted(data.glob("*/*"))[::12]


@pytest.mark.parametrize("name", DATA)
def test_a_whole_fit_gives_the_same(name, tmp_path):
    found, wanted = fit_and_measure(name, tmp_path), json.loads(PINNED.read_text())[name]
    for key in ("compiled", "features", "splits"):
        assert found[key] == wanted[key]
    assert found["test"] == pytest.approx(wanted["test"], abs=1e-6)
    assert len(found["probabilities"]) == len(wanted["probabilities"])
    for here, there in zip(found["probabilities"], wanted["probabilities"], strict=True):
        assert here == pytest.approx(there, abs=1e-5)


if __name__ == "__main__":
    os.environ["HEADSTART_DEVICE"] = "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        pinned = {name: fit_and_measure(name, Path(scratch, name)) for name in DATA if not Path(scratch, name).mkdir()}
    PINNED.write_text(json.dumps(pinned, indent=1) + "\n")
