"""Ridge regression for every penalty at once, with the exact scores of rows that were left out.

With the rows in their principal axes, U their left singular vectors and s their squared singular values, the residual maker of
ridge regression with an intercept is

    I - H = (I - U U' - 1 1' / N) + U diag(penalty / (s + penalty)) U'

and leaving out a set V of rows, one row or a fold, changes their residuals r_V to (I - H)_VV^-1 r_V, exactly (Cook and
Weisberg, Residuals and Influence in Regression, 1982, section 2.2; for single rows, Allen's PRESS). Weighted rows are rows
times the square root of their weight, with that root in place of 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headstart.heads.rotation import Rotation, rotate
from headstart.heads.scaling import Scaling, row_parts

EXACT_FIT = 1e-12


@dataclass(frozen=True, kw_only=True)
class RidgeProblem:
    """Scaled and rotated rows with their targets, ready for any penalty."""

    scaling: Scaling
    rotation: Rotation
    roots: np.ndarray
    """(N,) float64: the square roots of the row weights."""
    targets: np.ndarray
    """(N, T) float64, as the user has them."""
    centre: np.ndarray
    """(T,) float64: the weighted mean of the targets."""

    @cached_property
    def rooted_targets(self) -> np.ndarray:
        """Centred targets times the root of the weight, (N, T)."""
        return (self.targets - self.centre) * self.roots[:, None]

    @cached_property
    def products(self) -> np.ndarray:
        """Rotated rows times rooted targets, (R, T) float64."""
        rows, targets = self.rotation.coordinates, self.rooted_targets
        return sum((rows[part].astype(np.float64).T @ targets[part] for part in row_parts(rows.shape)), np.zeros(()))

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Weight (T, D) and bias (T,) on scaled features."""
        theta = self.products / (self.rotation.energies + penalty)[:, None]
        return self.rotation.to_features(theta.T), self.centre


def pose_ridge(features: np.ndarray, targets: np.ndarray, scaling: Scaling, weights: np.ndarray | None) -> RidgeProblem:
    """Scale, weigh and rotate rows once for all penalties.

    Args:
        features: (N, D) raw features; `scaling` must have been learned with the same weights, as it centres them.
        targets: (N, T) float64.
        scaling: centres and scales the features.
        weights: (N,) > 0, or None for equal weights.

    Returns:
        The problem: minimise sum_i w_i |y_i - W x_i - b|^2 + penalty |W|^2.
    """
    roots = np.ones(len(features)) if weights is None else np.sqrt(weights)
    scaled = scaling.apply(features)
    if weights is not None:
        scaled *= roots.astype(scaled.dtype)[:, None]
    centre = (roots**2 @ targets) / (roots**2).sum()
    return RidgeProblem(scaling=scaling, rotation=rotate(scaled), roots=roots, targets=targets, centre=centre)


def leave_one_out(problem: RidgeProblem, penalties: np.ndarray) -> Iterator[np.ndarray]:
    """Scores of each row by the ridge regression of all others, for one penalty after another.

    Args:
        problem: the posed problem.
        penalties: (P,) > 0.

    Yields:
        (N, T): P arrays, in the order of the penalties.
    """
    left, rest, rest_diagonal = _residual_parts(problem)
    projected = left.T @ problem.rooted_targets.astype(left.dtype)
    squared = left * left
    roots = problem.roots[:, None]
    for penalty in penalties:
        shrink = (penalty / (problem.rotation.energies + penalty)).astype(left.dtype)
        residual = rest + left @ (shrink[:, None] * projected)
        # A row that alone spans a direction has nothing to be predicted from; its residual and its diagonal are both 0.
        diagonal = np.maximum(rest_diagonal + squared @ shrink, EXACT_FIT)
        yield problem.targets - residual / (diagonal[:, None] * roots)


def leave_fold_out(problem: RidgeProblem, folds: np.ndarray, penalties: np.ndarray) -> Iterator[np.ndarray]:
    """Scores of each row by the ridge regression of all rows of the other folds, for one penalty after another.

    Args:
        problem: the posed problem.
        folds: (N,) the fold of each row.
        penalties: (P,) > 0.

    Yields:
        (N, T): P arrays, in the order of the penalties.
    """
    members = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    # A fold's block of I - H is |V| x |V|, and is made and solved for every penalty; past this size a fresh decomposition of
    # the other folds, which serves all penalties, is cheaper.
    if max(len(rows) for rows in members) <= max(len(problem.rotation.energies) // 3, 64):
        yield from _fold_blocks(problem, members, penalties)
        return
    regressions = [_without(problem, rows) for rows in members]
    for penalty in penalties:
        scores = np.empty(problem.targets.shape)
        for rows, (query, values, projected, offset) in zip(members, regressions, strict=True):
            theta = projected / (values + penalty)[:, None]
            scores[rows] = query @ theta.astype(query.dtype) + offset
        yield scores


def _residual_parts(problem: RidgeProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, what the targets have outside of U and the intercept, and the diagonal of that projector."""
    rotation = problem.rotation
    num_rows, rank = rotation.coordinates.shape
    # With twice as many rows as columns no residual is near zero, and float32 keeps the digits that count.
    dtype = rotation.coordinates.dtype if num_rows >= 2 * rank else np.dtype(np.float64)
    left = rotation.coordinates.astype(dtype) / np.sqrt(rotation.energies).astype(dtype)
    targets = problem.rooted_targets
    if rank == num_rows - 1:
        return left, np.zeros_like(targets), np.zeros(num_rows)
    rest = targets - left @ (left.T @ targets.astype(dtype))
    share = problem.roots**2 / (problem.roots**2).sum()
    return left, rest, np.maximum(1 - share - np.einsum("ij,ij->i", left, left, dtype=np.float64), 0)


def _fold_blocks(problem: RidgeProblem, members: list[np.ndarray], penalties: np.ndarray) -> Iterator[np.ndarray]:
    left, rest, _ = _residual_parts(problem)
    left = left.astype(np.float64)
    roots = problem.roots / np.sqrt((problem.roots**2).sum())
    complete = left.shape[1] == len(left) - 1
    projected = left.T @ problem.rooted_targets
    for penalty in penalties:
        shrink = penalty / (problem.rotation.energies + penalty)
        residual = rest + left @ (shrink[:, None] * projected)
        scores = np.empty(problem.targets.shape)
        for rows in members:
            own = left[rows]
            if complete:
                block = (own * shrink) @ own.T
            else:
                block = np.eye(len(rows)) - np.outer(roots[rows], roots[rows]) - (own * (1 - shrink)) @ own.T
            block[np.diag_indices_from(block)] += EXACT_FIT * block.trace() / len(rows)
            left_out = np.linalg.solve(block, residual[rows])
            scores[rows] = problem.targets[rows] - left_out / problem.roots[rows, None]
        yield scores


def _without(problem: RidgeProblem, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The regression of all rows but `rows` in its own principal axes: the rows (|V|, R), energies, products, mean target."""
    coordinates, energies = problem.rotation.coordinates, problem.rotation.energies
    own = coordinates[rows].astype(np.float64)
    own_targets = problem.rooted_targets[rows]
    total = (problem.roots**2).sum() - (problem.roots[rows] ** 2).sum()
    # Rows and targets are centred over all folds, so that the sums over the others are those over this fold, negated.
    mean = -(problem.roots[rows] @ own) / total
    target_mean = -(problem.roots[rows] @ own_targets) / total
    values, vectors = np.linalg.eigh(np.diag(energies) - own.T @ own - total * np.outer(mean, mean))
    products = problem.products - own.T @ own_targets - total * np.outer(mean, target_mean)
    query = (own / problem.roots[rows, None] - mean) @ vectors
    offset = target_mean + problem.centre
    return query.astype(coordinates.dtype), np.maximum(values, 0), vectors.T @ products, offset
