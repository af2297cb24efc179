"""Ridge heads: one decomposition, every penalty, exact leave-one-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.errors import SettingError
from headstart.heads.leave_out import RidgeProblem, leave_fold_out, leave_one_out, pose_ridge
from headstart.heads.linear import LinearHead, check_features, check_indicators, check_labels, check_targets
from headstart.heads.scaling import ScalingKind, learn_scaling

NUM_PENALTIES = 20


@dataclass(frozen=True, kw_only=True)
class RidgeFit:
    """A ridge head with what leaving rows out told about it."""

    head: LinearHead
    penalties: np.ndarray
    """(P,) float64: all that were tried; the head has the one with the least error."""
    loo_errors: np.ndarray
    """(P,) float64: the mean squared error of rows left out, over all targets, rows weighted as in the fit."""
    loo_scores: np.ndarray
    """(N, K) float32: each row's scores by the fit of the other rows (of the other folds, where folds were given), at the
    head's penalty."""


def default_ridge_penalties(width: int) -> np.ndarray:
    """Twenty penalties for features of `width` columns with unit mean square: width times 1e-4 … 1e2."""
    return width * np.logspace(-4, 2, NUM_PENALTIES)


def fit_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    penalties: Sequence[float] | np.ndarray | float | None = None,
    class_weights: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    scaling: ScalingKind = "global",
) -> RidgeFit:
    """Fit a linear head by ridge regression on ±1 targets, choosing the penalty by exact leave-one-out.

    The objective is sum_i w_i |y_i - W x_i - b|^2 + penalty |W|^2 on scaled features, the bias free (scikit-learn's Ridge).

    Args:
        features: (N, D) float32 or float64 from one backbone; not modified.
        labels: (N,) int64 in [0, num_classes).
        num_classes: K, at least 2.
        penalties: (P,) > 0, on features scaled to unit mean square; `default_ridge_penalties(D)` if left out.
        class_weights: (K,) > 0: the weight of each class's rows.
        folds: (N,) the fold of each row. Leaving one row out flatters where rows have near-duplicates; with folds that keep
            those together, whole folds are left out instead.
        scaling: "global", "root" or "standard", see `learn_scaling`.

    Returns:
        The head, on raw features, with the errors of all penalties and the scores of left-out rows.

    Raises:
        DataError: if features are not finite, shapes differ, K < 2, or a class is empty.
        SettingError: if a penalty or class weight is not positive.
    """
    features = check_features(features)
    labels = check_labels(labels, num_rows=len(features), num_classes=num_classes)
    targets = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
    weights = None if class_weights is None else check_class_weights(class_weights, num_classes)[labels]
    problem = pose_ridge(features, targets, learn_scaling(features, scaling, weights=weights), weights)
    return solve_ridge(problem, checked_penalties(penalties, default_ridge_penalties(features.shape[1])), folds)


def fit_ridge_multilabel(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    penalties: Sequence[float] | np.ndarray | float | None = None,
    folds: np.ndarray | None = None,
    scaling: ScalingKind = "global",
) -> RidgeFit:
    """Fit one yes-or-no ridge per label on ±1 targets, with one penalty for all, chosen as in `fit_ridge`.

    Args:
        features: (N, D) float32 or float64.
        targets: (N, K) of 0 and 1.
        penalties: as in `fit_ridge`.
        folds: as in `fit_ridge`.
        scaling: as in `fit_ridge`.

    Returns:
        The fit; a positive score is a yes.

    Raises:
        DataError: if features are not finite, shapes differ, or a label is given to no sample.
        SettingError: if a penalty is not positive.
    """
    features = check_features(features)
    table = 2 * check_indicators(targets, num_rows=len(features)) - 1
    problem = pose_ridge(features, table, learn_scaling(features, scaling), None)
    return solve_ridge(problem, checked_penalties(penalties, default_ridge_penalties(features.shape[1])), folds)


def fit_ridge_value(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    penalties: Sequence[float] | np.ndarray | float | None = None,
    folds: np.ndarray | None = None,
    scaling: ScalingKind = "global",
    weights: np.ndarray | None = None,
) -> RidgeFit:
    """Fit numbers by ridge regression, choosing the penalty as in `fit_ridge`.

    Args:
        features: (N, D) float32 or float64.
        targets: (N,) or (N, T) finite numbers, in their own units.
        penalties: as in `fit_ridge`.
        folds: as in `fit_ridge`.
        scaling: as in `fit_ridge`.
        weights: (N,) > 0, the weight of each row.

    Returns:
        The fit, whose head's scores are the values; targets that vary in different units should be scaled before, as one
        penalty serves all.

    Raises:
        DataError: if features or targets are not finite, or shapes differ.
        SettingError: if a penalty is not positive.
    """
    features = check_features(features)
    table = check_targets(targets, num_rows=len(features))
    problem = pose_ridge(features, table, learn_scaling(features, scaling, weights=weights), weights)
    return solve_ridge(problem, checked_penalties(penalties, default_ridge_penalties(features.shape[1])), folds)


def solve_ridge(problem: RidgeProblem, penalties: np.ndarray, folds: np.ndarray | None) -> RidgeFit:
    """Choose the penalty of a posed problem by leaving rows (or folds) out, and solve with it.

    Args:
        problem: from `pose_ridge`.
        penalties: (P,) > 0.
        folds: (N,) or None for leaving single rows out.

    Returns:
        The fit.
    """
    held_out = leave_one_out(problem, penalties) if folds is None else leave_fold_out(problem, folds, penalties)
    shares = problem.roots**2 / (problem.roots**2).sum()
    errors = np.empty(len(penalties))
    best_scores = np.empty(0)
    for index, scores in enumerate(held_out):
        errors[index] = shares @ np.square(scores - problem.targets).mean(axis=1)
        if index == 0 or errors[index] < errors[:index].min():
            best_scores = scores
    penalty = float(penalties[errors.argmin()])
    weight, bias = problem.solve(penalty)
    head = problem.scaling.fold("ridge", weight, bias, penalty=penalty)
    return RidgeFit(head=head, penalties=penalties, loo_errors=errors, loo_scores=best_scores.astype(np.float32))


def checked_penalties(penalties: Sequence[float] | np.ndarray | float | None, default: np.ndarray) -> np.ndarray:
    """Penalties as (P,) float64, or the default where None.

    Args:
        penalties: one number or several.
        default: (P,) to use for None.

    Returns:
        (P,) float64.

    Raises:
        SettingError: if there is none, or one is not positive and finite.
    """
    table = np.atleast_1d(np.asarray(default if penalties is None else penalties, dtype=np.float64))
    if table.ndim != 1 or len(table) == 0 or not (np.isfinite(table).all() and (table > 0).all()):
        raise SettingError(
            f"penalties are {table.tolist()}.",
            expected="one or more finite numbers above 0.",
            mend="leave penalties out for the default grid.",
        )
    return table


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Weights (K,) under which every class counts alike: N / (K n_k), scikit-learn's "balanced".

    Args:
        labels: (N,) int64 in [0, num_classes), every class with a sample.
        num_classes: K.

    Returns:
        (K,) float64 with a mean over rows of 1.
    """
    return len(labels) / (num_classes * np.bincount(labels, minlength=num_classes))


def check_class_weights(class_weights: np.ndarray, num_classes: int) -> np.ndarray:
    """Class weights as (K,) float64.

    Args:
        class_weights: (K,) numbers.
        num_classes: K.

    Returns:
        (K,) float64.

    Raises:
        SettingError: if the number is wrong, or one is not positive and finite.
    """
    table = np.asarray(class_weights, dtype=np.float64)
    if table.shape != (num_classes,) or not (np.isfinite(table).all() and (table > 0).all()):
        raise SettingError(
            f"class weights are {table.tolist()}.",
            expected=f"{num_classes} finite numbers above 0, one for each class.",
            mend="use balanced_class_weights(labels, num_classes), or leave them out.",
        )
    return table
