"""The solver under the logistic heads: penalties from strong to weak, each solve starting where the last two point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.heads.descent import Batch, Link, Solution, minimise
from headstart.heads.linear import LinearHead
from headstart.heads.rotation import Rotation, rotate
from headstart.heads.scaling import Scaling

SEARCH_TOLERANCE = 1e-4
SEARCH_RANGE = (1e-8, 1e-5)
FINAL_TOLERANCE = 1e-9
FLOAT64_NUMBERS = 100_000_000
TOGETHER_NUMBERS = 1_000_000


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
    num_folds, (num_labels, num_rows) = int(codes.max()) + 1, problem.targets.shape
    tolerances = [_tolerance(problem, penalty) for penalty in penalties]
    if num_folds * num_labels * num_rows <= TOGETHER_NUMBERS:
        inside = codes != np.arange(num_folds)[:, None]
        batch = _batch(problem, inside * problem.weights, np.dtype(np.float32))
        for solution in _follow(batch, penalties, tolerances):
            yield solution.scores.reshape(num_folds, num_labels, num_rows)[codes, :, np.arange(num_rows)]
        return
    # Large folds keep the cores busy one by one, and then need not carry the rows they leave out.
    paths = []
    for fold in range(num_folds):
        kept = np.flatnonzero(codes != fold)
        batch = _batch(problem, problem.weights[None, kept], np.dtype(np.float32), kept)
        paths.append(_follow(batch, penalties, tolerances))
    for solutions in zip(*paths, strict=True):
        scores = np.empty((num_rows, num_labels), np.float32)
        for fold, solution in enumerate(solutions):
            theta = solution.theta.reshape(num_labels, -1)
            scores[codes == fold] = problem.rotation.coordinates[codes == fold] @ theta[:, :-1].T + theta[:, -1]
        yield scores


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
    # From zero a weak penalty takes ten times the iterations that it takes at the end of a path from strong ones.
    strongest = max(_row_length(problem), penalty)
    path = np.geomspace(strongest, penalty, 1 + int(np.ceil(2 * np.log10(strongest / penalty))))
    tolerances = [SEARCH_RANGE[1]] * (len(path) - 1) + [SEARCH_RANGE[0]]
    *_, solution = _follow(small, path, tolerances)
    if problem.rotation.coordinates.size <= FLOAT64_NUMBERS:
        batch = _batch(problem, everything, np.dtype(np.float64))
        theta = solution.theta.astype(np.float64)
        scores = np.matmul(theta, batch.rows.T)
        start = Solution(theta=theta, scores=scores, num_iterations=0)
        penalties = np.full(len(batch.weights), penalty)
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
    return float(np.clip(SEARCH_TOLERANCE * penalty / _row_length(problem), *SEARCH_RANGE))


def _row_length(problem: LogisticProblem) -> float:
    """The mean squared length of a row; about D under the scalings here."""
    return max(float(problem.rotation.energies.sum()) / len(problem.rotation.coordinates), 1e-30)


def _follow(batch: Batch, penalties: np.ndarray, tolerances: Sequence[float]) -> Iterator[Solution]:
    """Solve for one penalty after another, each from the line through the last two solutions."""
    before: Solution | None = None
    last: Solution | None = None
    for index, penalty in enumerate(penalties):
        start = last
        if before is not None and last is not None:
            start = _extrapolate(before, last, np.log(penalties[index - 2 : index + 1]))
        solution = minimise(batch, np.full(len(batch.weights), penalty), start=start, tolerance=tolerances[index])
        before, last = last, solution
        yield solution


def _batch(problem: LogisticProblem, weights: np.ndarray, dtype: np.dtype, kept: np.ndarray | None = None) -> Batch:
    """The problems of all folds: one for each fold (softmax), or for each fold and label (sigmoid)."""
    coordinates, energies, table = problem.rotation.coordinates, problem.rotation.energies, problem.targets
    if kept is not None:
        coordinates, table = coordinates[kept], table[:, kept]
    num_rows, rank = coordinates.shape
    rows = np.ones((num_rows, rank + 1), dtype)
    rows[:, :-1] = coordinates
    targets = table[None]
    if problem.link == "sigmoid":
        targets = np.tile(table, (len(weights), 1))[:, None, :]
        weights = np.repeat(weights, len(table), axis=0)
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
