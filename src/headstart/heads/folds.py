"""Which rows are left out together: folds that hold the classes evenly and keep groups whole."""

from __future__ import annotations

import numpy as np

from headstart.data.stratify import LEAST_SEEN, LabelledUnits, stratify
from headstart.errors import DataError
from headstart.records import Task

NUM_FOLDS = 5


def make_folds(
    targets: np.ndarray, *, task: Task, seed: int, groups: np.ndarray | None = None, num_folds: int = NUM_FOLDS
) -> np.ndarray:
    """Deal rows to folds so that each fold looks like the whole.

    A class with fewer rows than folds is spread over as many folds as it has rows; a class of one row is then missing from
    the training rows of one fold, which every solver here allows.

    Args:
        targets: (N,) int64 classes (single), (N, K) of 0 and 1 (multi), (N,) or (N, T) numbers (value).
        task: what the targets mean; multi is dealt by iterative stratification, value evened out by rank.
        seed: decides which row goes where.
        groups: (N,) the group of each row, integers or strings; rows of one group share a fold.
        num_folds: at least 2; fewer are made where there are fewer rows or groups.

    Returns:
        (N,) int64 in [0, number of folds), every fold with a row.

    Raises:
        DataError: if there are fewer than two groups, so that nothing can be left out.
    """
    if groups is None:
        codes = np.arange(len(targets))
    else:
        codes = np.unique(groups, return_inverse=True)[1]
    num_groups = int(codes.max()) + 1
    if num_groups < 2:
        raise DataError(
            f"all {len(targets)} samples are in one group: by their own groups, and by copies, which join groups.",
            expected="at least two groups, so that one can be left out.",
            mend="name the groups more finely, or leave the groups out; `headstart check` lists the copies.",
        )
    num_folds, generator = min(num_folds, num_groups), np.random.default_rng(seed)
    if task == "multi":
        return _deal_stratified(targets, codes, num_folds, generator)
    return _deal(_strata(targets, task, num_folds), codes, num_folds, generator)


def known_rows(targets: np.ndarray, folds: np.ndarray, *, task: Task) -> np.ndarray:
    """Find the rows whose scores, by a head fitted on the other folds, say something about the head.

    Where most rows of a class are one group, the other folds hardly have the class, and the scores of the group are nonsense:
    they would choose the head, and spoil its temperature. Such rows count neither for the choice nor for the calibration.

    Args:
        targets: (N,) int64 classes (single), (N, K) of 0 and 1 (multi); all rows of other targets are known.
        folds: (N,) int64, the fold that each row is in.
        task: what the targets mean.

    Returns:
        (N,) bool: whether at least a quarter of the rows of the row's class (of each of its labels) are in other folds; all
        True where that holds for no row.
    """
    if task == "value":
        return np.ones(len(folds), bool)
    num_folds = int(folds.max()) + 1
    if task == "single":
        inside = np.zeros((num_folds, int(targets.max()) + 1))
        np.add.at(inside, (folds, targets), 1)
        known = _enough_outside(inside)[folds, targets]
    else:
        indicators = targets > 0
        inside = np.stack([indicators[folds == fold].sum(axis=0) for fold in range(num_folds)])
        known = (_enough_outside(inside)[folds] | ~indicators).all(axis=1)
    return known if known.any() else np.ones(len(folds), bool)


def _enough_outside(inside: np.ndarray) -> np.ndarray:
    """For the rows of each fold and class, (F, K), whether the other folds have enough rows of the class."""
    totals = inside.sum(axis=0)
    enough: np.ndarray = totals - inside >= np.maximum(LEAST_SEEN * totals, 1)
    return enough


def _strata(targets: np.ndarray, task: Task, num_folds: int) -> np.ndarray:
    if task == "single":
        return np.unique(targets, return_inverse=True)[1]
    first = targets if targets.ndim == 1 else targets[:, 0]
    return np.argsort(np.argsort(first, kind="stable"), kind="stable") // num_folds


def _deal_stratified(targets: np.ndarray, codes: np.ndarray, num_folds: int, generator: np.random.Generator) -> np.ndarray:
    """Groups of rows with any number of labels each, every fold with a row."""
    rows, labels = np.nonzero(targets > 0)
    bare = np.flatnonzero(~(targets > 0).any(axis=1))
    num_strata, sizes = targets.shape[1] + 1, np.bincount(codes)
    keys = np.concatenate([codes[rows] * num_strata + labels, codes[bare] * num_strata + num_strata - 1])
    keys, counts = np.unique(keys, return_counts=True)
    starts = np.searchsorted(keys, np.arange(1, len(sizes)) * num_strata)
    units = LabelledUnits(
        strata=np.split(keys % num_strata, starts), counts=np.split(counts, starts), sizes=sizes, num_strata=num_strata
    )
    parts = stratify(units, np.tile(units.totals() / num_folds, (num_folds, 1)), generator)
    for fold in np.flatnonzero(np.bincount(parts, minlength=num_folds) == 0):
        fullest = np.bincount(parts, minlength=num_folds).argmax()
        parts[np.flatnonzero(parts == fullest)[0]] = fold
    return parts[codes]


def _deal(strata: np.ndarray, codes: np.ndarray, num_folds: int, generator: np.random.Generator) -> np.ndarray:
    """Big groups first, each to the fold that is furthest behind in what the group brings."""
    sizes = np.bincount(codes)
    first_rows = np.full(len(sizes), len(codes))
    np.minimum.at(first_rows, codes, np.arange(len(codes)))
    folds = np.full(len(codes), -1)
    counts = np.zeros((num_folds, int(strata.max()) + 1))
    totals = np.zeros(num_folds)
    shares = 1 / np.bincount(strata)
    shuffled = generator.permutation(len(sizes))
    large = shuffled[sizes[shuffled] > 1]
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for group in large[np.argsort(-sizes[large], kind="stable")]:
        rows = order[starts[group] : starts[group + 1]]
        present, brought = np.unique(strata[rows], return_counts=True)
        crowding = (counts[:, present] * brought * shares[present]).sum(axis=1) + 1e-6 * totals
        fold = int(crowding.argmin()) if totals.all() else int(totals.argmin())
        folds[rows] = fold
        counts[fold, present] += brought
        totals[fold] += len(rows)
    single = shuffled[sizes[shuffled] == 1]
    rows = first_rows[single]
    for row in rows[np.argsort(strata[rows], kind="stable")]:
        fold = int(np.lexsort((totals, counts[:, strata[row]]))[0])
        folds[row] = fold
        counts[fold, strata[row]] += 1
        totals[fold] += 1
    return folds
