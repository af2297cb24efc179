"""The heads in the contest, each with its scores for rows it was not fitted on.

Centre, scale and rotation are those of all rows given; they know no label, and the rows given are training rows only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headstart.heads.leave_out import RidgeProblem, leave_fold_out, pose_ridge
from headstart.heads.linear import HeadKind, LinearHead
from headstart.heads.logistic import default_logistic_penalties
from headstart.heads.logistic_path import LogisticProblem, held_out_logits, solve_logistic
from headstart.heads.means import ABSENT_MARGIN, class_means, discriminants, solve_lda, solve_nearest_mean
from headstart.heads.ridge import default_ridge_penalties
from headstart.heads.rotation import rotate
from headstart.heads.scaling import Scaling, learn_scaling
from headstart.records import Task

# Rows, columns and classes multiplied, from which an iteration over all folds takes a second or so on two cores.
MOST_PRODUCTS = 50_000_000
FEW_ROWS_A_CLASS = 20


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Rows posed once for every head in the contest."""

    task: Task
    targets: np.ndarray
    """(N,) int64 classes (single), (N, K) float64 of 0 and 1 (multi), (N, T) float64 (value)."""
    class_weights: np.ndarray
    """(K,) float64."""
    width: int
    """D."""
    logistic: LogisticProblem | None
    """None for the value task."""
    ridge: RidgeProblem


def pose_contest(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    task: Task,
    num_classes: int | None,
    class_weights: np.ndarray | None,
    scaling: Scaling,
) -> Contest:
    """Scale and rotate rows once for all heads (twice where classes are weighted).

    Args:
        features: (N, D), checked.
        targets: as in `Contest`.
        task: single, multi or value.
        num_classes: K for the single task (a class may have no row), None for the others.
        class_weights: (K,) for the single task, or None.
        scaling: learned from these features.

    Returns:
        The contest.
    """
    width = features.shape[1]
    indicators = targets if num_classes is None else (targets[:, None] == np.arange(num_classes)).astype(np.float64)
    signs = targets if task == "value" else 2 * indicators - 1
    if class_weights is None:
        weights = np.ones(indicators.shape[1])
        rotation = rotate(scaling.apply(features))
        ones = np.ones(len(features))
        ridge = RidgeProblem(scaling=scaling, rotation=rotation, roots=ones, targets=signs, centre=signs.mean(axis=0))
    else:
        weights = class_weights
        rotation = rotate(scaling.apply(features))
        row_weights = weights[targets]
        ridge = pose_ridge(features, signs, _recentred(features, scaling, row_weights), row_weights)
    logistic = None
    if task != "value":
        logistic = LogisticProblem(
            scaling=scaling,
            rotation=rotation,
            targets=np.ascontiguousarray(indicators.T, dtype=np.float32),
            weights=weights[targets] if task == "single" else np.ones(len(features)),
            link="softmax" if task == "single" else "sigmoid",
        )
    return Contest(task=task, targets=targets, class_weights=weights, width=width, logistic=logistic, ridge=ridge)


def _recentred(features: np.ndarray, scaling: Scaling, weights: np.ndarray) -> Scaling:
    """The same factors around the weighted mean, which weighted ridge regression needs."""
    return Scaling(mean=learn_scaling(features, weights=weights).mean, factor=scaling.factor)


def candidate_kinds(task: Task) -> tuple[HeadKind, ...]:
    """The heads a task allows, plainest first.

    Args:
        task: single, multi or value.

    Returns:
        Their names.
    """
    match task:
        case "single":
            return ("nearest-mean", "lda", "ridge", "logistic")
        case "multi":
            return ("ridge", "logistic")
        case "value":
            return ("ridge",)


def is_iterative_too_dear(num_rows: int, width: int, num_classes: int) -> bool:
    """Whether logistic regression is left out in favour of heads in closed form.

    Its cost grows with rows, columns and classes; with few rows a class ridge regression and discriminants are as good.

    Args:
        num_rows: N.
        width: D, of the features.
        num_classes: K.
    """
    few = num_rows < FEW_ROWS_A_CLASS * num_classes
    return few and num_rows * min(num_rows, width) * num_classes > MOST_PRODUCTS


def held_out_scores(contest: Contest, kind: HeadKind, folds: np.ndarray) -> Iterator[tuple[float | None, np.ndarray]]:
    """The penalty and the out-of-fold scores of every candidate of one kind, strongest penalty first.

    Args:
        contest: the posed contest.
        kind: one of `candidate_kinds(task)`.
        folds: (N,) the fold of each row.

    Yields:
        The penalty (None where the head has none) and (N, K) scores; one at a time, so that few are held in memory.
    """
    match kind:
        case "nearest-mean":
            yield None, _held_out_means(contest, folds)
        case "lda":
            yield None, _held_out_discriminants(contest, folds)
        case "ridge":
            penalties = default_ridge_penalties(contest.width)[::-1]
            yield from zip(penalties.tolist(), leave_fold_out(contest.ridge, folds, penalties), strict=True)
        case "logistic" if contest.logistic is not None:
            penalties = default_logistic_penalties(contest.width)
            yield from zip(penalties.tolist(), held_out_logits(contest.logistic, folds, penalties), strict=True)


def refit(contest: Contest, kind: HeadKind, penalty: float | None) -> LinearHead:
    """Fit one candidate on all rows of a contest.

    Args:
        contest: the posed contest, of all training rows.
        kind: the head.
        penalty: for ridge and logistic.

    Returns:
        The head on raw features.
    """
    if kind == "ridge" and penalty is not None:
        weight, bias = contest.ridge.solve(penalty)
        return contest.ridge.scaling.fold("ridge", weight, bias, penalty=penalty)
    assert contest.logistic is not None
    problem = contest.logistic
    if kind == "logistic" and penalty is not None:
        return solve_logistic(problem, penalty)
    if kind == "lda":
        return solve_lda(problem.rotation, contest.targets, contest.class_weights, problem.scaling)
    counts = np.bincount(contest.targets, minlength=len(contest.class_weights)).astype(np.float64)
    means = class_means(problem.rotation.coordinates, contest.targets, counts)
    return solve_nearest_mean(problem.rotation.to_features(means), problem.scaling)


def _held_out_means(contest: Contest, folds: np.ndarray) -> np.ndarray:
    assert contest.logistic is not None
    rows, labels = contest.logistic.rotation.coordinates, contest.targets
    scores = np.empty((len(rows), len(contest.class_weights)))
    for fold in np.unique(folds):
        left_out = folds == fold
        counts = np.bincount(labels[~left_out], minlength=scores.shape[1]).astype(np.float64)
        means = class_means(rows[~left_out], labels[~left_out], counts)
        part = rows[left_out] @ means.T - 0.5 * np.square(means).sum(axis=1)
        part[:, counts == 0] = part.min() - ABSENT_MARGIN
        scores[left_out] = part
    return scores


def _held_out_discriminants(contest: Contest, folds: np.ndarray) -> np.ndarray:
    assert contest.logistic is not None
    rows, labels = contest.logistic.rotation.coordinates, contest.targets
    scores = np.empty((len(rows), len(contest.class_weights)))
    for fold in np.unique(folds):
        left_out = folds == fold
        weight, bias = discriminants(rows[~left_out], labels[~left_out], contest.class_weights, contest.width)
        scores[left_out] = rows[left_out] @ weight.T + bias
    return scores
