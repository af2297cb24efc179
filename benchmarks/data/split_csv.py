"""Write one fixed 80/20 stratified split of a folder-per-class data set as CSV (path,label,split), of seed 0 or another.

Every tool of a comparison reads this file, so that all of them train and are scored on the same items. With --folds K it
writes K files instead, OUT.0.csv and so on, each with another K-th of the items as its test. With --per-class N exactly N items
of each class train, and all others test.

Usage: python benchmarks/data/split_csv.py DATA OUT.csv [--seed S] [--folds K | --per-class N]      (needs scikit-learn)
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int)
    parser.add_argument("--per-class", type=int)
    options = parser.parse_args()
    paths = sorted(path for path in options.data.glob("*/*") if path.is_file())
    labels = [path.parent.name for path in paths]
    if options.per_class is not None:
        train = draw_per_class(labels, options.per_class, options.seed)
        write_split(options.out, paths, set(range(len(paths))) - train)
        return
    if options.folds is None:
        _, test = train_test_split(range(len(paths)), test_size=0.2, stratify=labels, random_state=options.seed)
        write_split(options.out, paths, set(test))
        return
    folds = StratifiedKFold(options.folds, shuffle=True, random_state=options.seed).split(paths, labels)
    for fold, (_, test) in enumerate(folds):
        write_split(options.out.with_suffix(f".{fold}.csv"), paths, {int(position) for position in test})


def draw_per_class(labels: list[str], count: int, seed: int) -> set[int]:
    random = np.random.default_rng(seed)
    places = (np.flatnonzero(np.array(labels) == label) for label in sorted(set(labels)))
    return {int(place) for of_class in places for place in random.choice(of_class, count, replace=False)}


def write_split(out: Path, paths: list[Path], test: Collection[int]) -> None:
    with out.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["path", "label", "split"])
        for position, path in enumerate(paths):
            rows.writerow([path.resolve(), path.parent.name, "test" if position in test else "train"])
    print(f"{len(paths) - len(test)} train, {len(test)} test in {out}")


if __name__ == "__main__":
    main()
