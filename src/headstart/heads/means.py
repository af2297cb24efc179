"""Heads from class means alone: the nearest mean, and linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

import numpy as np

from headstart.heads.linear import LinearHead, check_features, check_labels
from headstart.heads.ridge import check_class_weights
from headstart.heads.rotation import Rotation, rotate
from headstart.heads.scaling import Scaling, ScalingKind, learn_scaling

ABSENT_MARGIN = 30.0


def fit_nearest_mean(
    features: np.ndarray, labels: np.ndarray, *, num_classes: int, scaling: ScalingKind = "global"
) -> LinearHead:
    """Fit the nearest class mean: the score of a class is minus half the squared distance, less what all classes share.

    Args:
        features: (N, D) float32 or float64; not modified.
        labels: (N,) int64 in [0, num_classes).
        num_classes: K, at least 2.
        scaling: "global" (plain Euclidean distance), "root" or "standard", see `learn_scaling`.

    Returns:
        The head, on raw features.

    Raises:
        DataError: if features are not finite, shapes differ, K < 2, or a class is empty.
    """
    features = check_features(features)
    labels = check_labels(labels, num_rows=len(features), num_classes=num_classes)
    learned = learn_scaling(features, scaling)
    scaled = learned.apply(features)
    sums = np.eye(num_classes, dtype=scaled.dtype)[:, labels] @ scaled
    means = sums / np.bincount(labels, minlength=num_classes)[:, None]
    return solve_nearest_mean(means, learned)


def solve_nearest_mean(means: np.ndarray, scaling: Scaling) -> LinearHead:
    """The nearest-mean head of class means (K, D) on scaled features.

    Args:
        means: (K, D).
        scaling: to fold into the head.

    Returns:
        The head on raw features.
    """
    return scaling.fold("nearest-mean", means, -0.5 * np.square(means).sum(axis=1))


def fit_lda(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    class_weights: np.ndarray | None = None,
    scaling: ScalingKind = "global",
) -> LinearHead:
    """Fit linear discriminant analysis with the pooled within-class covariance shrunk as Ledoit and Wolf compute it.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis
    88 (2004), section 3.3; the deviations from the class means are taken as the centred sample.

    Args:
        features: (N, D) float32 or float64; not modified.
        labels: (N,) int64 in [0, num_classes).
        num_classes: K, at least 2.
        class_weights: (K,) > 0: multiply the classes' shares, which are the priors.
        scaling: "global", "root" or "standard", see `learn_scaling`.

    Returns:
        The head, on raw features; its scores are log-posteriors up to what all classes share.

    Raises:
        DataError: if features are not finite, shapes differ, K < 2, or a class is empty.
        SettingError: if a class weight is not positive.
    """
    features = check_features(features)
    labels = check_labels(labels, num_rows=len(features), num_classes=num_classes)
    weights = np.ones(num_classes) if class_weights is None else check_class_weights(class_weights, num_classes)
    learned = learn_scaling(features, scaling)
    return solve_lda(rotate(learned.apply(features)), labels, weights, learned)


def solve_lda(rotation: Rotation, labels: np.ndarray, class_weights: np.ndarray, scaling: Scaling) -> LinearHead:
    """The LDA head of rotated rows.

    Args:
        rotation: of the scaled features.
        labels: (N,) int64, every class with a row.
        class_weights: (K,) > 0.
        scaling: to fold into the head.

    Returns:
        The head on raw features.
    """
    weight, bias = discriminants(rotation.coordinates, labels, class_weights, len(scaling.mean))
    return scaling.fold("lda", rotation.to_features(weight), bias)


def discriminants(rows: np.ndarray, labels: np.ndarray, class_weights: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (K, R) and bias (K,) of shrunk LDA on rotated rows; a class without a row gets a very low bias.

    Args:
        rows: (N, R) rotated rows.
        labels: (N,) int64 in [0, K).
        class_weights: (K,) > 0.
        width: D, the number of columns before the rotation: the shrinkage target spreads the variance over all of them.

    Returns:
        Weight and bias in float64.
    """
    counts = np.bincount(labels, minlength=len(class_weights)).astype(np.float64)
    means = class_means(rows, labels, counts)
    centred = rows - means.astype(rows.dtype)[labels]
    covariance = (centred.T @ centred).astype(np.float64) / len(rows)
    power = np.trace(covariance) / width
    if power <= 0:
        covariance = np.eye(len(covariance))
    else:
        amount = _shrinkage(centred, covariance, power, width)
        covariance *= 1 - amount
        covariance[np.diag_indices_from(covariance)] += amount * power
    weight = np.linalg.solve(covariance, means.T).T
    shares = counts * class_weights
    bias = np.log(np.maximum(shares, 1e-300) / shares.sum()) - 0.5 * np.einsum("ij,ij->i", weight, means)
    bias[counts == 0] = bias.min(initial=0.0, where=counts > 0) - ABSENT_MARGIN
    return weight, bias


def class_means(rows: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean row of each class, (K, R) float64; zero for a class without a row.

    Args:
        rows: (N, R).
        labels: (N,) int64.
        counts: (K,) rows of each class.

    Returns:
        The means.
    """
    chosen = (labels == np.arange(len(counts))[:, None]).astype(rows.dtype)
    return (chosen @ rows).astype(np.float64) / np.maximum(counts, 1)[:, None]


def _shrinkage(centred: np.ndarray, covariance: np.ndarray, power: float, width: int) -> float:
    """Ledoit and Wolf's share of the identity, at least 1e-6 so that the covariance can be inverted."""
    num_rows = len(centred)
    lengths = np.einsum("ij,ij->i", centred, centred, dtype=np.float64)
    square = float(np.square(covariance).sum())
    noise = (float(np.square(lengths).sum()) / num_rows - square) / num_rows
    distance = square - width * power**2
    return float(np.clip(noise / distance, 1e-6, 1)) if distance > 0 else 1.0
