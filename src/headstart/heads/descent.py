"""Many convex problems at once: L-BFGS with a fresh diagonal preconditioner, batched over the problems.

A problem is one L2-regularised logistic regression; a batch shares the rows and differs in the weight of each row (a fold is
a row of zeros and ones) and in the penalty. All problems step together, so that each iteration is two matrix products however
many there are. The rows should be rotated to their principal axes (`headstart.heads.rotation`): there the Hessian is close to
diagonal, and a diagonal preconditioner takes the place of most iterations.

The objective of one problem, with rows z_i, weights w_i and k outputs, is a sum over rows (scikit-learn's convention, its C
being 1 / penalty):

    sum_i w_i loss(theta z_i + bias, y_i) + penalty / 2 |theta|^2          the bias is not penalised

L-BFGS: Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 7.4, whose initial matrix may change at every iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Link = Literal["softmax", "sigmoid", "identity"]

HISTORY = 10
MAX_LINE_SEARCH = 8
CURVATURE_FLOOR = 1e-6


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the problems share, and what they differ in; every array has the dtype the solver computes in."""

    rows: np.ndarray
    """(N, R + 1): the rotated features, and a last column of ones for the bias; may be a sparse array of scipy's."""
    energies: np.ndarray
    """(R + 1,): the sum of squares of each column of `rows`, up to a common factor; sets the preconditioner only."""
    targets: np.ndarray
    """(1 or B, k, N) in [0, 1]: one-hot for softmax; any numbers for identity."""
    weights: np.ndarray
    """(B, N), >= 0: the weight of each row in each problem; 0 leaves the row out."""
    link: Link
    """softmax: the k outputs of a problem compete; sigmoid: each answers yes or no for itself; identity: each is a number,
    and its loss half the squared error."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Where the batch ended."""

    theta: np.ndarray
    """(B, k, R + 1); the bias is last."""
    scores: np.ndarray
    """(B, k, N): logits of every row, also of those left out."""
    num_iterations: int


def minimise(
    batch: Batch,
    penalties: np.ndarray,
    *,
    start: Solution | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 300,
) -> Solution:
    """Minimise every problem of the batch from `start` (or zero) until its expected gain per row is below `tolerance`.

    Args:
        batch: the problems.
        penalties: (B,) > 0, one for each problem.
        start: an earlier solution of a similar batch, for instance of a neighbouring penalty.
        tolerance: the gain still expected (gradient' H^-1 gradient / total weight, in nats) under which a problem is done.
        max_iterations: no more than this many, each of two products of (B * k, R + 1) with (R + 1, N).

    Returns:
        The minimisers and their logits.
    """
    num_problems, num_rows = batch.weights.shape
    num_outputs, width = batch.targets.shape[1], batch.rows.shape[1]
    dtype = batch.rows.dtype
    theta = np.zeros((num_problems, num_outputs, width), dtype) if start is None else start.theta.copy()
    scores = np.zeros((num_problems, num_outputs, num_rows), dtype) if start is None else start.scores.copy()
    ridge = np.repeat(penalties.astype(dtype)[:, None, None], width, axis=2)
    ridge[:, :, -1] = 0
    totals = np.maximum(batch.weights.sum(axis=1, dtype=np.float64), 1e-30)
    memory = _Memory(num_problems)
    previous: np.ndarray | None = None
    direction = np.zeros_like(theta)
    for iteration in range(max_iterations):
        residual, curvature = _residual(batch, scores)
        gradient = _times(residual, batch.rows) + ridge * theta
        inverse = 1 / (curvature[:, :, None] * batch.energies + ridge + CURVATURE_FLOOR)
        if previous is not None:
            memory.remember(direction, gradient - previous)
        direction = -memory.apply(gradient, inverse)
        slope = _inner(direction, gradient)
        if np.all(-slope <= tolerance * totals):
            return Solution(theta=theta, scores=scores, num_iterations=iteration)
        rise = _times(direction, batch.rows.T)
        step = _line_search(
            batch, scores, rise, slope, (_inner(ridge * theta, direction), _inner(ridge * direction, direction))
        )
        direction *= step
        theta += direction
        rise *= step
        scores += rise
        previous = gradient
    return Solution(theta=theta, scores=scores, num_iterations=max_iterations)


class _Memory:
    """The last steps of every problem and what they did to the gradient."""

    def __init__(self, num_problems: int) -> None:
        self._num_problems = num_problems
        self._pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def remember(self, step: np.ndarray, change: np.ndarray) -> None:
        """Store one step (B, k, R + 1) with the change of the gradient over it; oldest out first."""
        product = _inner(step, change)
        # A problem that no longer moves has no curvature to tell: weight 0 leaves its pair out of the product.
        usable = product > 1e-12 * np.maximum(_inner(change, change), 1e-30)
        weight = np.where(usable, 1 / np.where(usable, product, 1), 0)
        self._pairs = [*self._pairs[-(HISTORY - 1) :], (step.copy(), change, weight)]

    def apply(self, gradient: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """Approximate inverse Hessian times gradient, (B, k, R + 1)."""
        result = gradient.copy()
        shares = []
        for step, change, weight in reversed(self._pairs):
            share = (weight * _inner(step, result)).astype(result.dtype)[:, None, None]
            result -= share * change
            shares.append(share)
        result *= inverse
        for (step, change, weight), share in zip(self._pairs, reversed(shares), strict=True):
            correction = (weight * _inner(change, result)).astype(result.dtype)[:, None, None]
            result += (share - correction) * step
        return result


def _line_search(
    batch: Batch, scores: np.ndarray, rise: np.ndarray, slope: np.ndarray, ridge_terms: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Steps (B, 1, 1) at which each problem's slope along its direction has shrunk enough.

    The logits are linear in the step, so a trial costs no matrix product. The problems are convex, so the slope alone tells
    whether a step is good; the loss, whose last digits float32 does not hold, is never needed.
    """
    ridge_start, ridge_growth = ridge_terms
    step = np.ones_like(slope)
    low, low_slope = np.zeros_like(slope), slope.copy()
    high, high_slope = np.full_like(slope, np.inf), np.ones_like(slope)
    for _ in range(MAX_LINE_SEARCH):
        residual, _ = _residual(batch, scores + step.astype(scores.dtype)[:, None, None] * rise, with_curvature=False)
        now = _inner(residual, rise) + ridge_start + step * ridge_growth
        failing = (np.abs(now) > 0.8 * np.abs(slope)) & (slope < 0)
        if not failing.any():
            break
        falling = now < 0
        low, low_slope = np.where(falling, step, low), np.where(falling, now, low_slope)
        high, high_slope = np.where(falling, high, step), np.where(falling, high_slope, now)
        bracketed = np.isfinite(high) & failing
        width = np.where(bracketed, high, 0) - low
        secant = low - low_slope * width / np.where(bracketed, high_slope - low_slope, 1)
        trial = np.where(bracketed, np.clip(secant, low + 0.05 * width, low + 0.95 * width), 3 * step)
        step = np.where(failing, trial, step)
    return step.astype(scores.dtype)[:, None, None]


def _residual(batch: Batch, scores: np.ndarray, *, with_curvature: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Weighted predicted minus target (B, k, N), and the mean weighted p (1 - p) of each output, (B, k)."""
    predicted = probabilities(scores, batch.link)
    weights = batch.weights[:, None, :]
    curvature = np.empty(0, scores.dtype)
    if with_curvature:
        variance = np.ones_like(predicted) if batch.link == "identity" else predicted - predicted * predicted
        curvature = np.matmul(variance, batch.weights[:, :, None])[:, :, 0] / np.asarray(scores.shape[2], scores.dtype)
    predicted -= batch.targets
    predicted *= weights
    return predicted, curvature


def probabilities(scores: np.ndarray, link: Link) -> np.ndarray:
    """What logits (B, k, N) predict: softmax over the outputs, each output's own sigmoid, or a copy of them (identity)."""
    if link == "identity":
        return scores.copy()
    if link == "sigmoid":
        return 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
    result = scores - scores.max(axis=1, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis=1, keepdims=True)
    return result


def _times(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(B, k, M) times (M, Q) as one matrix product."""
    num_problems, num_outputs, inner = left.shape
    return (left.reshape(num_problems * num_outputs, inner) @ right).reshape(num_problems, num_outputs, right.shape[1])


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Inner product of each problem's arrays, (B,) float64."""
    flat = left.shape[0], 1, -1
    return np.matmul(left.reshape(flat), right.reshape(left.shape[0], -1, 1))[:, 0, 0].astype(np.float64)
