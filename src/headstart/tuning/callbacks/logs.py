"""Callbacks that tell what goes on: to a CSV file, to a progress bar, to an MLflow server."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from headstart.errors import MissingPackageError
from headstart.tuning.callbacks.base import Callback

COLUMNS = ("epoch", "seconds", "train_loss", "valid_loss", "valid_accuracy", "valid_rmse", "valid_perplexity", "learning_rate")


class CSVLogger(Callback):
    """Writes a row an epoch to a CSV file, which can be watched while it grows; on resuming, rows go on where they were.

    The columns are epoch (counted from 1), seconds, train_loss, valid_loss, valid_accuracy (valid_rmse for the value task) and
    learning_rate, then whatever callbacks before this one added to `logs`.

    Args:
        path: of the file; overwritten unless the training is resumed.

    Example:
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[CSVLogger("history.csv")])  # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._columns: list[str] = []

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Write the rows of the epochs that a resumed training has behind it, or none."""
        # A killed training may have written the row of an epoch that its checkpoint lacks, so the file does not count.
        self._write_all(self.model.history)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Add a row."""
        if not self.model.is_main_process:
            return
        if not logs.keys() <= set(self._columns):
            self._write_all([*self.model.history, logs])
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(_numbered(logs))

    def _write_all(self, rows: list[dict[str, Any]]) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        self._columns = [name for name in COLUMNS if name in names] + [name for name in names if name not in COLUMNS]
        if not self.model.is_main_process:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if rows:
                writer.writeheader()
            writer.writerows(_numbered(row) for row in rows)


def _numbered(logs: dict[str, Any]) -> dict[str, Any]:
    """Epochs count from 1 in files that people read."""
    return logs | {"epoch": logs["epoch"] + 1}


class ProgressBar(Callback):
    """Shows how far a training is: on the terminal, or by whatever it is given.

    Args:
        tell: called after each step of the optimiser, with the steps done and all of them; None draws a bar on stderr.

    Example:
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[ProgressBar()])  # doctest: +SKIP
    """

    def __init__(self, tell: Callable[[int, int], None] | None = None) -> None:
        self._tell = tell
        self._bar: Any = None

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Draw the bar, if it is this callback's own."""
        if self._tell is None and self.model.is_main_process:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True))
            self._bar.add_task("tuning", total=self._steps(self.model.plan.epochs))
            self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
        """Remember which epoch it is."""
        self._epoch = epoch

    def on_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Move on by a step."""
        self._show(self._steps(self._epoch) + batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Tell the losses."""
        if self._bar is not None:
            told = f"epoch {epoch + 1}: train loss {logs['train_loss']:.4f}, valid loss {logs['valid_loss']:.4f}"
            self._bar.update(self._bar.task_ids[0], description=told)

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _steps(self, epochs: int) -> int:
        return epochs * self.model.num_batches

    def _show(self, done: int) -> None:
        if self._tell is not None:
            self._tell(done, self._steps(self.model.plan.epochs))
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)


class MLflowLogger(Callback):
    """Sends the plan's numbers and every epoch's logs to MLflow, into the active run or one of its own.

    Where the server is, and in which experiment, is set as always with MLflow (`MLFLOW_TRACKING_URI`,
    `mlflow.set_experiment`). A resumed training goes on in the same run.

    Args:
        run_name: of a run of its own; MLflow invents one for None.

    Raises:
        MissingPackageError: if mlflow is not installed.

    Example:
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[MLflowLogger("flowers")])  # doctest: +SKIP
    """

    def __init__(self, run_name: str | None = None) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise MissingPackageError("mlflow", purpose="MLflowLogger") from error
        self._mlflow = mlflow
        self.run_name = run_name
        self.run_id: str | None = None
        """Of the run that is written to, once training began."""
        self._own = False

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Open a run if none is, and send the plan."""
        if not self.model.is_main_process:
            return
        resumed = bool(self.model.history)
        run = self._mlflow.active_run()
        self._own = run is None
        if run is None:
            run = self._mlflow.start_run(run_id=self.run_id if resumed else None, run_name=self.run_name)
        self.run_id = run.info.run_id
        if not resumed:
            plan = self.model.plan.as_json()
            self._mlflow.log_params({name: value for name, value in plan.items() if name != "reasons"})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Send the numbers; epochs count from 1."""
        if self.model.is_main_process:
            numbers = {name: float(value) for name, value in logs.items() if isinstance(value, Real) and name != "epoch"}
            finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
            self._mlflow.log_metrics(finite, step=epoch + 1)

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Tell why training stopped early, if it did, and close the run if it is this callback's own."""
        if not self.model.is_main_process:
            return
        if self.model.why_stopped:
            self._mlflow.set_tag("why_stopped", self.model.why_stopped)
        if self._own:
            self._mlflow.end_run()

    def state(self) -> dict[str, Any]:
        """Which run it is."""
        return {"run_id": self.run_id}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.run_id = state["run_id"]
