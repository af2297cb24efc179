"""Regular expressions in a tokenizer's file: those that could take exponential time are refused before they run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")


def patterns_in(tokenizer: str) -> list[str]:
    """The regular expressions of a tokenizer: the values of every "Regex" key; none of what is no JSON.

    Args:
        tokenizer: JSON, as the `tokenizers` package writes it.
    """
    if '"Regex"' not in tokenizer and "\\u00" not in tokenizer:  # a key may be escaped
        return []
    try:
        values = json.loads(tokenizer)
    except (ValueError, RecursionError):  # the tokenizers package says what is wrong
        return []
    if not isinstance(values, dict):
        return []
    return list(_walk({name: value for name, value in values.items() if name != "model"}))


def _walk(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        if isinstance(value.get("Regex"), str):
            yield value["Regex"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _walk(part)


def is_catastrophic(pattern: str) -> bool:
    """Whether a group that can repeat without bound contains something that can, as in `(a+)+`.

    Args:
        pattern: of Oniguruma.
    """
    repeats = [False]  # for each group that is open: whether something in it repeats
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", "x", pattern)
    for place, character in enumerate(plain):
        if character == "(":
            repeats.append(False)
        elif character == ")" and len(repeats) > 1:
            inside = repeats.pop()
            if inside and _UNBOUNDED.match(plain, place + 1):
                return True
            repeats[-1] |= inside
        elif _UNBOUNDED.match(plain, place):
            repeats[-1] = True
    return False
