"""What a split moves as a whole: samples tied by the user's groups or by being duplicates, and what they weigh per class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.duplicates import UnionFind
from headstart.data.stratify import NOWHERE, LabelledUnits, stratify
from headstart.records import Dataset, Sample

NUM_VALUE_BINS = 10
"""For the value task samples are stratified by which tenth of the values theirs is in."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Samples that never part."""

    ids: tuple[str, ...]
    """Sorted."""
    strata: np.ndarray
    """(S,) int64, the strata its samples are in, ascending."""
    counts: np.ndarray
    """(S,) int64, how many of its samples are in each of those, ≥ 1."""
    group: str | None
    """Its name, if it holds more than one sample or the user named it."""


def make_units(samples: Iterable[Sample], dataset: Dataset, groups: Mapping[str, str]) -> list[Unit]:
    """Tie samples into units by the user's groups and by `groups`, neighbours of neighbours included.

    Args:
        samples: those to tie, of `dataset`.
        dataset: for its label space and task.
        groups: sample id → group, beyond those in the samples.

    Returns:
        Units in the order of their first ids, whatever the order of the samples.
    """
    ordered = sorted(samples, key=lambda sample: sample.id)
    linked = UnionFind(len(ordered))
    first_of: dict[tuple[str, str], int] = {}
    for index, sample in enumerate(ordered):
        for kind, name in (("user", sample.group), ("given", groups.get(sample.id))):
            if name is not None:
                linked.join(first_of.setdefault((kind, name), index), index)
    strata = _strata(ordered, dataset)
    units = []
    for members in linked.sets():
        together = np.concatenate([strata[member] for member in members])
        kinds, counts = np.unique(together, return_counts=True)
        names = [name for member in members if (name := ordered[member].group) is not None]
        ids = tuple(ordered[member].id for member in members)
        tied = f"duplicates of {ids[0]}" if len(ids) > 1 else None
        units.append(Unit(ids=ids, strata=kinds, counts=counts, group=min(names, default=tied)))
    return units


def shuffled_by_rarity(units: Sequence[Unit], totals: np.ndarray, seed: int) -> list[Unit]:
    """Shuffle units, then put those with the rarest stratum first: what is scarce is placed while there is still room."""
    order = np.random.default_rng(seed).permutation(len(units))
    return sorted((units[index] for index in order), key=lambda unit: int(totals[unit.strata].min()))


def stratify_units(
    units: Sequence[Unit], wanted: np.ndarray, seed: int, pinned: frozenset[str] = frozenset(), *, pinned_part: int = 0
) -> np.ndarray:
    """Deal the units of items with several labels to parts, by iterative stratification.

    Args:
        units: to deal.
        wanted: (P, num_strata) items of each stratum that each part wants.
        seed: of the order.
        pinned: ids whose units go to one part whatever it wants.
        pinned_part: which.

    Returns:
        (U,) int64 in [0, P).
    """
    labelled = LabelledUnits(
        strata=[unit.strata for unit in units],
        counts=[unit.counts for unit in units],
        sizes=np.array([len(unit.ids) for unit in units], np.int64),
        num_strata=wanted.shape[1],
    )
    fixed = np.array([NOWHERE if pinned.isdisjoint(unit.ids) else pinned_part for unit in units], np.int64)
    return stratify(labelled, wanted, np.random.default_rng(seed), fixed=fixed)


def stratum_totals(units: Iterable[Unit], num_strata: int) -> np.ndarray:
    """Count the samples in each stratum: (num_strata,) int64."""
    totals = np.zeros(num_strata, np.int64)
    for unit in units:
        totals[unit.strata] += unit.counts
    return totals


def count_strata(dataset: Dataset) -> int:
    """How many strata the samples of a dataset can be in: one per label, and one for 'no label'; or the bins of values."""
    return NUM_VALUE_BINS if dataset.task == "value" else len(dataset.labels) + 1


def _strata(samples: Sequence[Sample], dataset: Dataset) -> list[np.ndarray]:
    """The strata each sample is in: its labels' numbers, the last stratum if it has none, or its bin of values."""
    if dataset.task == "value":
        values = np.array([sample.value for sample in samples], np.float64)
        ranks = np.searchsorted(np.sort(values), values)
        return [np.array([rank * NUM_VALUE_BINS // len(values)]) for rank in ranks.tolist()]
    number_of = {label: number for number, label in enumerate(dataset.labels)}
    none = len(dataset.labels)
    return [np.array([number_of[label] for label in sample.labels] or [none]) for sample in samples]
