"""Tables of texts, written and read, drawn from and fitted by the command."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from measure import HEADSTART, run_timed

Rows = list[dict[str, str]]
OTHERS = 1_000
"""Texts that are asked where few are learned from."""


def fit(table: Path, out: Path, cache: dict[str, str], *how: str, label: str = "label") -> dict[str, Any]:
    """Fit a table of texts by the command, and give what it prints."""
    columns = ["--item-column", "text", "--label-column", label, "--modality", "text"]
    split = ["--split-column", "split"] if "split" in table.read_text(encoding="utf-8").partition("\n")[0] else []
    return run_timed([HEADSTART, "fit", table, *columns, *split, *how, "--out", out, "--json"], **cache).told


def draw_few(rows: Rows, few: int, *, seed: int) -> tuple[Rows, Rows]:
    """So many labels in all, as many of each class, mixed; and all other rows."""
    order = np.random.default_rng(seed).permutation(len(rows))
    labels = sorted({row["label"] for row in rows})
    chosen = [[place for place in order if rows[place]["label"] == label][: few // len(labels)] for label in labels]
    train = [place for places in zip(*chosen, strict=True) for place in places]
    taken = set(train)
    return [rows[place] for place in train], [rows[place] for place in order if place not in taken]


def write_rows(path: Path, rows: Rows, columns: Sequence[str]) -> None:
    """Write some columns as CSV."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(columns)
        table.writerows([row[column] for column in columns] for row in rows)


def write_split(path: Path, train: Rows, test: Rows, columns: Sequence[str]) -> None:
    """Write both sides, with a column that tells them apart."""
    sides = [row | {"split": side} for side, rows in (("train", train), ("test", test)) for row in rows]
    write_rows(path, sides, (*columns, "split"))


def read_rows(path: Path) -> Rows:
    """Read a CSV."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def cache_of(options: Any, scratch: Path) -> dict[str, str]:
    """Where features are kept: in a cache that is there already, or in one that is gone afterwards."""
    return {"HEADSTART_CACHE": str(Path(options.cache).absolute() if options.cache else scratch / "cache")}
