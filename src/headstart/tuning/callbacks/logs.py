"""Callbacks that tell what goes on: to a CSV file, and to whoever shows a progress bar."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.tuning.callbacks.base import Callback

COLUMNS = ("epoch", "seconds", "train_loss", "valid_loss", "valid_accuracy", "learning_rate")


class CSVLogger(Callback):
    """Writes a row an epoch to a CSV file, which can be watched while it grows; on resuming, rows go on where they were.

    Args:
        path: of the file; overwritten unless the training is resumed.

    Example:
        >>> headstart.fit("flowers/", callbacks=[CSVLogger("history.csv")])  # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._columns: list[str] = []

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Write the rows of the epochs that a resumed training has behind it, or none."""
        rows = self.model.history
        self._columns = _columns(rows[0]) if rows else []
        with self.path.open("w", newline="", encoding="utf-8") as file:
            if rows:
                writer = csv.DictWriter(file, self._columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(_numbered(row) for row in rows)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Add a row."""
        first = not self._columns
        self._columns = self._columns or _columns(logs)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore")
            if first:
                writer.writeheader()
            writer.writerow(_numbered(logs))


def _columns(logs: dict[str, Any]) -> list[str]:
    known = [name for name in COLUMNS if name in logs]
    return known + [name for name in logs if name not in known]


def _numbered(logs: dict[str, Any]) -> dict[str, Any]:
    """Epochs count from 1 in files that people read."""
    return logs | {"epoch": logs["epoch"] + 1}


class ProgressBar(Callback):
    """Tells the epochs done, and all, after each batch and epoch.

    Args:
        tell: called with the batches done, and all of them.
    """

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Tell it."""
        self._tell(epoch + 1, self.model.plan.epochs)
