"""Cross-validation for data too small to hold a test split out: repeated folds by class and group."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from headstart.data.class_checks import MIN_FOR_HOLDOUT
from headstart.data.rows import count_of, name_some
from headstart.data.stratify import LEAST_SEEN
from headstart.data.units import Unit, count_strata, make_units, shuffled_by_rarity, stratify_units, stratum_totals
from headstart.errors import SettingError
from headstart.records import Dataset, Splits

WIDEST_HALF_WIDTH = 0.3
"""Of the 95 % interval of an accuracy of one half on the test split; where it is wider, every sample is tested instead."""
TEST_SHARE = 0.2
# Of the items that train, the part that epochs and interpolation are chosen on.
VALID_FOLDS = 10


def needs_cross_validation(dataset: Dataset, ids: Sequence[str]) -> str | None:
    """Say why the evaluation of these samples must be cross-validated; None if a held-out test split will do.

    Args:
        dataset: as read.
        ids: of the samples to learn from and to test on, unreadable ones left out.
    """
    width = half_width(round(TEST_SHARE * len(ids)))
    if width > WIDEST_HALF_WIDTH:
        return f"only {count_of(len(ids), 'sample')}, of which a test split is too few: ±{100 * width:.0f} points"
    counts = Counter(label for name in ids for label in dataset.by_id[name].labels)
    few = [f"{label!r} ({counts[label]})" for label in dataset.labels if 0 < counts[label] < MIN_FOR_HOLDOUT]
    if few:
        return f"{count_of(len(few), 'class')} with fewer than {MIN_FOR_HOLDOUT} samples: {name_some(few)}"
    return None


def half_width(num_test: int) -> float:
    """Half the width of the 95 % interval of an accuracy, at its widest, by the normal approximation.

    Args:
        num_test: samples that it is measured on.
    """
    return 1.96 * 0.5 / math.sqrt(max(num_test, 1))


def cross_validation_folds(
    dataset: Dataset,
    ids: Sequence[str],
    *,
    seed: int,
    groups: Mapping[str, str] | None = None,
    pinned_train: frozenset[str] = frozenset(),
    num_folds: int = 5,
    num_repeats: int = 1,
) -> np.ndarray:
    """Deal samples into folds, each class evenly, groups as a whole; several times over with other shuffles.

    Args:
        dataset: as read.
        ids: of the N samples to deal.
        seed: of the shuffles.
        groups: sample id → group, as of duplicates; joined with the groups the samples have.
        pinned_train: ids that are in no fold.
        num_folds: F, at least 2.
        num_repeats: R, at least 1.

    Returns:
        (R, N) int64: the fold in [0, F) that tests the sample, or -1 for one that always trains, as it is pinned, or its class
        would otherwise have nothing to learn from, or its group has more than three quarters of its class. For every fold each
        class has a sample outside of it.

    Raises:
        SettingError: if there are fewer than two folds or no repeats.
    """
    if num_folds < 2 or num_repeats < 1:
        raise SettingError(
            f"cross-validation with num_folds={num_folds} and num_repeats={num_repeats}.",
            expected="at least 2 folds and 1 repeat.",
            mend="leave both out for 5 folds once.",
        )
    units = make_units([dataset.by_id[name] for name in ids], dataset, groups or {})
    totals = stratum_totals(units, count_strata(dataset))
    position = {name: index for index, name in enumerate(ids)}
    folds = np.full((num_repeats, len(ids)), -1, np.int64)
    for repeat in range(num_repeats):
        free = [unit for unit in shuffled_by_rarity(units, totals, seed + repeat) if pinned_train.isdisjoint(unit.ids)]
        if dataset.task == "multi":
            dealt = _deal_stratified(free, len(totals), num_folds, seed + repeat)
        else:
            dealt = _deal_greedily(free, totals, num_folds)
        if dataset.task != "value":  # a class must be learnt from; a tenth of the values need not
            _free_lone_strata(free, dealt, totals)
        for unit, fold in zip(free, dealt, strict=True):
            folds[repeat, [position[name] for name in unit.ids]] = fold
    return folds


def _deal_stratified(units: Sequence[Unit], num_strata: int, num_folds: int, seed: int) -> list[int]:
    """Deal the units of items with several labels by iterative stratification."""
    wanted = np.tile(stratum_totals(units, num_strata) / num_folds, (num_folds, 1))
    dealt: list[int] = stratify_units(units, wanted, seed).tolist()
    return dealt


def _deal_greedily(units: Sequence[Unit], totals: np.ndarray, num_folds: int) -> list[int]:
    """Give each unit, in turn, to the fold that has least of what it holds; on a tie to the smallest fold."""
    held = np.zeros((num_folds, len(totals)))
    sizes = np.zeros(num_folds)
    dealt = []
    for unit in units:
        load = (held[:, unit.strata] * (unit.counts / totals[unit.strata])).sum(1)
        fold = int(np.lexsort((sizes, load.round(9)))[0])
        held[fold, unit.strata] += unit.counts
        sizes[fold] += len(unit.ids)
        dealt.append(fold)
    return dealt


def _free_lone_strata(units: Sequence[Unit], dealt: list[int], totals: np.ndarray) -> None:
    """Take units out of the folds, as -1, so that the other folds have enough of each stratum to learn from.

    A unit goes where a stratum lies in one fold altogether, or where the unit has nearly all of a stratum by itself.
    """
    outside = totals - stratum_totals(units, len(totals))
    holders_of: dict[int, list[int]] = {}
    for index, unit in enumerate(units):
        if len(unit.ids) > 1 and np.any(unit.counts > (1 - LEAST_SEEN) * totals[unit.strata]):
            dealt[index] = -1
        for stratum in unit.strata.tolist():
            holders_of.setdefault(stratum, []).append(index)
    for stratum, holders in holders_of.items():
        if outside[stratum] == 0 and len({dealt[index] for index in holders}) == 1 and dealt[holders[0]] != -1:
            dealt[holders[0]] = -1


def split_off_valid(dataset: Dataset, splits: Splits, ids: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of some items train, and which choose epochs and interpolation: the data's own valid split, or a tenth.

    Args:
        dataset: the samples.
        splits: with the data's own valid split, if any, and the groups.
        ids: that may train.
        seed: of the tenth.

    Returns:
        Ids that train, and ids that choose.
    """
    if splits.valid:
        return tuple(ids), splits.valid
    (folds,) = cross_validation_folds(dataset, ids, seed=seed, groups=splits.groups, num_folds=VALID_FOLDS)
    valid = tuple(id_ for id_, fold in zip(ids, folds, strict=True) if fold == 0)
    return tuple(id_ for id_, fold in zip(ids, folds, strict=True) if fold != 0), valid


def group_names(groups: Mapping[str, str] | None, ids: Sequence[str]) -> np.ndarray | None:
    """The group of each of some items, for those who draw or hold out groups as a whole.

    Args:
        groups: the group of each item that has one.
        ids: N of them.

    Returns:
        (N,) text, for an item without a group one of its own; None where no item has a group.
    """
    return np.array([groups.get(id_) or f"\0{id_}" for id_ in ids]) if groups else None
