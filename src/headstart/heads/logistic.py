"""L2-regularised logistic heads, multinomial and multi-label, with the penalty chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.heads.folds import make_folds
from headstart.heads.linear import LinearHead, check_features, check_indicators, check_labels
from headstart.heads.logistic_path import held_out_logits, pose_logistic, solve_logistic
from headstart.heads.ridge import check_class_weights, checked_penalties
from headstart.heads.scaling import ScalingKind, learn_scaling
from headstart.heads.temperature import log_losses, yes_no_losses


def default_logistic_penalties(width: int) -> np.ndarray:
    """Nine penalties for features of `width` columns with unit mean square: width times 1 … 1e-4, strongest first."""
    return width * np.logspace(0, -4, 9)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    penalties: Sequence[float] | np.ndarray | float | None = None,
    class_weights: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    scaling: ScalingKind = "global",
) -> LinearHead:
    """Fit a multinomial L2 logistic head; of several penalties, the one with the least cross-validated log-loss.

    The objective is sum_i w_i (-log p(y_i | x_i)) + penalty / 2 |W|^2 on scaled features, the bias free: scikit-learn's
    LogisticRegression with C = 1 / penalty. Two classes are two rows of weights here; scikit-learn, which keeps one row for
    them, has the same minimiser at C = 2 / penalty.

    Args:
        features: (N, D) float32 or float64 from one backbone; not modified.
        labels: (N,) int64 in [0, num_classes).
        num_classes: K, at least 2.
        penalties: one or (P,) > 0, on features scaled to unit mean square; `default_logistic_penalties(D)` if left out.
        class_weights: (K,) > 0: the weight of each class's rows.
        folds: (N,) the fold of each row, to choose among several penalties; five stratified ones if left out.
        scaling: "global", "root" or "standard", see `learn_scaling`.

    Returns:
        The head, on raw features; solved in float64 (in float32 where N times its rank exceeds 10^8, to bound memory).

    Raises:
        DataError: if features are not finite, shapes differ, K < 2, or a class is empty.
        SettingError: if a penalty or class weight is not positive.
    """
    features = check_features(features)
    labels = check_labels(labels, num_rows=len(features), num_classes=num_classes)
    weights = None if class_weights is None else check_class_weights(class_weights, num_classes)[labels]
    table = checked_penalties(penalties, default_logistic_penalties(features.shape[1]))
    problem = pose_logistic(features, np.eye(num_classes)[:, labels], learn_scaling(features, scaling), weights, "softmax")
    penalty = float(table[0])
    if len(table) > 1:
        folds = make_folds(labels, task="single", seed=0) if folds is None else folds
        losses = [log_losses(scores, labels) @ problem.weights for scores in held_out_logits(problem, folds, table)]
        penalty = float(table[int(np.argmin(losses))])
    return solve_logistic(problem, penalty)


def fit_logistic_multilabel(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    penalties: Sequence[float] | np.ndarray | float | None = None,
    folds: np.ndarray | None = None,
    scaling: ScalingKind = "global",
) -> LinearHead:
    """Fit one yes-or-no L2 logistic per label, all at once, with one penalty for all.

    Args:
        features: (N, D) float32 or float64; not modified.
        targets: (N, K) of 0 and 1.
        penalties: as in `fit_logistic`; each label's objective is that of scikit-learn's LogisticRegression, C = 1 / penalty.
        folds: as in `fit_logistic`.
        scaling: as in `fit_logistic`.

    Returns:
        The head: the sigmoid of a score is the probability of the label.

    Raises:
        DataError: if features are not finite, shapes differ, or a label is given to no sample.
        SettingError: if a penalty is not positive.
    """
    features = check_features(features)
    indicators = check_indicators(targets, num_rows=len(features))
    table = checked_penalties(penalties, default_logistic_penalties(features.shape[1]))
    problem = pose_logistic(features, indicators.T, learn_scaling(features, scaling), None, "sigmoid")
    penalty = float(table[0])
    if len(table) > 1:
        folds = make_folds(indicators, task="multi", seed=0) if folds is None else folds
        losses = [yes_no_losses(scores, indicators).mean() for scores in held_out_logits(problem, folds, table)]
        penalty = float(table[int(np.argmin(losses))])
    return solve_logistic(problem, penalty)


def cross_validate_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    penalties: Sequence[float] | np.ndarray,
    *,
    num_classes: int,
    class_weights: np.ndarray | None = None,
    scaling: ScalingKind = "global",
) -> np.ndarray:
    """Out-of-fold logits of the multinomial L2 logistic for every penalty.

    Args:
        features: (N, D) float32 or float64; not modified. Centre and scale are those of all N rows.
        labels: (N,) int64 in [0, num_classes).
        folds: (N,) the fold of each row.
        penalties: (P,) > 0, as in `fit_logistic`.
        num_classes: K, at least 2.
        class_weights: (K,) > 0.
        scaling: as in `fit_logistic`.

    Returns:
        (P, N, K) float32: for each row the logits of the fit that left its fold out. A class without a row outside its fold
        gets very low logits there.

    Raises:
        DataError: if features are not finite, shapes differ, K < 2, or a class is empty.
        SettingError: if a penalty or class weight is not positive.
    """
    features = check_features(features)
    labels = check_labels(labels, num_rows=len(features), num_classes=num_classes)
    weights = None if class_weights is None else check_class_weights(class_weights, num_classes)[labels]
    table = checked_penalties(penalties, default_logistic_penalties(features.shape[1]))
    problem = pose_logistic(features, np.eye(num_classes)[:, labels], learn_scaling(features, scaling), weights, "softmax")
    return np.stack(list(held_out_logits(problem, folds, table)))
