"""Features in their principal axes: the coordinates in which every exact head here is solved.

One eigen-decomposition of the smaller of X'X and XX' serves every penalty, fold and class. L2-penalised problems keep their
solutions under it: a weight outside the row space of X costs penalty and changes no score, so that the minimiser lies in the
row space, and an orthonormal basis keeps lengths. With N rows and D columns the width falls from D to R <= min(N, D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.heads.scaling import row_parts

RANK_TOLERANCE = 1e-13


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Rows in their principal axes, and the way back."""

    coordinates: np.ndarray
    """(N, R) in the dtype of the features; the columns are orthogonal."""
    energies: np.ndarray
    """(R,) float64, > 0: the sum of squares of each column."""
    mixing: np.ndarray
    """(R, N) where the basis is mixing @ rows, else (R, D), the basis itself."""
    rows: Any
    """(N, D): the features that were rotated, where N < D, an array or a sparse one; else None."""

    def to_features(self, theta: np.ndarray) -> np.ndarray:
        """Carry weights (K, R) back to weights (K, D) on the features that were rotated."""
        weight = theta.astype(np.float64) @ self.mixing
        return weight if self.rows is None else weight @ self.rows.astype(np.float64)


def rotate(features: np.ndarray) -> Rotation:
    """Rotate (N, D) features to their principal axes, exactly (nothing but the null space is dropped).

    Args:
        features: (N, D) float32 or float64, centred and scaled.

    Returns:
        The rotation. Costs O(N D min(N, D) + min(N, D)^3) time and O(N D + min(N, D)^2) memory; products and the
        decomposition are in float64, whatever the dtype of the features.
    """
    num_rows, width = features.shape
    if num_rows < width:
        gram = np.zeros((num_rows, num_rows))
        for part in row_parts((width, num_rows)):
            block = features[:, part].astype(np.float64)
            gram += block @ block.T
        return _of_gram(gram, features)
    covariance = np.zeros((width, width))
    for part in row_parts(features.shape):
        block = features[part].astype(np.float64)
        covariance += block.T @ block
    values, vectors = _positive_eigenpairs(covariance)
    coordinates = features @ vectors.astype(features.dtype)
    return Rotation(coordinates=coordinates, energies=values, mixing=np.ascontiguousarray(vectors.T), rows=None)


def rotate_sparse(features: Any) -> Rotation:  # noqa: ANN401 - scipy has no types
    """Rotate fewer rows than columns, of which most are zeros.

    Args:
        features: (N, D) sparse array of scipy's, N < D.

    Returns:
        The rotation; its coordinates are a plain array. Costs O(N^3) time and O(N^2) memory beside the products of the rows.
    """
    double = features.astype(np.float64)
    return _of_gram((double @ double.T).toarray(), features)


def _of_gram(gram: np.ndarray, features: Any) -> Rotation:  # noqa: ANN401 - an array or a sparse one
    values, vectors = _positive_eigenpairs(gram)
    coordinates = vectors * np.sqrt(values)
    mixing = (vectors / np.sqrt(values)).T
    return Rotation(coordinates=coordinates.astype(features.dtype), energies=values, mixing=mixing, rows=features)


def _positive_eigenpairs(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(matrix)
    kept = values > max(RANK_TOLERANCE * len(matrix) * values[-1], 1e-300)
    return values[kept], vectors[:, kept]
