"""The base of all callbacks, with Keras's names and hooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError, SettingError, TuningError

if TYPE_CHECKING:
    from headstart.tuning.training import Training, ValidationData


class Callback:
    """Something told of every step of a training; subclass it and override what you need.

    `self.model` is the training: its network, its learning rate, `stop`, its weights. `self.validation_data` gives
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
        """Called before the first epoch; on resuming, `self.model.history` has the epochs already done."""

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Called after the last epoch, also where training stopped early; not where it failed."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called before each epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called after each epoch; `logs` has train_loss, valid_loss, valid_accuracy, learning_rate and seconds.

        For the value task valid_rmse takes valid_accuracy's place. The weights are those that were validated: the averaged
        ones, where the plan averages.
        """

    def on_batch_begin(self, batch: int, logs: dict[str, Any]) -> None:
        """Called before each training batch, counted from 0 in each epoch; `logs` has size and learning_rate."""

    def on_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Called after each training batch; `logs` has loss, too, and the parameters have the step's gradients."""

    def on_validation_begin(self, logs: dict[str, Any]) -> None:
        """Called before the validation items are run."""

    def on_validation_end(self, logs: dict[str, Any]) -> None:
        """Called after the validation items were run; `logs` has valid_loss and valid_accuracy (or valid_rmse)."""

    def state(self) -> dict[str, Any]:
        """What this callback must remember across a resume: numbers, texts, lists, dicts and torch tensors."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave, on resuming; called before `on_train_begin`."""


def call(callback: Callback, method: str, *arguments: Any) -> Any:  # noqa: ANN401 - as the method takes and gives them
    """Call a method of a callback; whatever it raises names the callback.

    Args:
        callback: one of them.
        method: its name.
        *arguments: what it takes.

    Returns:
        What the method gives.

    Raises:
        TuningError: if the callback raises something that is no error of headstart's own.
    """
    try:
        return getattr(callback, method)(*arguments)
    except HeadstartError:
        raise
    except Exception as error:
        raise TuningError(
            f"the callback {type(callback).__name__} failed in {method}: {type(error).__name__}: {error}",
            expected="a callback that runs through.",
            mend=f"correct {type(callback).__name__}.{method}; --resume goes on from the last epoch's end.",
        ) from error


def check_callbacks(callbacks: Iterable[object]) -> None:
    """Refuse what is no callback before hours are spent on the way to its first call.

    Args:
        callbacks: as the user gave them.

    Raises:
        SettingError: if it is no list, or one is not made from a subclass of `Callback`.
    """
    if not isinstance(callbacks, Iterable):
        what = f"callbacks is no list, but {type(callbacks).__name__}"
        raise SettingError(f"{what}.", expected="a list of instances of headstart.Callback.", mend="callbacks=[…]")
    for callback in callbacks:
        if isinstance(callback, Callback):
            continue
        if isinstance(callback, type) and issubclass(callback, Callback):
            what, mend = f"the callback {callback.__name__} is a class", f"make one of it: {callback.__name__}(…)."
        else:
            what, mend = f"{callback!r} is no callback", "subclass headstart.Callback, and pass an instance of that."
        raise SettingError(f"{what}.", expected="instances of headstart.Callback.", mend=mend)


def as_numbers(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The logs of an epoch as Python's own numbers and texts, which checkpoints and reports can hold.

    Args:
        logs: with what callbacks added: a number may be numpy's, or a tensor of one.

    Raises:
        TuningError: if a value is no number, text or None.
    """
    found = {name: _plain(value) for name, value in logs.items()}
    wrong = [name for name, value in found.items() if not (value is None or isinstance(value, Real | str))]
    if wrong:
        told = ", ".join(f"{name!r} ({type(logs[name]).__name__})" for name in wrong)
        raise TuningError(
            f"a callback put {told} into the logs.",
            expected="numbers.",
            mend="float(…) of it; arrays have their place in an attribute of the callback.",
        )
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a callback puts there
    single = getattr(value, "shape", None) == ()
    return value.item() if single else value
