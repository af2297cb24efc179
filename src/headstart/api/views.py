"""Spending the budget: mirrored views of every item, kept if they pay."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.config import FitSettings
from headstart.features import FeatureTable, extract
from headstart.features.extract import FLIPPED, PLAIN, Progress
from headstart.features.prefix import Prefix
from headstart.records import Dataset, Splits
from headstart.select.floor import question
from headstart.select.geometry import contestants
from headstart.select.trial import better, hold_block_trial


def add_flips(
    table: FeatureTable,
    prefix: Prefix,
    dataset: Dataset,
    splits: Splits,
    *,
    settings: FitSettings,
    progress: Progress | None,
) -> tuple[FeatureTable, list[dict[str, Any]]]:
    """Add the mirrored picture's features where the budget allows and cross-validation within train is for it.

    Args:
        table: features of the items as they are.
        prefix: that made them.
        dataset: the samples.
        splits: who trains.
        settings: with the budget.
        progress: told of the items done.

    Returns:
        The table to go on with, and the question asked, for the report.
    """
    if FLIPPED not in table.preprocess.views or not settings.budget_seconds:
        return table, []
    rate = rate_of(table, prefix, dataset)
    items = contestants(dataset, splits.train, splits.groups)
    if settings.budget_seconds < len(table.ids) / rate or items is None:
        return table, []
    samples = [dataset.by_id[id_] for id_ in table.ids]
    both = extract(prefix, table.preprocess, samples, views=(PLAIN, FLIPPED), progress=progress)
    plain, mirrored = (
        hold_block_trial(name, given, "multi", items, seed=settings.seed, ids=splits.train)
        for name, given in (("as they are", table), ("with their mirror images", both))
    )
    wins, told = better(mirrored, plain)
    asked = question("views", mirrored.name if wins else plain.name, told, (plain, mirrored))
    if not wins:
        return table, [asked]
    seconds = table.seconds + both.seconds
    kept = replace(both, failures=table.failures, mends=table.mends, hashes=table.hashes, hits=table.hits, seconds=seconds)
    return replace(kept, misses=max(table.misses, both.misses)), [asked]


def rate_of(table: FeatureTable, prefix: Prefix, dataset: Dataset) -> float:
    """Items a second: as a table was computed, or of one batch where its items came out of the store.

    Args:
        table: features of some items.
        prefix: that made them.
        dataset: the items.
    """
    if table.misses > table.hits:
        return table.misses / table.seconds
    batch = _typical(table, prefix.batch_size, dataset)
    prefix(batch)  # the first call takes longer
    started = time.perf_counter()
    prefix(batch)
    return prefix.num_workers * len(batch) / (time.perf_counter() - started)


def _typical(table: FeatureTable, count: int, dataset: Dataset) -> np.ndarray:
    """A batch of middling size: made up, where all inputs are alike, else of items as long as the middle one."""
    preprocess = table.preprocess
    if len(preprocess.free_axes) == 1:
        return preprocess.example(count)
    by_size = sorted(table.ids, key=lambda id_: preprocess.size(dataset.by_id[id_].item))
    first = max((len(by_size) - count) // 2, 0)
    return preprocess.collate([preprocess.prepare(dataset.by_id[id_].item) for id_ in by_size[first : first + count]])
