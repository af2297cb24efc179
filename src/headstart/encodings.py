"""A guess at the encoding of text that is not UTF-8, for messages; nothing is ever decoded by a guess."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise

_CANDIDATES = (
    "windows-1251",
    "windows-1252",
    "windows-1250",
    "windows-1253",
    "windows-1254",
    "koi8-r",
    "shift_jis",
    "gb18030",
    "big5",
    "euc-kr",
)
_PREFERRED = {"windows-1252": 1.05, "windows-1251": 1.0, "koi8-r": 0.95}
_NUM_LOOKED_AT = 20_000


def guess_encoding(content: bytes) -> str:
    """Name the likeliest encoding of some text.

    Args:
        content: the first bytes of a file.

    Returns:
        A name Python knows, or nothing where no encoding is likely.
    """
    lines = b"\n".join(line for line in content.splitlines() if not line.isascii())[:_NUM_LOOKED_AT]
    if not lines:
        return ""
    scores = {name: score for name in _CANDIDATES if (score := _plausibility(lines, name)) > 0}
    if scores:
        return max(scores, key=lambda name: scores[name])
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return ""
    best = from_bytes(lines).best()
    return "" if best is None else best.encoding.replace("_", "-")


def _plausibility(content: bytes, name: str) -> float:
    try:
        text = content.decode(name)
    except UnicodeDecodeError as error:
        if error.start < len(content) - 4:  # a character may be cut at the end
            return 0.0
        text = content[: error.start].decode(name)
    others = [character for character in text if not character.isascii()]
    if not others:
        return 0.0
    script, number = Counter(map(_script, others)).most_common(1)[0]
    share, lower = number / len(others), sum(map(str.islower, others)) / len(others)
    if script == "CJK":
        kana = sum("\u3040" <= character <= "\u30ff" for character in others)
        if not kana and _are_apart(content):
            return 0.0
        return 0.9 * share * (1.2 if kana > 0.1 * len(others) else 1.0)
    if script == "HANGUL":
        return 0.9 * share
    if script == "LATIN":
        share *= 1 - _share_of_foreign_words(text)
        return share * lower * (1.0 if len(others) < 0.3 * sum(map(str.isalpha, text)) else 0.3) * _PREFERRED.get(name, 0.9)
    return share * lower * _share_of_whole_words(text) * _PREFERRED.get(name, 0.9)


def _are_apart(content: bytes) -> bool:
    """Whether no two bytes above 127 are adjacent: letters of Latin words, as characters of two bytes are hardly ever."""
    return not any(one > 127 and two > 127 for one, two in pairwise(content))


def _share_of_whole_words(text: str) -> float:
    """The share of letters beside which stands a letter of their kind: neither ASCII, nor a capital after a small one."""
    pairs = [(a, b) for a, b in pairwise(text) if a.isalpha() and b.isalpha() and not (a.isascii() and b.isascii())]
    return sum(a.isascii() == b.isascii() and not (a.islower() and b.isupper()) for a, b in pairs) / max(1, len(pairs))


def _share_of_foreign_words(text: str) -> float:
    """Of the words with a letter that is not ASCII, the share that is of nothing else: hardly any in Latin script."""
    words = [word for word in re.findall(r"[^\W\d_]{3,}", text) if not word.isascii()]
    return sum(not any(map(str.isascii, word)) for word in words) / max(1, len(words))


def _script(character: str) -> str:
    """The script of a letter; the three of Japanese are one."""
    if not character.isalpha():
        return "OTHER"
    name = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    return "CJK" if name in {"HIRAGANA", "KATAKANA"} else name
