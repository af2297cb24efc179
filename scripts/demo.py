"""The demonstration: scikit-learn's handwritten digits as a folder per class, then the command a user would type."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

FOLDER = Path("demo/digits")
ARTIFACT = Path("demo/digits.hs")
SIDE = 64


def write_digits(folder: Path) -> int:
    """Write 1,797 PNGs, digits/0/… to digits/9/…; gives their number."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((255 - pixels * 255 / 16).astype("uint8"))
        picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{index:04d}.png")
    return len(digits.target)


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
