"""Where a training's batches come from: states at a cut out of the store, items, or features in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headstart.features.extract import PLAIN
from headstart.features.states import StateReader
from headstart.preprocess.recipe import Preprocess
from headstart.records import Sample
from headstart.tuning.augment import Augmentation
from headstart.tuning.sound_augment import SoundAugmentation

Batch = tuple[np.ndarray, np.ndarray]
"""State (B, …) float32 and pooled features (B, P) float32, as a `TunableNetwork` takes them."""


class Inputs(Protocol):
    """Gives any items' inputs, in any order, from any thread."""

    def load(self, ids: Sequence[str], view: int | None) -> Batch:
        """Load some items.

        Args:
            ids: B of them.
            view: the number of an augmented view; None for the items as they are.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class StateInputs:
    """States at an inner cut."""

    reader: StateReader
    views: tuple[str, ...]

    def load(self, ids: Sequence[str], view: int | None) -> Batch:
        """States of some items, from the store or computed again."""
        return self.reader.load(ids, PLAIN if view is None else self.views[view])


@dataclass(frozen=True, kw_only=True)
class ItemInputs:
    """Items themselves, for a network that trains as a whole; prepared and augmented anew each time."""

    preprocess: Preprocess
    samples: Mapping[str, Sample]
    digests: Mapping[str, bytes]
    augmentation: Augmentation | SoundAugmentation | None
    views: tuple[str, ...]

    def load(self, ids: Sequence[str], view: int | None) -> Batch:
        """Preprocessed items."""
        prepared = [self.preprocess.prepare(self.samples[id_].item, name=id_) for id_ in ids]
        if view is not None and self.augmentation is not None:
            seen = zip(prepared, ids, strict=True)
            prepared = [self.augmentation(few, self.digests[id_], self.views[view]) for few, id_ in seen]
        return self.preprocess.collate(prepared), np.empty((len(ids), 0), np.float32)


@dataclass(frozen=True, kw_only=True)
class FeatureInputs:
    """Features in memory, for a head that is trained alone."""

    features: np.ndarray
    """(N, D) float32."""
    rows: Mapping[str, int]

    def load(self, ids: Sequence[str], view: int | None) -> Batch:
        """Rows of the features; they have no views."""
        rows = self.features[[self.rows[id_] for id_ in ids]]
        return np.empty((len(ids), 0), np.float32), rows
