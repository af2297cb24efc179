"""Ending early a training that does worse than what it began with, and a trial that has next to no chance. Loads torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

from headstart.select.gate import Verdict
from headstart.tuning.callbacks.base import Callback

# The first epochs of a whole network undo more than they gain: the validation loss rises far above its start before it falls.
SHARE_OF_EPOCHS = 1 / 2
# How much higher than at the start the validation loss must be, and of how many items at least: fewer tell nothing.
MARGIN, LEAST_MARGIN = 0.1, 0.01
LEAST_TO_TELL = 40
# A trial goes on while its chance to pass is at least this.
LEAST_CHANCE = 0.02
_SURE = NormalDist().inv_cdf(0.975)


def chance_to_pass(verdict: Verdict, share: float) -> float:
    """The chance that the loss gained comes to be above 0 beyond doubt, if the folds to come are like those done.

    Conditional power under the current trend (Lan, Simon and Halperin 1982, Communications in Statistics C 1(3)).

    Args:
        verdict: on the folds done.
        share: of the folds that are done, in (0, 1].

    Returns:
        In [0, 1].
    """
    deviation = (verdict.loss_high - verdict.loss_low) / (2 * _SURE)
    if deviation <= 0 or share >= 1:
        return float(verdict.loss_low > 0)
    end = verdict.loss_gain / deviation / math.sqrt(share)
    return NormalDist().cdf((end - _SURE) / math.sqrt(1 - share))


class StopIfWorse(Callback):
    """Looks once, after half of the epochs, whether the validation loss is higher than before the training."""

    def __init__(self, loss: Callable[[], float], start_loss: float, epochs: int) -> None:
        """Take note of the start.

        Args:
            loss: tells the network's calibrated validation loss.
            start_loss: what it was before the first step.
            epochs: of the whole training.
        """
        self.stopped = False
        self.loss = loss
        self.limit = start_loss * (1 + MARGIN) + LEAST_MARGIN
        self.looks_after = max(2, round(SHARE_OF_EPOCHS * epochs))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Stop, where it is."""
        if epoch + 1 == self.looks_after and self.loss() > self.limit:
            self.model.stop_training = self.stopped = True
