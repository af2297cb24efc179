"""From scores to probabilities: softmax, sigmoid, the log-losses of scores, and the temperature that calibrates them.

One temperature, by `fit_temperature` (for each label, by `fit_label_temperatures`), serves the comparison of candidates by
cross-validation and the saved model alike, so that their log-losses can be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headstart.errors import DataError

LOWEST_TEMPERATURE = 0.01
HIGHEST_TEMPERATURE = 10.0
"""Bounds of every temperature, in units of the mean distance of the scores from each other (from 0, for labels that do not
exclude each other). At the upper one the answers are nearly as even as they can be: sureness of scores that are no evidence."""

RARE = 10.0
"""The number of positive items with which a label's own temperature has half of the weight."""

_MOST_SCORES = 5_000_000
_MAX_NEWTON = 60
_TOLERANCE = 1e-5
"""Of the temperature's logarithm; the last step of Newton's method is far more exact than the one before."""
_Slopes = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of classes that exclude each other, in float64, without overflow for any finite score.

    Args:
        logits: (..., K) float.
        temperature: > 0; above 1 makes the answers less sure.

    Returns:
        (..., K) float64, last axis sums to 1.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Probability of yes for each score alone, in float64, without overflow for any finite score.

    Args:
        scores: any shape, float; already divided by their temperature.

    Returns:
        The same shape, float64 in [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    fading = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, fading) / (1.0 + fading)


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
    """Find the temperature that makes out-of-fold scores likeliest (least NLL; Guo et al. 2017, arXiv:1706.04599, section 4.2).

    The likelihood is convex in 1/T, so Newton steps inside a shrinking bracket always end at its one minimum. Each target
    gives 1/(N+2) of its mass to all classes alike (Platt 1999, section 2.2): with scores that separate the classes perfectly
    the likelihood alone would ask for T = 0 and certain answers; so the answers are as sure as N items in a row can make them.
    Above 5 million scores an even part of the items is used: one number needs no more.

    Args:
        scores: (N, K) float, finite, each row from a model that was not fitted on the item.
        labels: (N,) int in [0, K).
        weights: (N,) >= 0 with a positive sum, the weight of each row; equal if left out.

    Returns:
        T > 0, by which to divide scores, from 0.01 to 10 times their mean distance from each row's mean; 1.0 where all scores
        of every row are equal, since no T changes anything then.

    Raises:
        DataError: if there is no item, shapes disagree, or a score is not finite.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or len(scores) != len(labels) or not len(labels):
        raise DataError(
            f"scores of shape {scores.shape} and {len(labels)} labels cannot be calibrated together.",
            expected="a row of scores for each label, and at least one.",
            mend="pass the out-of-fold scores and the labels of the same items.",
        )
    require_finite(scores)
    if weights is None:
        weights = np.ones(len(labels))
    elif not weights.all():
        scores, labels, weights = scores[weights > 0], labels[weights > 0], weights[weights > 0]
    kept = _part_of(scores)
    centred, labels, shares = scores[kept].astype(np.float64), labels[kept], weights[kept] / weights[kept].sum()
    scale = float(np.abs(centred - centred.mean(axis=1, keepdims=True)).mean())
    if scale == 0:
        return 1.0
    centred = (centred - centred.max(axis=1, keepdims=True)) / scale
    smooth = 1.0 / (len(centred) + 2.0)
    wanted = (1.0 - smooth) * centred[np.arange(len(centred)), labels] + smooth * centred.mean(axis=1)

    def slopes(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        odds = np.exp(centred * inverse)
        odds /= odds.sum(axis=1, keepdims=True)
        mean = np.einsum("nk,nk->n", odds, centred)
        spread = np.einsum("nk,nk,nk->n", odds, centred, centred) - mean**2
        return np.array([shares @ (mean - wanted)]), np.array([shares @ spread])

    return scale * float(_minimise_convex(slopes, 1)[0])


def fit_label_temperatures(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Find each label's temperature on out-of-fold scores of a multi-label head, smoothed as in `fit_temperature`.

    A rare label's own temperature would fit the accident of its few positive items, so it is drawn (in its logarithm) toward
    that of all labels together, by the weight n / (n + 10) for n positive items.

    Args:
        scores: (N, K) float, finite, each row from a model that was not fitted on the item.
        targets: (N, K) bool, the truth.

    Returns:
        (K,) float64 > 0, from 0.01 to 10 times the mean distance of the scores from 0.

    Raises:
        DataError: if shapes disagree, there is no item, or a score is not finite.
    """
    scores, targets = np.asarray(scores), np.asarray(targets, dtype=bool)
    if scores.ndim != 2 or scores.shape != targets.shape or not len(scores):
        raise DataError(
            f"scores of shape {scores.shape} and labels of shape {targets.shape} cannot be calibrated together.",
            expected="one score for each item and label, and at least one item.",
            mend="pass the out-of-fold scores and the labels of the same items.",
        )
    require_finite(scores)
    kept = _part_of(scores)
    scale = float(np.abs(scores).mean(dtype=np.float64)) or 1.0
    values, truth = scores[kept].astype(np.float64) / scale, targets[kept]
    pooled = np.log(_fit_sigmoids(values.reshape(-1, 1), truth.reshape(-1, 1))[0])
    own, trust = np.log(_fit_sigmoids(values, truth)), trust_in_labels(targets)
    return scale * np.exp(trust * own + (1.0 - trust) * pooled)


def trust_in_labels(targets: np.ndarray) -> np.ndarray:
    """How far what is fitted for each label alone counts: n / (n + 10) for n positive items.

    Args:
        targets: (N, K) bool.

    Returns:
        (K,) float64 in [0, 1).
    """
    positives = targets.sum(axis=0)
    return positives / (positives + RARE)


def require_finite(scores: np.ndarray) -> None:
    """Refuse scores that are no numbers.

    Args:
        scores: (N, K).

    Raises:
        DataError: if a score is NaN or infinite.
    """
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(scores)} items have scores that are not finite (the first is row {bad[0]}).",
            expected="finite numbers only.",
            mend="look for NaN or infinity in the features of these items.",
        )


def _part_of(scores: np.ndarray) -> slice:
    return slice(None, None, max(1, -(-scores.size // _MOST_SCORES)))


def _fit_sigmoids(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    smooth = 1.0 / (len(scores) + 2.0)
    wanted = ((1.0 - smooth) * targets + smooth / 2.0) * scores

    def slopes(inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probability = sigmoid(scores * inverse)
        spread = probability * (1.0 - probability) * scores**2
        return (probability * scores - wanted).mean(axis=0), spread.mean(axis=0)

    return np.where(scores.any(axis=0), _minimise_convex(slopes, scores.shape[1]), 1.0)


def _minimise_convex(slopes: _Slopes, num_problems: int) -> np.ndarray:
    """Temperatures that minimise functions convex in 1/T, for all problems at once, within the bounds.

    Newton's steps are in the logarithm of 1/T, safeguarded by a bracket.
    """
    low = np.full(num_problems, -np.log(HIGHEST_TEMPERATURE))
    high = np.full(num_problems, -np.log(LOWEST_TEMPERATURE))
    point = np.zeros(num_problems)
    for _ in range(_MAX_NEWTON):
        inverse = np.exp(point)
        first, second = slopes(inverse)
        low, high = np.where(first < 0, point, low), np.where(first > 0, point, high)
        # The second derivative by the logarithm is not always positive: there, or outside the bracket, it is halved.
        curvature = second * inverse**2 + first * inverse
        with np.errstate(over="ignore"):  # an endless step is refused below like any other too long one
            step = np.divide(first * inverse, curvature, out=np.full(num_problems, np.inf), where=curvature > 0)
        newton = point - step
        following = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
        moved = np.abs(following - point)
        point = following
        if moved.max() < _TOLERANCE:
            break
    return np.exp(-point)
