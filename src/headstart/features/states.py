"""What a tail is trained on: the prefix's output at an inner cut, for every item and view, kept in the store as float16.

The frozen part of a network gives the same output in every epoch, so it runs once an item and view, whatever the number of
epochs. Where keeping it is impossible or does not pay, it is computed again each time, and `note` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from headstart.errors import CacheError
from headstart.features.extract import PLAIN, Augment, Batch, Progress, extract_batches, feature_store
from headstart.features.prefix import STATE, Prefix
from headstart.features.store import FeatureStore, cache_limit, store_key
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.recipe import Preprocess
from headstart.records import Sample

# Of the store's limit, how much one training may fill.
SHARE_OF_LIMIT = 0.5
DTYPE, WIDER_DTYPE = "float16", "float32"
# Batches that tell whether reading is faster than computing.
NUM_TRIED = 2
# How many times larger than those tried a value may be before the narrow type overflows.
HEADROOM = 8.0
READ_AT_ONCE = 64


@dataclass(kw_only=True)
class StateReader:
    """Reads states of items by id and view; made by `open_states`."""

    prefix: Prefix
    preprocess: Preprocess
    samples: Mapping[str, Sample]
    digests: Mapping[str, bytes]
    """SHA-256 of each item's content."""
    augment: Augment | None
    open_store: Callable[[str], tuple[FeatureStore, str]]
    """Opens the store of a type, and says why nothing is kept in it, where that is so."""
    dtype: str
    """What states are rounded to, whether they are kept or not."""

    def __post_init__(self) -> None:
        """Open the store."""
        self.store, self._why_not = self.open_store(self.dtype)

    @property
    def note(self) -> str:
        """Why states are computed again each time, where they are; else empty."""
        why = self._why_not
        return why and f"the features at {self.prefix.spec.cut} are computed again in every epoch: {why}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a state, batch left out."""
        return self.prefix.spec.state_shape

    def fill(self, ids: Sequence[str], views: Sequence[str], progress: Progress | None = None) -> int:
        """Compute every state that the store lacks.

        Args:
            ids: of items that can be read.
            views: names of views.
            progress: called with the items done, and all.

        Returns:
            How many items had to be computed, in at least one view; none where nothing is kept.
        """
        try:
            return self._fill(ids, views, progress)
        except CacheError as error:
            self._widen(error)
            return self._fill(ids, views, progress)

    def _fill(self, ids: Sequence[str], views: Sequence[str], progress: Progress | None) -> int:
        lacking = self._lacking(ids, views)
        if self._why_not:
            # A cache that can only be read may hold all that is wanted.
            self._why_not = self._why_not if lacking else ""
            return 0
        done = len(ids) - len(lacking)
        for batch in self._extract(lacking, views):
            done += len(batch.ids)
            if progress:
                progress(done, len(ids))
        if lacking and not self.store.writable:
            self._why_not = f"{self.store.why}."  # full, or gone, on the way
        return len(lacking)

    def load(self, ids: Sequence[str], view: str = PLAIN) -> tuple[np.ndarray, np.ndarray]:
        """The states of some items.

        Args:
            ids: of items that can be read, in any order.
            view: the name of a view.

        Returns:
            (B, *shape) float32, and (B, P) float32, the pooled features of the blocks before the cut.

        Raises:
            UnreadableItemError: if an item that must be computed vanished.
        """
        try:
            values = self._load(ids, view)
        except CacheError as error:
            self._widen(error)
            values = self._load(ids, view)
        state = self.prefix.spec.columns(STATE)
        rows = values.astype(np.float32)
        return rows[:, state].reshape(len(ids), *self.shape), rows[:, state.stop :]

    def _load(self, ids: Sequence[str], view: str) -> np.ndarray:
        values, found = self.store.get_many([store_key(self.digests[id_], view) for id_ in ids])
        lacking = [row for row in range(len(ids)) if not found[row]]
        if lacking:
            values[lacking] = self._compute([ids[row] for row in lacking], view)
        return values

    def _widen(self, error: CacheError) -> None:
        """Go on in the wider type, when a value turned up that is beyond the narrow one's range."""
        if self.dtype == WIDER_DTYPE:
            raise error
        self.dtype = WIDER_DTYPE
        self.store, self._why_not = self.open_store(WIDER_DTYPE)

    def _lacking(self, ids: Sequence[str], views: Sequence[str]) -> list[str]:
        lacking = []
        for start in range(0, len(ids), READ_AT_ONCE):
            few = ids[start : start + READ_AT_ONCE]
            keys = [store_key(self.digests[id_], view) for id_ in few for view in views]
            found = np.asarray(self.store.get_many(keys)[1].reshape(len(few), len(views)).all(axis=1))
            lacking += [id_ for id_, whole in zip(few, found, strict=True) if not whole]
        return lacking

    def _extract(self, ids: Sequence[str], views: Sequence[str]) -> Iterator[Batch]:
        samples = [self.samples[id_] for id_ in ids]
        return extract_batches(self.prefix, self.preprocess, samples, store=self.store, views=views, augment=self.augment)

    def _compute(self, ids: Sequence[str], view: str) -> np.ndarray:
        by_id = {
            id_: row for batch in self._extract(ids, [view]) for id_, row in zip(batch.ids, batch.vectors[:, 0], strict=True)
        }
        gone = [id_ for id_ in ids if id_ not in by_id]
        if gone:
            raise UnreadableItemError(gone[0], "could be read when the run began, and cannot now", kind="unreadable")
        return np.stack([by_id[id_] for id_ in ids])


@contextmanager
def open_states(
    prefix: Prefix,
    preprocess: Preprocess,
    samples: Mapping[str, Sample],
    digests: Mapping[str, bytes],
    *,
    num_views: int,
    augment: Augment | None = None,
) -> Iterator[StateReader]:
    """Open the states at a cut for reading; a few items are tried to see whether keeping them works and pays.

    Args:
        prefix: compiled up to the cut.
        preprocess: from item to network input.
        samples: by id, N of them, at least one.
        digests: SHA-256 of each item's content, by id; items that can be read.
        num_views: V, the views that will be asked of each item.
        augment: makes the views.

    Yields:
        The reader.
    """
    tried = [samples[id_] for id_ in list(digests)[: NUM_TRIED * prefix.batch_size]]
    trial = _try(prefix, preprocess, tried)
    num_values = len(digests) * num_views * prefix.spec.width
    with ExitStack() as stack:

        def open_store(dtype: str) -> tuple[FeatureStore, str]:
            store = stack.enter_context(feature_store(prefix, preprocess, dtype=dtype))
            if not store.writable:
                return store, f"{store.why or 'the feature store cannot be written to'}."
            why = _why_not_kept(store, trial, num_values * store.dtype.itemsize)
            return (FeatureStore.nowhere(dtype=dtype, shape=store.shape) if why else store), why

        yield StateReader(
            prefix=prefix,
            preprocess=preprocess,
            samples=samples,
            digests=digests,
            augment=augment,
            open_store=open_store,
            dtype=trial.dtype,
        )


@dataclass(frozen=True, kw_only=True)
class _Trial:
    dtype: str
    keys: list[bytes]
    values: np.ndarray
    seconds: float
    """To compute them."""


def _try(prefix: Prefix, preprocess: Preprocess, samples: Sequence[Sample]) -> _Trial:
    """Compute a few items without any store, in the narrow type if their values allow it."""
    store = FeatureStore.nowhere(dtype=WIDER_DTYPE, shape=(prefix.spec.width,))
    started = time.perf_counter()
    batches = list(extract_batches(prefix, preprocess, samples, store=store))
    seconds = time.perf_counter() - started
    values = np.concatenate([batch.vectors[:, 0] for batch in batches])
    largest = float(np.abs(values).max(initial=0.0))
    keys = [store_key(bytes.fromhex(batch.hashes[id_])) for batch in batches for id_ in batch.ids]
    narrow = largest * HEADROOM < float(np.finfo(np.float16).max)
    return _Trial(dtype=DTYPE if narrow else WIDER_DTYPE, keys=keys, values=values, seconds=seconds)


def _why_not_kept(store: FeatureStore, trial: _Trial, num_bytes: int) -> str:
    """Why states had better not be kept; '' where they had."""
    allowed = cache_limit() * SHARE_OF_LIMIT
    if num_bytes > allowed:
        return f"they would take {num_bytes / 1e9:.3g} GB, more than {allowed / 1e9:.3g} GB, half of the cache's limit."
    store.put_many(trial.keys, trial.values)
    started = time.perf_counter()
    store.get_many(trial.keys)
    reading = time.perf_counter() - started
    if reading > trial.seconds:
        return f"reading them back takes {reading / trial.seconds:.1f} times as long as computing them."
    return ""
