#!/usr/bin/env python3
"""Prepare the sentiment benchmark: sentences with a human rating, as CSV with columns text,label,value.

Source: the source distribution of vaderSentiment 2.5
(pip download --no-deps --no-binary :all: -d DIR vaderSentiment==2.5), which carries the ICWSM 2014 ground truth: each
sentence with the mean of 20 ratings from -4 to 4 (C. J. Hutto and E. Gilbert, "VADER", ICWSM 2014). `label` is the sign of
the rating.

    movies   10,605 sentences of film reviews (a large source task)
    products  3,708 sentences of product reviews (a small target task)

Usage: sentiment.py SDIST.tar.gz movies|products OUT.csv
"""

import csv
import io
import sys
import tarfile
from pathlib import Path

MEMBERS = {"movies": "movieReviewSnippets_GroundTruth.txt", "products": "amazonReviewSnippets_GroundTruth.txt"}


def main(sdist: Path, which: str, out: Path) -> None:
    with tarfile.open(sdist) as outer:
        inner_name = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        inner_bytes = outer.extractfile(inner_name).read()
    with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
        name = next(name for name in inner.getnames() if name.endswith(MEMBERS[which]))
        lines = inner.extractfile(name).read().decode("latin-1").splitlines()
    count = 0
    with out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "value"])
        for line in lines:
            parts = line.split("\t")
            if len(parts) >= 3 and parts[2].strip():
                value = float(parts[1])
                rows.writerow([parts[2].strip(), "positive" if value > 0 else "negative", value])
                count += 1
    print(f"{count} sentences in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[2] not in MEMBERS:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
