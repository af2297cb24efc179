"""Callbacks that change the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.errors import SettingError
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.monitor import Mode, Monitor, count_of, number_of


class LearningRateScheduler(Callback):
    """Sets the learning rate of each epoch, in place of the plan's own schedule.

    The rate is the head's; the blocks' stay in proportion to it.

    Args:
        schedule: from the epoch, counted from 0, and the rate so far (at first the plan's highest) to the rate of this epoch.

    Raises:
        SettingError: if `schedule` cannot be called.

    Example:
        >>> halved = LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch else rate)
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[halved])  # doctest: +SKIP
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        if not callable(schedule):
            raise SettingError(
                f"schedule is {schedule!r}.",
                expected="a function of epoch and rate.",
                mend="LearningRateScheduler(lambda epoch, rate: 1e-3), say.",
            )
        self._schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
        """Set the rate.

        Raises:
            SettingError: if the schedule gives no number from 0 up.
        """
        training = self.model
        so_far = training.plan.head_rate * training.rate_factor if training.fixed_rate is None else training.fixed_rate
        training.learning_rate = number_of(f"the learning rate of epoch {epoch + 1}", self._schedule(epoch, so_far), least=0.0)


class ReduceLROnPlateau(Callback):
    """Lowers the learning rate where a number has stopped getting better.

    The plan's schedule goes on, multiplied by the factors so far; a rate that another callback set is multiplied itself.

    Args:
        monitor: the number of `logs` that is watched.
        factor: what the rate is multiplied by, above 0 and below 1.
        patience: epochs without a change for the better after which the rate is lowered.
        mode: 'min' if less is better, 'max' if more is; 'auto' goes by the name.
        min_delta: a change of less than this does not count.
        cooldown: epochs from a lowering to the first that counts again.
        min_lr: the head's rate is not lowered below this one.

    Raises:
        SettingError: if an argument cannot work.

    Example:
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[ReduceLROnPlateau(patience=2)])  # doctest: +SKIP
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        *,
        factor: float = 0.1,
        patience: int = 10,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        self._monitor = Monitor(monitor, mode, min_delta)
        self.factor = number_of("factor", factor, least=1e-9, most=1 - 1e-9)
        self.patience = count_of("patience", patience)
        self.cooldown = count_of("cooldown", cooldown)
        self.min_lr = number_of("min_lr", min_lr, least=0.0)
        self._wait = self._cooling = 0

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Forget an earlier training, unless this one goes on from it."""
        if not self.model.history:
            self._monitor.best, self._wait, self._cooling = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Compare, and lower the rate if patience is at an end."""
        improved = self._monitor.improved(self._monitor.read(logs))
        if self._cooling:
            self._cooling, self._wait = self._cooling - 1, 0
        if improved or self._cooling:
            self._wait = 0
            return
        self._wait += 1
        if self._wait >= self.patience:
            self._lower()
            self._wait, self._cooling = 0, self.cooldown

    def _lower(self) -> None:
        training = self.model
        rate = training.learning_rate
        if rate <= self.min_lr:
            return
        share = max(rate * self.factor, self.min_lr) / rate
        if training.fixed_rate is None:
            training.rate_factor *= share
        else:
            training.fixed_rate *= share

    def state(self) -> dict[str, Any]:
        """Counters; the rate itself is the training's."""
        return {"best": self._monitor.best, "wait": self._wait, "cooling": self._cooling}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._monitor.best, self._wait, self._cooling = state["best"], state["wait"], state["cooling"]
