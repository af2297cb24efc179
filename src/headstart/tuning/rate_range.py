"""The learning-rate range test (Smith 2017, arXiv 1506.01186), repeated, so that it tells its own spread.

One run of the test says one rate, and another run another: the answer hangs on the order of the batches and on how many steps
are taken. So the number of steps is fixed, the test is run with several orders, and all the answers are told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.records import Task
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.loop import tune
from headstart.tuning.network import TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.training import TrainingSet

NUM_RUNS, NUM_STEPS = 3, 60
# The rates tried, as multiples of the plan's.
LOWEST, HIGHEST = 1e-2, 1e3
# A loss this many times its lowest is on its way up for good; the rate kept lies this many times below.
RISEN, MARGIN = 1.5, 10.0
SMOOTHING = 0.8


@dataclass(frozen=True, kw_only=True)
class RateRange:
    """What the runs of the test said of the head's learning rate; the blocks' stay in proportion."""

    rates: tuple[float, ...]
    """One a run, in their order."""

    @property
    def rate(self) -> float:
        """The median."""
        return float(np.median(self.rates))

    @property
    def told(self) -> str:
        """In words."""
        runs = f"{len(self.rates)} range tests of {NUM_STEPS} steps"
        return f"{runs} say {self.rate:.2g}, from {min(self.rates):.2g} to {max(self.rates):.2g}"


class _Rise(Callback):
    """Raises the rate at every step, and ends the training where the loss rises."""

    def __init__(self, rates: np.ndarray) -> None:
        self._rates = rates
        self.losses: list[float] = []

    def on_batch_begin(self, batch: int, logs: dict[str, Any]) -> None:
        """Set the step's rate."""
        self.model.learning_rate = float(self._rates[len(self.losses)])

    def on_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Note the loss."""
        before = self.losses[-1] if self.losses else logs["loss"]
        self.losses.append(SMOOTHING * before + (1 - SMOOTHING) * logs["loss"])
        if _has_risen(self.losses) or len(self.losses) == len(self._rates):
            self.model.stop("the range test is done")


def find_learning_rate(
    make_network: Callable[[], TunableNetwork], train: TrainingSet, valid: TrainingSet, *, task: Task, plan: TuningPlan
) -> RateRange:
    """Find the rate from which training comes apart, several times, and stay below it.

    Args:
        make_network: gives the network as training begins.
        train: what is learned from.
        valid: watched, as in any training; nothing is chosen by it.
        task: what the targets are.
        plan: of the training; its rates are where the test begins.

    Returns:
        The rate of each run: a tenth of that at which the smoothed loss rose, or of the highest tried where it never did.
    """
    rates = plan.head_rate * np.geomspace(LOWEST, HIGHEST, NUM_STEPS)
    quick = replace(plan, epochs=NUM_STEPS, averaging="none", patience=0, unfreeze_every=0, mixup=0.0, cutmix=0.0)
    found = []
    for run in range(NUM_RUNS):
        rise = _Rise(rates)
        tune(make_network(), train, valid, task=task, plan=replace(quick, seed=plan.seed + run), callbacks=[rise])
        found.append(float(rates[len(rise.losses) - 1]) / MARGIN)
    return RateRange(rates=tuple(found))


def _has_risen(losses: list[float]) -> bool:
    return not math.isfinite(losses[-1]) or losses[-1] > RISEN * min(losses) + 0.05
