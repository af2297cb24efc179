"""Terms of many texts counted once, and weighed as often as another part of the texts is learned from; needs scipy.

Every word's pieces are found once, however often it occurs: texts by words, times words by pieces, is texts by pieces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from headstart.heads.terms import PARTS, Part, Vocabulary, pieces_of, spaced_words, word_terms

MOST_TERMS = 100_000
"""Of each part, those that most texts have."""
MOST_WEIGHTS = 5_000_000
"""Of all parts and outputs together: 20 MB in a saved model, and some twenty times that while it is solved."""
FEW_TEXTS = 20
"""Below this, a term counts that a single text has; from it on, two must have it."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One part's terms in some texts."""

    part: Part
    terms: tuple[str, ...]
    """V of them, sorted."""
    counts: Any
    """(N, V) sparse matrix by rows, float64: how often each text has each term."""


@dataclass(frozen=True, kw_only=True)
class TermCounts:
    """All terms of all texts at hand; which are known and how rare they are, `learn` says of some of the texts."""

    ids: tuple[str, ...]
    parts: tuple[Counted, ...]

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    def learn(self, ids: Sequence[str], *, num_outputs: int) -> tuple[Vocabulary, ...]:
        """The vocabulary of some texts, and how rare each term is among them; no other text has a part in it.

        Args:
            ids: of the texts learned from.
            num_outputs: K, of the head the vocabulary is for: with many outputs it is smaller.

        Returns:
            One vocabulary a part; terms of fewer than two texts are left out where there are 20 texts or more.
        """
        rows = [self.rows[id_] for id_ in ids]
        least = 2 if len(rows) >= FEW_TEXTS else 1
        most = min(MOST_TERMS, MOST_WEIGHTS // (len(self.parts) * num_outputs))
        learned = []
        for counted in self.parts:
            having = _texts_having(counted.counts[rows])
            known = np.flatnonzero(having >= least)
            if len(known) > most:
                # In the order of the terms among those that equally many texts have.
                known = np.sort(known[np.argsort(-having[known], kind="stable")[:most]])
            terms = tuple(counted.terms[place] for place in known)
            rarity = np.log((1 + len(rows)) / (1 + having[known])) + 1
            learned.append(Vocabulary(part=counted.part, terms=terms, rarity=rarity))
        return tuple(learned)

    def weigh(self, vocabularies: Sequence[Vocabulary], ids: Sequence[str]) -> Any:  # noqa: ANN401 - scipy has no types
        """Some texts as rows of numbers.

        Args:
            vocabularies: as `learn` gave them.
            ids: of N texts.

        Returns:
            (N, V) sparse matrix by rows, float64, the vocabularies' columns side by side; what `Vocabulary.weigh` gives for
            one text.
        """
        from scipy import sparse

        rows = [self.rows[id_] for id_ in ids]
        blocks = []
        for counted, vocabulary in zip(self.parts, vocabularies, strict=True):
            places = {term: place for place, term in enumerate(counted.terms)}
            block = counted.counts[rows][:, [places[term] for term in vocabulary.terms]]
            values = (1 + np.log(block.data)) * vocabulary.rarity[block.indices]
            lengths = np.diff(block.indptr)
            squares = np.bincount(np.repeat(np.arange(len(rows)), lengths), weights=np.square(values), minlength=len(rows))
            block.data = values / np.repeat(np.sqrt(squares), lengths)
            blocks.append(block)
        return sparse.hstack(blocks, format="csr")


def count_terms(texts: Iterable[tuple[str, str]]) -> TermCounts:
    """Count the terms of texts.

    Args:
        texts: id and text of each.

    Returns:
        The counts of every term, those of a single text among them: which of them count is learned from the texts that train.
    """
    words, pairs, ids = _Table(), _Table(), []
    for id_, text in texts:
        ids.append(id_)
        pairs.add(Counter(word_terms(text)))
        words.add(Counter(spaced_words(text)))
    pieces = _Table()
    for word in words.names:
        pieces.add(Counter(pieces_of(word)))
    counts = {"words": (pairs.names, pairs.matrix()), "characters": (pieces.names, words.matrix() @ pieces.matrix())}
    return TermCounts(ids=tuple(ids), parts=tuple(_sorted(part, *counts[part]) for part in PARTS))


class _Table:
    """Rows of counted names, as they come."""

    def __init__(self) -> None:
        self._places: defaultdict[str, int] = defaultdict()
        self._places.default_factory = self._places.__len__
        self._columns: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self._places)

    def add(self, counts: Mapping[str, int]) -> None:
        """One more row."""
        self._columns.append(np.fromiter(map(self._places.__getitem__, counts), np.int32, len(counts)))
        self._counts.append(np.fromiter(counts.values(), np.float64, len(counts)))

    def matrix(self) -> Any:  # noqa: ANN401 - scipy has no types
        """All rows, (N, number of names)."""
        from scipy import sparse

        ends = np.cumsum([0, *map(len, self._columns)])
        columns, counts = (np.concatenate([np.empty(0, kind), *rows]) for kind, rows in self._rows())
        return sparse.csr_array((counts, columns, ends), shape=(len(self._columns), len(self._places)))

    def _rows(self) -> tuple[tuple[type, list[np.ndarray]], ...]:
        return (np.int32, self._columns), (np.float64, self._counts)


def _sorted(part: Part, names: Sequence[str], counts: Any) -> Counted:  # noqa: ANN401 - scipy has no types
    """The columns in the order of their names. All are kept: to drop rare ones here would be to ask texts that do not train."""
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    return Counted(part=part, terms=tuple(names[place] for place in order), counts=counts.tocsc()[:, order].tocsr())


def _texts_having(counts: Any) -> np.ndarray:  # noqa: ANN401 - scipy has no types
    """How many rows have each column, (V,)."""
    return np.bincount(counts.indices, minlength=counts.shape[1])
