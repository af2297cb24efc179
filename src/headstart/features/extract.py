"""Running the prefix once per item: known items come from the store, only the others are decoded and computed.

Each worker takes a few items the whole way (read, hash, look up, decode, preprocess, network), so that every core is busy
with whatever is next, nothing is read twice, and only a few items are in memory at any moment.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart import runtime
from headstart.features.compile import COMPILE_FORMAT
from headstart.features.fusion import FusedPrefix, join_tables
from headstart.features.prefix import Prefix
from headstart.features.store import FeatureStore, store_key
from headstart.features.table import FeatureTable
from headstart.inference import ordered_map
from headstart.preprocess.batches import in_batches
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.recipe import Preprocess
from headstart.records import Sample

# Views of an item that the network sees; their features are averaged.
PLAIN, FLIPPED = "", "flip"
# Failures of these kinds lie in the item's content, so they are remembered with it; others may pass.
LASTING = frozenset({"unreadable", "truncated", "zero_size", "bomb", "empty"})
# Items that one thread asks for their size at a time.
SIZED_TOGETHER = 64

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all."""

Augment = Callable[[np.ndarray, bytes, str], np.ndarray]
"""Changes a prepared item whose content has this digest, for the view of this name."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What became of a few items."""

    ids: tuple[str, ...]
    vectors: np.ndarray
    """(B, V, W) float32."""
    hashes: dict[str, str]
    failures: dict[str, str]
    mends: dict[str, str]
    fresh: tuple[tuple[bytes, np.ndarray], ...]
    """Store keys and values computed now."""
    fresh_failures: tuple[tuple[bytes, str, str], ...]
    hits: int
    misses: int


def extract(
    prefix: Prefix,
    preprocess: Preprocess,
    samples: Sequence[Sample],
    *,
    views: Sequence[str] = (PLAIN,),
    progress: Progress | None = None,
) -> FeatureTable:
    """Compute, or look up, the pooled features of every block for each item.

    Args:
        prefix: as `compile_prefix(...).wait()` gives it.
        preprocess: from item to network input.
        samples: N samples.
        views: which views of each item: '' as it is, 'flip' mirrored left to right.
        progress: called after every few items.

    Returns:
        The features of the readable items, and the reasons of the others.
    """
    if isinstance(prefix, FusedPrefix):
        return join_tables(prefix, preprocess, _extract_parts(prefix, preprocess, samples, views, progress), samples)
    started = time.perf_counter()
    batches = []
    sizes = _sizes_of(preprocess, samples, prefix.num_workers)
    # Items of like sizes share a batch, and so need little padding.
    by_size = sorted(samples, key=lambda sample: sizes[sample.id])
    with feature_store(prefix, preprocess) as store:
        for batch in extract_batches(prefix, preprocess, by_size, store=store, views=views, sizes=sizes):
            batches.append(batch)
            if progress:
                progress(sum(len(done.ids) + len(done.failures) for done in batches), len(samples))
        notes = (store.why,) if store.why else ()
    empty = np.empty((0, len(views), prefix.spec.width), np.float32)
    found = {id_: row for row, id_ in enumerate(id_ for batch in batches for id_ in batch.ids)}
    ids = tuple(sample.id for sample in samples if sample.id in found)
    return FeatureTable(
        ids=ids,
        vectors=np.concatenate([empty, *(batch.vectors for batch in batches)])[[found[id_] for id_ in ids]],
        views=tuple(views),
        spec=prefix.spec,
        preprocess=preprocess,
        hashes={id_: value for batch in batches for id_, value in batch.hashes.items()},
        failures={id_: reason for batch in batches for id_, reason in batch.failures.items()},
        mends={id_: mend for batch in batches for id_, mend in batch.mends.items()},
        hits=sum(batch.hits for batch in batches),
        misses=sum(batch.misses for batch in batches),
        seconds=time.perf_counter() - started,
        notes=notes,
    )


def _sizes_of(preprocess: Preprocess, samples: Sequence[Sample], num_workers: int) -> dict[str, int]:
    """The size of each item, by its id; of a sound, the beginning of its file is read for it."""
    parts = [samples[start : start + SIZED_TOGETHER] for start in range(0, len(samples), SIZED_TOGETHER)]
    found = ordered_map(lambda part: [preprocess.size(sample.item) for sample in part], parts, num_workers=num_workers)
    return dict(zip((sample.id for sample in samples), (size for sizes in found for size in sizes), strict=True))


def _extract_parts(
    prefix: FusedPrefix, preprocess: Preprocess, samples: Sequence[Sample], views: Sequence[str], progress: Progress | None
) -> list[FeatureTable]:
    """Each network's features of the samples, as if it were alone: so what one has computed before serves here, too."""
    pairs = prefix.with_preprocess(preprocess)

    def told(index: int) -> Progress | None:
        return progress and (lambda done, total: progress(index * total + done, len(pairs) * total))

    return [extract(*pair, samples, views=views, progress=told(index)) for index, pair in enumerate(pairs)]


@contextmanager
def feature_store(prefix: Prefix, preprocess: Preprocess, *, dtype: str = "float32") -> Iterator[FeatureStore]:
    """Open the store that holds the features of this prefix and preprocess, rounded to a type."""
    made_by = fingerprint(prefix, preprocess, dtype=dtype)
    described = {
        "backbone": prefix.spec.info.name,
        **preprocess.describe(),
        "precision": prefix.precision,
    }
    shape = (prefix.spec.width,)
    if prefix.spec.cut:
        described["cut"] = prefix.spec.cut
    with FeatureStore.open(runtime.cache_root(), made_by, dtype=dtype, shape=shape, describe=described) as store:
        yield store


def fingerprint(prefix: Prefix, preprocess: Preprocess, *, dtype: str = "float32") -> str:
    """Name everything that features depend on besides the item: 64 hexadecimal digits."""
    info = prefix.spec.info
    told: dict[str, Any] = {
        "weights": info.sha256,
        "architecture": info.architecture,
        "layout": [[part.name, part.start, part.width] for part in prefix.spec.layout],
        "preprocess": preprocess.fingerprint(),
        "precision": prefix.precision,
        "format": COMPILE_FORMAT,
        "dtype": dtype,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def extract_batches(
    prefix: Prefix,
    preprocess: Preprocess,
    samples: Iterable[Sample],
    *,
    store: FeatureStore,
    views: Sequence[str] = (PLAIN,),
    augment: Augment | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Iterator[Batch]:
    """Features a few items at a time, in the samples' order, in bounded memory; fresh ones are stored as they come.

    Args:
        prefix: the compiled prefix.
        preprocess: from item to network input.
        samples: any number of samples; taken as there is room.
        store: open for this prefix and preprocess.
        views: which views of each item.
        augment: makes the views that are neither the item as it is nor mirrored; their names must tell all it does.
        sizes: of the items, by id, where they are known already.

    Yields:
        Batches of at most `prefix.batch_size` samples.
    """
    task = _Task(prefix=prefix, preprocess=preprocess, store=store, views=tuple(views), augment=augment)

    def work(few: list[Sample]) -> Batch:
        return _extract_few(task, few)

    few_at_once = in_batches(
        samples, prefix.batch_size, lambda sample: preprocess.size(sample.item) if sizes is None else sizes[sample.id]
    )
    for batch in ordered_map(work, few_at_once, num_workers=prefix.num_workers):
        if batch.fresh:
            store.put_many([key for key, _ in batch.fresh], np.stack([value for _, value in batch.fresh]))
        for key, kind, reason in batch.fresh_failures:
            store.put_failure(key, kind, reason)
        yield batch


@dataclass(frozen=True, kw_only=True)
class _Task:
    prefix: Prefix
    preprocess: Preprocess
    store: FeatureStore
    views: tuple[str, ...]
    augment: Augment | None


def _extract_few(task: _Task, samples: list[Sample]) -> Batch:
    store, views = task.store, task.views
    failures: dict[str, str] = {}
    mends: dict[str, str] = {}
    contents: dict[str, Any] = {}
    digests: dict[str, bytes] = {}
    for sample in samples:
        try:
            contents[sample.id] = task.preprocess.load(sample.item, name=sample.id)
            digests[sample.id] = task.preprocess.digest(contents[sample.id], name=sample.id)
        except UnreadableItemError as error:
            failures[sample.id], mends[sample.id] = f"{error.kind}: {error.reason}", error.mend
    ids = list(digests)
    keys = [store_key(digests[id_], view) for id_ in ids for view in views]
    vectors, found = store.get_many(keys)
    vectors = vectors.reshape(len(ids), len(views), task.prefix.spec.width)
    found = found.reshape(len(ids), len(views))
    complete = np.asarray(found.all(axis=1))
    known = store.get_failures([store_key(digests[id_]) for row, id_ in enumerate(ids) if not complete[row]])
    rows, prepared, fresh_failures = [], [], []
    for row, id_ in enumerate(ids):
        if complete[row]:
            continue
        record = known.get(store_key(digests[id_]))
        if record is not None:
            failures[id_] = f"{record.kind}: {record.reason}"
            continue
        try:
            prepared.append(task.preprocess.prepare(contents[id_], name=id_))
            rows.append(row)
        except UnreadableItemError as error:
            failures[id_], mends[id_] = f"{error.kind}: {error.reason}", error.mend
            if error.kind in LASTING:
                fresh_failures.append((store_key(digests[id_]), error.kind, error.reason))
    missing = [(row, v) for row in rows for v in range(len(views)) if not found[row, v]]
    if rows:
        outputs = _run_views(task, prepared, [digests[ids[row]] for row in rows], ~found[rows])
        vectors[[row for row, _ in missing], [v for _, v in missing]] = store.rounded(outputs)
    readable = [row for row, id_ in enumerate(ids) if id_ not in failures]
    return Batch(
        ids=tuple(ids[row] for row in readable),
        vectors=vectors[readable],
        hashes={id_: digest.hex() for id_, digest in digests.items()},
        failures=failures,
        mends=mends,
        fresh=tuple((keys[row * len(views) + v], vectors[row, v]) for row, v in missing),
        fresh_failures=tuple(fresh_failures),
        hits=int(complete.sum()),
        misses=len(rows),
    )


def _run_views(task: _Task, prepared: list[np.ndarray], digests: list[bytes], wanted: np.ndarray) -> np.ndarray:
    """The features of the wanted views, (B, V) of B prepared items, one view after the other: (M, W)."""
    outputs = np.empty((*wanted.shape, task.prefix.spec.width), np.float32)
    for v, view in enumerate(task.views):
        rows = np.flatnonzero(wanted[:, v])
        if len(rows):
            seen = [_seen(task, prepared[row], digests[row], view) for row in rows]
            outputs[rows, v] = task.prefix(task.preprocess.collate(seen))
    return outputs[wanted]


def _seen(task: _Task, prepared: np.ndarray, digest: bytes, view: str) -> np.ndarray:
    """One view of a prepared item."""
    if view == PLAIN:
        return prepared
    if view == FLIPPED:
        return prepared[..., ::-1, :]
    if task.augment is None:
        raise ValueError(f"nothing makes the view {view!r}")
    return task.augment(prepared, digest, view)
