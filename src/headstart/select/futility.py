"""Ending a training early that does worse than what it began with. Loads torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.tuning.callbacks.base import Callback

# The first epochs of a whole network undo more than they gain: the validation loss rises far above its start before it falls.
SHARE_OF_EPOCHS = 1 / 2
# How much higher than at the start the validation loss must be, and of how many items at least: fewer tell nothing.
MARGIN, LEAST_MARGIN = 0.1, 0.01
LEAST_TO_TELL = 40


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
