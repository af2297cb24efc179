"""Callbacks that end a training: nothing gets better, nothing is a number any more, or the time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.monitor import Mode, Monitor, count_of, number_of


class EarlyStopping(Callback):
    """Ends training once a number has stopped getting better, and goes back to the weights it was best with.

    The weights are put back at the training's end whether or not it ended early. Counters and best weights survive a resume:
    the checkpoint holds a second copy of the weights for it.

    Args:
        monitor: the number of `logs` that is watched.
        min_delta: a change of less than this does not count.
        patience: epochs without a change for the better after which training ends.
        mode: 'min' if less is better, 'max' if more is; 'auto' goes by the name.
        restore_best_weights: False keeps the weights of the last epoch.
        start_from_epoch: epochs, counted from 0, before this one are not watched.

    Raises:
        SettingError: if an argument cannot work.

    Example:
        >>> stopping = EarlyStopping(monitor="valid_accuracy", patience=3)
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[stopping])  # doctest: +SKIP
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        *,
        min_delta: float = 0.0,
        patience: int = 0,
        mode: Mode = "auto",
        restore_best_weights: bool = True,
        start_from_epoch: int = 0,
    ) -> None:
        self._monitor = Monitor(monitor, mode, min_delta)
        self.patience = count_of("patience", patience)
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = count_of("start_from_epoch", start_from_epoch)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._monitor.best = None
        self.wait = 0
        self.best_epoch: int | None = None
        """The epoch of the best weights, counted from 0."""
        self._best_weights: dict[str, Any] = {}

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._monitor.best

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Forget an earlier training, unless this one goes on from it."""
        if not self.model.history:
            self._begin_anew()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Compare, and end the training if patience is at an end."""
        value = self._monitor.read(logs)
        if epoch < self.start_from_epoch:
            return
        if self._monitor.improved(value):
            self.wait, self.best_epoch = 0, epoch
            if self.restore_best_weights:
                self._best_weights = {name: tensor.cpu() for name, tensor in self.model.weights().items()}
            return
        self.wait += 1
        if self.wait >= self.patience:
            best = "never a number" if self.best_epoch is None else f"best, {self.best:.4g}, in epoch {self.best_epoch + 1}"
            self.model.stop(f"{self._monitor.name} no better for {self.wait} epochs ({best})")

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Put the best weights back."""
        if self._best_weights:
            self.model.set_weights(self._best_weights)

    def state(self) -> dict[str, Any]:
        """Counters, and the best weights as tensors."""
        return {"best": self.best, "wait": self.wait, "best_epoch": self.best_epoch, "best_weights": self._best_weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._monitor.best, self.wait = state["best"], state["wait"]
        self.best_epoch, self._best_weights = state["best_epoch"], state["best_weights"]


class TerminateOnNaN(Callback):
    """Ends training when a loss is NaN or infinite, with the weights the epoch began with, instead of failing.

    Without it such a loss is a `TuningError`, and there is no model.

    Example:
        >>> headstart.fit("flowers/", strategy="full", callbacks=[TerminateOnNaN()])  # doctest: +SKIP
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
        """Keep the weights."""
        self._epoch = epoch
        self._sound_weights = self.model.weights()

    def on_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Look at the loss."""
        if not math.isfinite(logs["loss"]):
            self.model.set_weights(self._sound_weights)
            self.model.stop(f"the loss is {logs['loss']} in epoch {self._epoch + 1}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Free the copy."""
        self._sound_weights = {}


class TimeBudget(Callback):
    """Ends training after the last epoch that fits a number of seconds, judging by the longest epoch so far.

    One epoch is always trained. Seconds spent before a resume count.

    Args:
        seconds: that training may take, above 0.
        clock: gives seconds that only rise; another than the system's is for tests.

    Raises:
        SettingError: if `seconds` is no number above 0.

    Example:
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[TimeBudget(600)])  # doctest: +SKIP
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = number_of("seconds", seconds, least=1e-3)
        self._clock = clock
        self._spent = self._longest = 0.0

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Start the clock."""
        if not self.model.history:
            self._spent = self._longest = 0.0
        self._last = self._clock()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Look at the clock."""
        now = self._clock()
        took, self._last = now - self._last, now
        self._spent += took
        self._longest = max(self._longest, took)
        if self._spent + self._longest > self.seconds:
            self.model.stop(f"another epoch of {self._longest:.3g} s would exceed {self.seconds:g} s")

    def state(self) -> dict[str, Any]:
        """Seconds so far."""
        return {"spent": self._spent, "longest": self._longest}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._spent, self._longest = state["spent"], state["longest"]


def kept_epoch(callbacks: Sequence[Callback], num_epochs: int) -> int | None:
    """The epoch whose weights a training ended with.

    Args:
        callbacks: all of them, after the training.
        num_epochs: that were trained.

    Returns:
        Counted from 0; None where a callback of the user's own making may have put other weights there.
    """
    restoring = [callback for callback in callbacks if isinstance(callback, EarlyStopping) and callback.restore_best_weights]
    if restoring:
        return restoring[-1].best_epoch
    built_in = all(type(callback).__module__.startswith("headstart.") for callback in callbacks)
    return num_epochs - 1 if built_in else None
