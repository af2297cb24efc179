"""How tokens are drawn: the numbers of it, checked without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.errors import SettingError

MAX_NEW_TOKENS, TEMPERATURE, TOP_P, TOP_K = 80, 0.8, 0.95, 0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Raises:
        SettingError: if a number cannot work.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = TEMPERATURE
    """Scores are divided by it; 0 always takes the likeliest."""
    top_p: float = TOP_P
    """Only the likeliest tokens that together have this probability are drawn from; 1 leaves all in."""
    top_k: int = TOP_K
    """Only so many of the likeliest are drawn from; 0 leaves all in."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        checks = (
            ("max_new_tokens", self.max_new_tokens >= 1, "a whole number, 1 or more", MAX_NEW_TOKENS),
            ("temperature", 0 <= self.temperature <= 100, "a number from 0 (always the likeliest) to 100", TEMPERATURE),
            ("top_p", 0 < self.top_p <= 1, "a number above 0, up to 1", TOP_P),
            ("top_k", self.top_k >= 0, "a whole number, 0 (no limit) or more", TOP_K),
            ("seed", self.seed >= 0, "a whole number, 0 or more", 0),
        )
        for name, fits, expected, usual in checks:
            if not fits:
                option = "--" + name.replace("_", "-")
                raise SettingError(f"{name} is {getattr(self, name)}.", expected=f"{expected}.", mend=f"{option} {usual}")


def sampling_of(numbers: dict[str, Any]) -> Sampling:
    """Numbers by name as a record.

    Args:
        numbers: any of `Sampling`.

    Raises:
        SettingError: if there is none of that name, or one cannot work.
    """
    try:
        return Sampling(**numbers)
    except TypeError as error:
        raise SettingError(
            f"generate cannot take {numbers}: {error}.",
            expected="numbers called max_new_tokens, temperature, top_p, top_k and seed.",
            mend="leave the others out.",
        ) from error
