"""Features of many items, with what became of the items that gave none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from headstart.features.prefix import PrefixSpec
from headstart.heads.term_counts import TermCounts
from headstart.preprocess.fusion import FusedPreprocess
from headstart.preprocess.recipe import Preprocess


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """Pooled features of every block for each readable item, in the order the items were given."""

    ids: tuple[str, ...]
    vectors: np.ndarray
    """(N, V, W) float32: N items, V views, W columns of all blocks together."""
    views: tuple[str, ...]
    spec: PrefixSpec
    preprocess: Preprocess
    """What the items went through."""
    hashes: dict[str, str]
    """SHA-256 of each item's content, of unreadable ones too where there was content to read."""
    failures: dict[str, str]
    """'kind: reason' for each item that gave no features."""
    hits: int
    """Items found in the store."""
    misses: int
    """Items computed now."""
    seconds: float
    mends: dict[str, str] = field(default_factory=dict)
    """How to mend the items that were refused now; of those that the store remembers, only what is wrong is known."""
    notes: tuple[str, ...] = field(default=())
    """What the user should hear about the store, if anything."""
    terms: TermCounts | None = None
    """The terms of the items, where they are texts whose classical features are asked for."""

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    def features(self, block: str = "last", ids: Sequence[str] | None = None) -> np.ndarray:
        """Features at a block, views averaged.

        Args:
            block: a block's name, 'last', or 'multi' for all together.
            ids: which items, in which order; all of them by default.

        Returns:
            (N, D) float32.

        Raises:
            SettingError: if there is no such block.
        """
        rows = slice(None) if ids is None else [self.rows[id_] for id_ in ids]
        several = [self.vectors[:, :, run][rows] for run in self.spec.runs(block)]
        chosen = several[0] if len(several) == 1 else np.concatenate(several, axis=2)
        return chosen[:, 0] if chosen.shape[1] == 1 else chosen.mean(axis=1, dtype=np.float32)

    def of_part(self, index: int) -> FeatureTable:
        """The features by one of several networks alone.

        Args:
            index: of the network, from 0.

        Returns:
            A table of the same items, which shares this one's memory.
        """
        assert isinstance(self.preprocess, FusedPreprocess), "only a table of several networks has parts"
        start, spec = self.spec.starts[index], self.spec.parts[index]
        columns = slice(start, start + spec.width)
        return replace(self, vectors=self.vectors[:, :, columns], spec=spec, preprocess=self.preprocess.parts[index])
