"""Log-losses of logits, and the temperature that makes them honest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MAX_NEWTON = 30
TOLERANCE = 1e-4
"""Of the temperature's logarithm; the loss is flat there, and off by its square."""
LOG_RANGE = 7.0


def log_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-probability of each row's class under a softmax.

    Args:
        scores: (N, K) logits.
        labels: (N,) int64 in [0, K).

    Returns:
        (N,) float64 >= 0, in nats.
    """
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def yes_no_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Negative log-probability of each yes or no under a sigmoid.

    Args:
        scores: (N, K) logits.
        targets: (N, K) of 0 and 1.

    Returns:
        (N, K) float64 >= 0, in nats.
    """
    return np.logaddexp(0, scores.astype(np.float64)) - targets * scores


def fit_temperature(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The temperature by which to divide logits for the least log-loss (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    Args:
        scores: (N, K) logits of rows the head was not fitted on.
        labels: (N,) int64 in [0, K).
        weights: (N,) >= 0 with a positive sum, the weight of each row; equal if left out.

    Returns:
        A number in [e^-7, e^7]; above 1 the logits were too sure.
    """
    logits = scores.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    own = logits[np.arange(len(labels)), labels]
    shares = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum()

    def slopes(inverse: float) -> tuple[float, float]:
        odds = np.exp(inverse * logits)
        odds /= odds.sum(axis=1, keepdims=True)
        mean = np.einsum("ij,ij->i", odds, logits)
        spread = np.einsum("ij,ij,ij->i", odds, logits, logits) - mean**2
        return float(shares @ (mean - own)), float(shares @ spread)

    return _newton(slopes, scale=float(np.abs(logits).mean()))


def fit_yes_no_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """The one temperature for all labels of a multi-label head, by the least mean log-loss.

    Args:
        scores: (N, K) logits of rows the head was not fitted on.
        targets: (N, K) of 0 and 1.

    Returns:
        A number in [e^-7, e^7].
    """
    logits = scores.astype(np.float64)

    def slopes(inverse: float) -> tuple[float, float]:
        yes = 1 / (1 + np.exp(-np.clip(inverse * logits, -80, 80)))
        return float(((yes - targets) * logits).mean()), float((yes * (1 - yes) * logits**2).mean())

    return _newton(slopes, scale=float(np.abs(logits).mean()))


def _newton(slopes: Callable[[float], tuple[float, float]], *, scale: float) -> float:
    """Minimise a convex function of the inverse temperature, safeguarded by a bracket in its logarithm."""
    low, high = -LOG_RANGE, LOG_RANGE
    position = float(np.clip(-np.log(scale), low, high)) if scale > 0 else 0.0
    for _ in range(MAX_NEWTON):
        inverse = float(np.exp(position))
        slope, curvature = slopes(inverse)
        low, high = (position, high) if slope < 0 else (low, position)
        # Newton's step in the logarithm, whose second derivative is not always positive: then, or outside, halve.
        second = curvature * inverse**2 + slope * inverse
        trial = position - slope * inverse / second if second > 0 else np.inf
        if not low < trial < high:
            trial = (low + high) / 2
        if abs(trial - position) < TOLERANCE:
            break
        position = float(trial)
    return float(np.exp(-position))
