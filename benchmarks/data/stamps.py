"""Prepare the image benchmark: 643 labelled photos and drawings in 10 classes, one folder per class.

Source: the Debian package `tuxpaint-stamps-default` (apt-get install -y tuxpaint-stamps-default), whose stamps lie in
/usr/share/tuxpaint/stamps/CLASS/... as PNG with transparency. Cartoons are left out; transparency becomes white; the JPEG
quality is 92.

Usage: python benchmarks/data/stamps.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

SOURCE = Path("/usr/share/tuxpaint/stamps")
CLASSES = ("animals", "clothes", "food", "household", "plants", "seasonal", "space", "symbols", "town", "vehicles")


def main(out: Path) -> None:
    if not SOURCE.is_dir():
        sys.exit(f"{SOURCE} is missing: apt-get install -y tuxpaint-stamps-default")
    count = 0
    for label in CLASSES:
        (out / label).mkdir(parents=True, exist_ok=True)
        for path in sorted((SOURCE / label).rglob("*.png")):
            if "cartoon" not in str(path):
                name = str(path.relative_to(SOURCE)).replace("/", "_")[:-4]
                write_on_white(path, out / label / f"{name}.jpg")
                count += 1
    print(f"{count} images in {len(CLASSES)} classes under {out}")


def write_on_white(source: Path, target: Path) -> None:
    image = Image.open(source).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    white.convert("RGB").save(target, quality=92)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
