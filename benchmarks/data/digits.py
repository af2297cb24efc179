"""Write the demonstration's 1,797 handwritten digits (8x8 pixels) as a folder per class of PNGs of 64x64 pixels.

Usage: python benchmarks/data/digits.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from demo import write_digits  # noqa: E402 - the digits of `make demo`, and no others

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{write_digits(Path(sys.argv[1]))} digits under {sys.argv[1]}")
