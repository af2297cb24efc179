"""Watching one number of the logs, and telling better from worse."""

from __future__ import annotations

import difflib
import math
from numbers import Real
from typing import Any, Literal

from headstart.errors import SettingError

Mode = Literal["auto", "min", "max"]
RISING = ("accuracy", "auc", "precision", "recall", "f1", "r2")
FALLING = ("loss", "error", "rmse", "mae", "perplexity", "seconds")


class Monitor:
    """One number of the logs, and its best so far.

    Args:
        name: of the number, as in `logs`.
        mode: 'min' if less is better, 'max' if more is; 'auto' goes by the name.
        min_delta: what a change must exceed to count.

    Raises:
        SettingError: if the mode is unknown, 'auto' cannot tell it from the name, or `min_delta` is no number from 0 up.
    """

    def __init__(self, name: str, mode: Mode, min_delta: float = 0.0) -> None:
        self.name = name
        self.sign = _sign(name, mode)
        self.min_delta = number_of("min_delta", min_delta, least=0.0)
        self.best: float | None = None

    def read(self, logs: dict[str, Any]) -> float:
        """The number as it is now.

        Raises:
            SettingError: if `logs` has no such number; it lists those there are.
        """
        value = logs.get(self.name)
        if isinstance(value, Real):
            return float(value)
        names = sorted(name for name, other in logs.items() if isinstance(other, Real) and name != "epoch")
        # Keras calls validation `val`, which is further from `valid` than the other names are.
        (close, *_) = difflib.get_close_matches(self.name.replace("val_", "valid_"), names, 1, 0.5) or ["valid_loss"]
        raise SettingError(
            f"monitor is {self.name!r}, and an epoch's logs have no such number.",
            expected=f"one of {', '.join(names)}.",
            mend=f"monitor={close!r}.",
        )

    def improved(self, value: float) -> bool:
        """Whether a value beats the best so far by more than `min_delta`; it is then the best."""
        if math.isnan(value):
            return False
        if self.best is not None and not self.sign * (value - self.best) > self.min_delta:
            return False
        self.best = value
        return True


def number_of(name: str, value: Any, *, least: float, most: float = math.inf) -> float:  # noqa: ANN401 - from a user
    """A number that a user gave.

    Args:
        name: of the argument.
        value: of it.
        least: that it may be.
        most: that it may be; infinity itself never is one.

    Raises:
        SettingError: if it is no such number.
    """
    if not (isinstance(value, Real) and math.isfinite(value) and least <= float(value) <= most):
        span = f"a number from {least:g} to {most:g}" if math.isfinite(most) else f"a number, {least:g} or more"
        raise SettingError(f"{name} is {value!r}.", expected=f"{span}.", mend=f"pass another {name}, or leave it out.")
    return float(value)


def count_of(name: str, value: Any) -> int:  # noqa: ANN401 - from a user
    """A number of epochs that a user gave.

    Args:
        name: of the argument.
        value: of it.

    Raises:
        SettingError: if it is no whole number from 0 up.
    """
    if not isinstance(value, int) or value < 0:
        raise SettingError(f"{name} is {value!r}.", expected="a whole number of epochs, 0 or more.", mend=f"{name}=5, say.")
    return value


def _sign(name: str, mode: str) -> int:
    signs = {"min": -1, "max": 1}
    if mode == "auto" and name.endswith(RISING):
        return 1
    if mode == "auto" and name.endswith(FALLING):
        return -1
    if mode in signs:
        return signs[mode]
    what = f"mode is 'auto', and {name!r} does not tell whether more is better" if mode == "auto" else f"mode is {mode!r}"
    raise SettingError(f"{what}.", expected="'min' if less is better, 'max' if more is.", mend="mode='max', say.")
