"""The demonstration: handwritten digits as a folder per class, then the commands a user would type.

`digits.csv.gz` has 1,797 digits of 8x8 pixels and their labels: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
Digits", UCI Machine Learning Repository, 1998, CC BY 4.0, doi.org/10.24432/C50P49; the test part, as scikit-learn has it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

DIGITS = Path(__file__).with_name("digits.csv.gz")
FOLDER = Path("demo/digits")
ARTIFACT = Path("demo/digits.hs")
SIDE = 64


def write_digits(folder: Path) -> int:
    """Write 1,797 PNGs, digits/0/… to digits/9/…; gives their number."""
    rows = np.loadtxt(DIGITS, delimiter=",")
    for index, row in enumerate(rows):
        pixels, label = row[:-1].reshape(8, 8), int(row[-1])
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((255 - pixels * 255 / 16).astype("uint8"))
        picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{index:04d}.png")
    return len(rows)


def main() -> int:
    """Make the data, fit, predict three of them."""
    print(f"{write_digits(FOLDER)} digits written to {FOLDER}/")
    command = Path(sys.executable).parent / "headstart"
    for arguments in (
        ["fit", str(FOLDER), "--strategy", "extract", "--out", str(ARTIFACT)],
        ["predict", str(ARTIFACT), *(str(next((FOLDER / label).iterdir())) for label in "037")],
    ):
        print(f"\n$ headstart {' '.join(arguments)}", flush=True)
        status = subprocess.run([command, *arguments], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
