"""Texts that all but coincide, told by their runs of characters.

The features of a text tell what it means: "one of the best movies of the year" and "one of the year's best films" all but
coincide there, and are no copies. So copies are told by the characters: two texts are near copies where they share most of
their runs of 8 characters, case, punctuation and spacing aside. Candidates are found by MinHash (Broder 1997, "On the
resemblance and containment of documents") in bands (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4), and each
is then compared exactly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

RUN = 8
"""Characters of a run."""
LEAST_SHARED = 0.8
"""Of the runs that either of two texts has, from where on they are near copies."""
MOST_CHARACTERS = 20_000
"""Of a text that are looked at."""

# A pair that shares 0.8 is a candidate with a probability of 1 - (1 - 0.8**4)**16 = 0.9998, one that shares 0.1 with 0.0016.
_NUM_BANDS, _ROWS = 16, 4
# Of many texts that are alike in a band, each is compared with so many before it: enough to join a mass mailing.
_NUM_NEIGHBOURS = 8
_KEPT = 1_000
_GAPS = re.compile(r"[\W_]+")


def _odd_numbers(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 63, count, np.uint64) * np.uint64(2) + np.uint64(1)


_WEIGHTS, _FACTORS = _odd_numbers(1, RUN), _odd_numbers(2, _NUM_BANDS * _ROWS).astype(np.uint32)


def find_near_copies(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Find pairs of texts that are near copies of each other.

    Args:
        texts: N of any length.

    Returns:
        Pairs of their positions, which join all that are near copies of a third, though not every pair of these.
    """
    if len(texts) < 2:
        return []
    bands = np.stack([_fold(sign(shingle(text))) for text in texts])
    candidates = {pair for band in bands.T for pair in _neighbours(band)}

    @lru_cache(_KEPT)
    def runs_of(position: int) -> np.ndarray:
        return shingle(texts[position])

    return [pair for pair in sorted(candidates) if share_of(*map(runs_of, pair)) >= LEAST_SHARED]


def _neighbours(band: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of texts that are alike in a band: each with a few of those before it."""
    order = np.argsort(band, kind="stable")
    sorted_band = band[order]
    for step in range(1, _NUM_NEIGHBOURS + 1):
        for place in np.flatnonzero(sorted_band[step:] == sorted_band[:-step]):
            yield int(order[place]), int(order[place + step])


def _fold(signature: np.ndarray) -> np.ndarray:
    """One number for each band of a signature: (16,) uint64."""
    parts = signature.reshape(_NUM_BANDS, _ROWS)
    folded = parts[:, 0]
    for row in range(1, _ROWS):
        folded = _mix(folded) ^ parts[:, row]
    return folded


def shingle(text: str) -> np.ndarray:
    """Hash every run of 8 characters of a text, letter case, punctuation, spacing and Unicode normalisation aside.

    Args:
        text: of any length; its first 20,000 characters count.

    Returns:
        Sorted uint64, each once; for a text of fewer characters, or of none but punctuation, the one hash of the whole.
    """
    plain = _plain(text[:MOST_CHARACTERS]) or text[:MOST_CHARACTERS].strip()
    codes = np.frombuffer(plain.ljust(RUN).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, RUN)
    return np.unique(_mix((windows * _WEIGHTS).sum(axis=1, dtype=np.uint64)))


def _plain(text: str) -> str:
    """A text in small letters, one space for each gap; combining marks, such as Hindi vowel signs, stay with their letter."""
    if text.isascii():
        return _GAPS.sub(" ", text.casefold()).strip()
    return _GAPS.sub(_keep_marks, unicodedata.normalize("NFC", text.casefold())).strip()


def _keep_marks(gap: re.Match[str]) -> str:
    """The combining marks at the front of a gap, which belong to the letter before it, and a space for what is left of it."""
    text = gap.group()
    rest = text.lstrip("".join(character for character in set(text) if unicodedata.category(character).startswith("M")))
    marks = text[: len(text) - len(rest)]
    return marks + " " if rest else marks


def sign(runs: np.ndarray) -> np.ndarray:
    """Make a text's MinHash signature: 64 numbers, of which two texts have in common about the share of runs they share.

    Args:
        runs: as `shingle` gives them.

    Returns:
        (64,) uint64.
    """
    return (_FACTORS[:, None] * (runs >> np.uint64(32)).astype(np.uint32)).min(axis=1).astype(np.uint64)


def share_of(one: np.ndarray, other: np.ndarray) -> float:
    """The runs that two texts have in common, as a share of those that either has.

    Args:
        one: as `shingle` gives them.
        other: likewise.

    Returns:
        In [0, 1].
    """
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators")."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
