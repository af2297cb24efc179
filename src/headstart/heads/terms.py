"""Terms of a text, its words and pieces of words, weighed by their rarity, and a linear head on them: plain Python and numpy.

Two parts stand side by side, each of length 1: words and pairs of neighbouring words; and pieces of two to five characters
within each word and its two edges. A term that occurs n times counts 1 + ln n, times ln((1 + N) / (1 + N of them with the
term)) + 1 over the N texts learned from (Salton and Buckley 1988; the smooth form is scikit-learn's `TfidfTransformer`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

Part = Literal["words", "characters"]

PARTS: tuple[Part, ...] = get_args(Part)
RULES = 1
"""Goes up when the same text comes to have other terms, so that no saved vocabulary is mistaken."""
WORD = re.compile(r"\b\w\w+\b")
PIECES = (2, 5)
"""Characters of the shortest and of the longest piece."""
MOST_CHARACTERS = 100_000
"""Of a text; what stands behind them has no part in its terms, so that no text takes seconds and gigabytes."""


def word_terms(text: str) -> list[str]:
    """Words of two or more letters or digits, and pairs of neighbouring ones.

    Args:
        text: any.

    Returns:
        Terms in lower case, as often as they occur; a pair is joined by a space.
    """
    words = WORD.findall(text[:MOST_CHARACTERS].lower())
    return words + [f"{first} {second}" for first, second in zip(words, words[1:], strict=False)]


def spaced_words(text: str) -> list[str]:
    """What stands between white space, in lower case: what pieces are cut from.

    Args:
        text: any.
    """
    return text[:MOST_CHARACTERS].lower().split()


def pieces_of(word: str) -> list[str]:
    """Pieces of one word, a space before and behind it being part of it.

    Args:
        word: without white space.

    Returns:
        Every run of two to five characters, as often as it occurs; a word shorter than that is one piece.
    """
    spaced = f" {word} "
    shortest, longest = PIECES
    found = []
    for length in range(shortest, longest + 1):
        if length >= len(spaced):
            found.append(spaced)
            break
        found += [spaced[start : start + length] for start in range(len(spaced) - length + 1)]
    return found


def count_words(text: str) -> Mapping[str, int]:
    """How often each word and pair of words occurs in a text."""
    return Counter(word_terms(text))


def count_pieces(text: str) -> Mapping[str, int]:
    """How often each piece of a word occurs in a text."""
    counts: Counter[str] = Counter()
    for word, times in Counter(spaced_words(text)).items():
        for piece in pieces_of(word):
            counts[piece] += times
    return counts


COUNTERS: dict[Part, Callable[[str], Mapping[str, int]]] = {"words": count_words, "characters": count_pieces}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The terms of one part that are known, and how much each one tells."""

    part: Part
    terms: tuple[str, ...]
    """V different ones, sorted."""
    rarity: np.ndarray
    """(V,) float64, at least 1: the inverse document frequency of each."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The column of each term."""
        return {term: place for place, term in enumerate(self.terms)}

    def weigh(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The known terms of a text.

        Args:
            text: any.

        Returns:
            Their columns (T,) int64, and their values (T,) float64, of length 1 together; T is 0 if none is known.
        """
        places = self.places
        found = [(places[term], times) for term, times in COUNTERS[self.part](text).items() if term in places]
        if not found:
            return np.empty(0, np.int64), np.empty(0)
        columns, counts = (np.array(values) for values in zip(*found, strict=True))
        values = (1 + np.log(counts)) * self.rarity[columns]
        return columns, values / np.sqrt(np.square(values).sum())


@dataclass(frozen=True, kw_only=True)
class TermsHead:
    """A linear head on the terms of a text."""

    vocabularies: tuple[Vocabulary, ...]
    """Their columns stand side by side."""
    weight: np.ndarray
    """(V, K) float32: V terms of all vocabularies together."""
    bias: np.ndarray
    """(K,) float32."""

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Scores of texts.

        Args:
            texts: N of them.

        Returns:
            (N, K) float32, as of a linear head on features.
        """
        scores = np.tile(self.bias.astype(np.float64), (len(texts), 1))
        start = 0
        for vocabulary in self.vocabularies:
            for row, text in zip(scores, texts, strict=True):
                columns, values = vocabulary.weigh(text)
                row += values @ self.weight[start + columns]
            start += len(vocabulary.terms)
        return scores.astype(np.float32)

    def scaled(self, factor: float | np.ndarray) -> TermsHead:
        """The head with its scores multiplied.

        Args:
            factor: one number, or (K,).
        """
        weight, bias = (self.weight * factor).astype(np.float32), (self.bias * factor).astype(np.float32)
        return TermsHead(vocabularies=self.vocabularies, weight=weight, bias=bias)
