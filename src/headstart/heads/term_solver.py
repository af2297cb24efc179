"""Linear heads on sparse rows of terms: logistic, one yes or no a label, or least squares, by the solver of the exact heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.heads.candidates import is_iterative_too_dear
from headstart.heads.descent import Batch, Link, Solution, minimise
from headstart.heads.rotation import Rotation, rotate_sparse

PENALTIES = tuple(float(penalty) for penalty in np.geomspace(10, 0.01, 5))
"""On the sum over rows, each of squared length 2; strongest first, as they are quickest to solve in that order."""
CLASS_PENALTIES = (30.0, 10.0, 3.0, 1.0, 0.1)
"""Of kernel ridge regression, on rows that weigh one over the rows of their class."""
TOLERANCE = 1e-5
FINAL_TOLERANCE = 1e-6
NUMBERS_AT_ONCE = 2_000_000
MOST_ROTATED = 1_000
"""Rows up to which they are turned to their principal axes, which are then far fewer than the terms."""
MOST_PAIRED = 4_000
"""Rows up to which kernel ridge regression takes the place of logistic regression, where that is too dear."""


@dataclass(frozen=True, kw_only=True)
class TermsProblem:
    """Rows of terms with their targets, ready for any folds and penalties."""

    rows: Any
    """(N, V) sparse array by rows; or (N, R) in their principal axes."""
    targets: np.ndarray
    """(K, N): 0 and 1, or numbers about zero with a deviation of about 1 (identity)."""
    weights: np.ndarray
    """(N,) > 0, the weight of each row."""
    link: Link
    rotation: Rotation | None = None
    """The way back to the terms, where the rows are in their principal axes."""
    gram: np.ndarray | None = None
    """(N, N) inner products of the rows and their constant, where the classes are too many to be solved iteratively: kernel
    ridge regression takes the place of logistic regression."""


def pose_terms(rows: Any, targets: np.ndarray, weights: np.ndarray, *, link: Link) -> TermsProblem:  # noqa: ANN401
    """Make a problem ready to be solved: a few rows of many terms are turned to their principal axes, once for all folds.

    Args:
        rows: (N, V) sparse array by rows.
        targets: (K, N) as `TermsProblem` has them.
        weights: (N,) > 0.
        link: what the outputs are.

    Returns:
        The problem; its solutions are those of the rows as they are.
    """
    if link == "softmax" and rows.shape[0] <= MOST_PAIRED and is_iterative_too_dear(rows.shape[0], rows.shape[1], len(targets)):
        return TermsProblem(rows=rows, targets=targets, weights=weights, link=link, gram=_gram(rows))
    if len(weights) > MOST_ROTATED or rows.shape[0] >= rows.shape[1]:
        return TermsProblem(rows=rows, targets=targets, weights=weights, link=link)
    rotation = rotate_sparse(rows)
    return TermsProblem(rows=rotation.coordinates, targets=targets, weights=weights, link=link, rotation=rotation)


def _gram(rows: Any) -> np.ndarray:  # noqa: ANN401
    double = rows.astype(np.float64)
    return (double @ double.T).toarray() + 1.0


def _solve_classes(gram: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """Kernel ridge regression on one-hot targets (N, K), every class of the same weight: (N, K) coefficients of the rows.

    With equal weights of the rows, a class whose rows are partly left out would seem less likely for that alone.
    """
    sizes = targets @ targets.sum(axis=0)
    system = gram.copy()
    system[np.diag_indices_from(system)] += penalty * sizes
    return np.linalg.solve(system, targets)


def subset(problem: TermsProblem, rows: np.ndarray) -> TermsProblem:
    """The problem of some rows alone.

    Args:
        problem: the posed problem.
        rows: their places; all of them in order give the problem as it is.
    """
    if len(rows) == len(problem.weights):
        return problem
    gram = None if problem.gram is None else problem.gram[np.ix_(rows, rows)]
    targets, weights = problem.targets[:, rows], problem.weights[rows]
    return replace(problem, rows=problem.rows[rows], targets=targets, weights=weights, gram=gram)


def held_out_term_scores(problem: TermsProblem, folds: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Scores of each row by the fit on the other folds, for one penalty after another, strongest first.

    Args:
        problem: the posed problem. Which terms there are, and how rare they are, is of all its rows; they know no target.
        folds: (N,) the fold of each row.

    Yields:
        The penalty, and (N, K) float32.
    """
    if problem.gram is not None:
        yield from (
            (penalty, _held_out_classes(problem.gram, problem.targets.T, folds, penalty)) for penalty in CLASS_PENALTIES
        )
        return
    codes = np.unique(folds, return_inverse=True)[1]
    num_labels, num_rows = problem.targets.shape
    num_folds = int(codes.max()) + 1
    together = max(1, NUMBERS_AT_ONCE // (num_labels * problem.rows.shape[1]))
    parts = np.split(np.arange(num_folds), range(together, num_folds, together))
    paths = [_path(problem, (codes != part[:, None]) * problem.weights, PENALTIES, TOLERANCE) for part in parts]
    for penalty, *solutions in zip(PENALTIES, *paths, strict=True):
        scores = np.empty((num_rows, num_labels), np.float32)
        for part, solution in zip(parts, solutions, strict=True):
            found = solution.scores.reshape(len(part), num_labels, num_rows)
            for place, fold in enumerate(part):
                scores[codes == fold] = found[place][:, codes == fold].T
        yield penalty, scores


def _held_out_classes(gram: np.ndarray, targets: np.ndarray, folds: np.ndarray, penalty: float) -> np.ndarray:
    scores = np.empty(targets.shape, np.float32)
    for fold in np.unique(folds):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        scores[held] = gram[np.ix_(held, rest)] @ _solve_classes(gram[np.ix_(rest, rest)], targets[rest], penalty)
    return scores


def solve_terms(problem: TermsProblem, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit all rows at one penalty.

    Args:
        problem: the posed problem.
        penalty: > 0.

    Returns:
        Weight (V, K) and bias (K,), float32.
    """
    if problem.gram is not None:
        coefficients = _solve_classes(problem.gram, np.ascontiguousarray(problem.targets.T), penalty)
        weight = problem.rows.astype(np.float64).T @ coefficients
        return np.ascontiguousarray(weight, np.float32), coefficients.sum(axis=0).astype(np.float32)
    stronger = [each for each in PENALTIES if each > penalty]
    *_, solution = _path(problem, problem.weights[None], [*stronger, penalty], FINAL_TOLERANCE)
    theta = solution.theta.reshape(len(problem.targets), -1)
    weight, bias = theta[:, :-1], theta[:, -1] - (theta[:, -1].mean() if problem.link == "softmax" else 0)
    if problem.rotation is not None:
        weight = problem.rotation.to_features(weight).astype(np.float32)
    return np.ascontiguousarray(weight.T), bias


def _path(problem: TermsProblem, weights: np.ndarray, penalties: Any, tolerance: float) -> Iterator[Solution]:  # noqa: ANN401
    """Solve for one penalty after another, each from the last one's solution; weights are (F, N), a row for each fold."""
    batch = _batch(problem, weights)
    solution: Solution | None = None
    for penalty in penalties:
        solution = minimise(batch, np.full(len(batch.weights), penalty), start=solution, tolerance=tolerance)
        yield solution


def _batch(problem: TermsProblem, weights: np.ndarray) -> Batch:
    from scipy import sparse

    ones = np.ones((problem.rows.shape[0], 1), np.float32)
    rows: Any = problem.rows.astype(np.float32)
    if problem.rotation is None:
        rows = sparse.hstack([rows, sparse.csr_array(ones)], format="csr")
        energies = np.bincount(rows.indices, weights=np.square(rows.data), minlength=rows.shape[1])
    else:
        rows = np.hstack([rows, ones])
        energies = np.square(rows).sum(axis=0)
    targets = problem.targets.astype(np.float32)[None]
    if problem.link != "softmax":
        targets = np.tile(targets[0], (len(weights), 1))[:, None, :]
        weights = np.repeat(weights, len(problem.targets), axis=0)
    return Batch(
        rows=rows,
        energies=energies.astype(np.float32),
        targets=targets,
        weights=weights.astype(np.float32),
        link=problem.link,
    )
