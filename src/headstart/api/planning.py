"""What every last training is watched by. Loads torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from headstart.artifact.store import HISTORY, LOGS
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.logs import CSVLogger, ProgressBar
from headstart.tuning.callbacks.tensor_board import TensorBoard

Progress = Callable[[str, int, int], None]


def default_callbacks(folder: Path, progress: Progress | None) -> list[Callback]:
    """What every last training is watched by, after the user's callbacks, and so with what those add to the logs.

    That is history.csv, TensorBoard's files where its package is installed, and the progress bar.
    """
    found: list[Callback] = [CSVLogger(folder / HISTORY)]
    if importlib.util.find_spec("tensorboard") is not None:
        found.append(TensorBoard(folder / LOGS))
    if progress is not None:
        found.append(ProgressBar(lambda done, total: progress("tuning", done, total)))
    return found
