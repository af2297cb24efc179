"""Which settings of an image preprocess can work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headstart.errors import SettingError

MAX_IMAGE_SIZE = 4096
"""The largest side a network input may have; more is surely a slip."""


def check_settings(settings: Mapping[str, Any], choices: Mapping[str, Sequence[str]]) -> None:
    """Refuse values that cannot work, all of them at once.

    Args:
        settings: of an `ImagePreprocess`, by name.
        choices: what `geometry` and `interpolation` may be.

    Raises:
        SettingError: if a value cannot work.
    """
    wrong = _wrong(settings, choices)
    if wrong:
        problems = [f"{name}={settings[name]!r} is not {wish}" for name, wish in wrong]
        raise SettingError(
            f"the image preprocess cannot work: {'; '.join(problems)}.",
            expected="; ".join(f"{name}: {wish}" for name, wish in wrong) + ".",
            mend="correct the named settings.",
        )


def _wrong(settings: Mapping[str, Any], choices: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    def is_whole_to(most: int) -> Callable[[Any], bool]:
        return lambda value: _is_whole(value, 1, most)

    fraction = "a number from 0.01 to 1"
    checks: list[tuple[str, Callable[[Any], bool], str]] = [
        ("image_size", is_whole_to(MAX_IMAGE_SIZE), f"a whole number from 1 to {MAX_IMAGE_SIZE}"),
        *((name, names.__contains__, f"one of {', '.join(names)}") for name, names in choices.items()),
        ("crop_fraction", lambda value: _is_real(value) and 0.01 <= value <= 1, fraction),
        ("mean", lambda value: _is_triple(value, _is_real), "three finite numbers"),
        ("std", lambda value: _is_triple(value, _is_above_zero), "three finite numbers above 0"),
        ("pad_color", lambda value: _is_triple(value, _is_level), "three whole numbers from 0 to 255"),
        ("background", lambda value: _is_triple(value, _is_level), "three whole numbers from 0 to 255"),
        ("draft", lambda value: isinstance(value, bool), "true or false"),
        ("max_pixels", is_whole_to(1 << 40), "a whole number above 0"),
    ]
    return [(name, wish) for name, good, wish in checks if not good(settings[name])]


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_above_zero(value: Any) -> bool:  # noqa: ANN401 - a setting is of any type
    return _is_real(value) and value > 0


def _is_level(value: object) -> bool:
    return _is_whole(value, 0, 255)


def _is_triple(value: object, good: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(good(part) for part in value)
