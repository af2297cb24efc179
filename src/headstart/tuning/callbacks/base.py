"""The base of all callbacks, with Keras's names and hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.tuning.training import Training, ValidationData


class Callback:
    """Something told of every step of a training; subclass it and override what you need.

    `self.model` is the training: its network, its learning rate, `stop_training`, its weights. `self.validation_data` gives
    the validation items' inputs and targets. Both are set before `on_train_begin`. `logs` is a dict of numbers; what a callback
    adds to it, the callbacks after it see. What `state` gives is kept in checkpoints, and given to `restore` on resuming.

    Example:
        >>> class Announce(Callback):
        ...     def on_epoch_end(self, epoch, logs):
        ...         self.seen = (epoch, logs["valid_loss"])
    """

    model: Training
    validation_data: ValidationData

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Called before the first epoch."""

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Called after the last epoch, also where training stopped early; not where it failed."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called before each epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called after each epoch; `logs` has train_loss, valid_loss, valid_accuracy, learning_rate and seconds."""

    def on_batch_begin(self, batch: int, logs: dict[str, Any]) -> None:
        """Called before each training batch, counted from 0 in each epoch."""

    def on_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Called after each training batch; `logs` has loss, size and learning_rate."""

    def on_validation_begin(self, logs: dict[str, Any]) -> None:
        """Called before the validation items are run."""

    def on_validation_end(self, logs: dict[str, Any]) -> None:
        """Called after the validation items were run; `logs` has valid_loss and valid_accuracy."""

    def state(self) -> dict[str, Any]:
        """What this callback must remember across a resume, as JSON values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave, on resuming; called before `on_train_begin`."""
