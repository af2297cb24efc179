"""Write one fixed 80/20 stratified split of a folder-per-class data set as CSV (path,label,split), seed 0.

Every tool of a comparison reads this file, so that all of them train and are scored on the same items. With --folds K it
writes K files instead, OUT.0.csv and so on, each with another K-th of the items as its test.

Usage: python benchmarks/data/split_csv.py DATA OUT.csv [--folds K]      (needs scikit-learn)
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Collection
from pathlib import Path

from sklearn.model_selection import StratifiedKFold, train_test_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int)
    options = parser.parse_args()
    paths = sorted(path for path in options.data.glob("*/*") if path.is_file())
    labels = [path.parent.name for path in paths]
    if options.folds is None:
        _, test = train_test_split(range(len(paths)), test_size=0.2, stratify=labels, random_state=0)
        write_split(options.out, paths, set(test))
        return
    folds = StratifiedKFold(options.folds, shuffle=True, random_state=0).split(paths, labels)
    for fold, (_, test) in enumerate(folds):
        write_split(options.out.with_suffix(f".{fold}.csv"), paths, {int(position) for position in test})


def write_split(out: Path, paths: list[Path], test: Collection[int]) -> None:
    with out.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["path", "label", "split"])
        for position, path in enumerate(paths):
            rows.writerow([path.resolve(), path.parent.name, "test" if position in test else "train"])
    print(f"{len(paths) - len(test)} train, {len(test)} test in {out}")


if __name__ == "__main__":
    main()
