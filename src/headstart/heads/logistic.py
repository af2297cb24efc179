"""L2-regularised logistic heads: every fold at once, one penalty after another, each from where the last two point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.heads.descent import Batch, Link, Solution, minimise
from headstart.heads.folds import make_folds
from headstart.heads.linear import LinearHead, check_features, check_indicators, check_labels
from headstart.heads.ridge import check_class_weights, checked_penalties
from headstart.heads.rotation import Rotation, rotate
from headstart.heads.scaling import Scaling, ScalingKind, learn_scaling
from headstart.heads.temperature import log_losses, yes_no_losses

SEARCH_TOLERANCE = 1e-4
SEARCH_RANGE = (1e-8, 1e-5)
FINAL_TOLERANCE = 1e-9
FLOAT64_NUMBERS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class LogisticProblem:
    """Scaled and rotated rows with their targets, ready for any folds and penalties."""

    scaling: Scaling
    rotation: Rotation
    targets: np.ndarray
    """(K, N) float32 of 0 and 1."""
    weights: np.ndarray
    """(N,) float64 > 0, the weight of each row."""
    link: Link
    """softmax: one label a row (multinomial, also for two classes); sigmoid: each label by itself."""


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


def pose_logistic(
    features: np.ndarray, targets: np.ndarray, scaling: Scaling, weights: np.ndarray | None, link: Link
) -> LogisticProblem:
    """Scale and rotate rows once for all folds and penalties.

    Args:
        features: (N, D) raw features.
        targets: (K, N) of 0 and 1.
        scaling: centres and scales the features.
        weights: (N,) > 0, or None for equal weights.
        link: softmax or sigmoid.

    Returns:
        The problem.
    """
    row_weights = np.ones(len(features)) if weights is None else weights
    rotation = rotate(scaling.apply(features))
    return LogisticProblem(
        scaling=scaling, rotation=rotation, targets=targets.astype(np.float32), weights=row_weights, link=link
    )


def held_out_logits(problem: LogisticProblem, folds: np.ndarray, penalties: np.ndarray) -> Iterator[np.ndarray]:
    """Logits of each row by the fit on the other folds, for one penalty after another, in float32.

    Strong penalties are quick to solve, and solutions are nearly linear in the logarithm of the penalty; so the penalties are
    best given strongest first and evenly spaced on a log scale: each solve starts from the line through the last two.

    Args:
        problem: the posed problem.
        folds: (N,) the fold of each row.
        penalties: (P,) > 0.

    Yields:
        (N, K) float32: P arrays, in the order of the penalties.
    """
    codes = np.unique(folds, return_inverse=True)[1]
    inside = codes != np.arange(codes.max() + 1)[:, None]
    batch = _batch(problem, inside * problem.weights, np.dtype(np.float32))
    num_folds, num_labels, num_rows = len(inside), len(problem.targets), len(codes)
    before: Solution | None = None
    last: Solution | None = None
    for index, penalty in enumerate(penalties):
        start = last
        if before is not None and last is not None:
            start = _extrapolate(before, last, np.log(penalties[index - 2 : index + 1]))
        solution = minimise(batch, np.full(len(batch.weights), penalty), start=start, tolerance=_tolerance(problem, penalty))
        before, last = last, solution
        by_fold = solution.scores.reshape(num_folds, num_labels, num_rows)
        yield by_fold[codes, :, np.arange(num_rows)]


def solve_logistic(problem: LogisticProblem, penalty: float) -> LinearHead:
    """Fit all rows at one penalty: a float32 search, then float64 until nothing is left to gain.

    Args:
        problem: the posed problem.
        penalty: > 0.

    Returns:
        The head on raw features.
    """
    everything = problem.weights[None, :]
    small = _batch(problem, everything, np.dtype(np.float32))
    penalties = np.full(len(small.weights), penalty)
    solution = minimise(small, penalties, tolerance=_tolerance(problem, penalty))
    if problem.rotation.coordinates.size <= FLOAT64_NUMBERS:
        batch = _batch(problem, everything, np.dtype(np.float64))
        theta = solution.theta.astype(np.float64)
        scores = np.matmul(theta, batch.rows.T)
        start = Solution(theta=theta, scores=scores, num_iterations=0)
        solution = minimise(batch, penalties, start=start, tolerance=FINAL_TOLERANCE, max_iterations=1000)
    theta = solution.theta.astype(np.float64).reshape(len(problem.targets), -1)
    weight, bias = problem.rotation.to_features(theta[:, :-1]), theta[:, -1]
    if problem.link == "softmax":
        # Adding one number to every class's bias changes no probability; the sum of zero is the plain choice.
        bias = bias - bias.mean()
    return problem.scaling.fold("logistic", weight, bias, penalty=penalty)


def _tolerance(problem: LogisticProblem, penalty: float) -> float:
    """The gain per row at which a search may stop.

    The objective is at least penalty / 2 |error of theta|^2 above its minimum, so that for the logits to be as exact at every
    penalty the gain must fall as the penalty does, in proportion to the mean squared length of a row.
    """
    length = problem.rotation.energies.sum() / len(problem.rotation.coordinates)
    return float(np.clip(SEARCH_TOLERANCE * penalty / max(length, 1e-30), *SEARCH_RANGE))


def _batch(problem: LogisticProblem, weights: np.ndarray, dtype: np.dtype) -> Batch:
    """The problems of all folds: one for each fold (softmax), or for each fold and label (sigmoid)."""
    coordinates, energies = problem.rotation.coordinates, problem.rotation.energies
    num_rows, rank = coordinates.shape
    rows = np.ones((num_rows, rank + 1), dtype)
    rows[:, :-1] = coordinates
    targets = problem.targets[None]
    if problem.link == "sigmoid":
        targets = np.tile(problem.targets, (len(weights), 1))[:, None, :]
        weights = np.repeat(weights, len(problem.targets), axis=0)
    return Batch(
        rows=rows,
        energies=np.append(energies, num_rows).astype(dtype),
        targets=targets.astype(dtype),
        weights=weights.astype(dtype),
        link=problem.link,
    )


def _extrapolate(before: Solution, last: Solution, logs: np.ndarray) -> Solution:
    """The point at logs[2] on the line through two solutions at logs[0] and logs[1]."""
    gap = logs[1] - logs[0]
    reach = np.float32(np.clip((logs[2] - logs[1]) / gap, 0, 1.5)) if gap else np.float32(0)
    return Solution(
        theta=last.theta + reach * (last.theta - before.theta),
        scores=last.scores + reach * (last.scores - before.scores),
        num_iterations=0,
    )
