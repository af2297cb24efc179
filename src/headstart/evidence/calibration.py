"""Turning scores into probabilities that mean what they say; everything learned here comes from out-of-fold scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.errors import DataError

LOWEST_TEMPERATURE = 0.01
HIGHEST_TEMPERATURE = 100.0
"""Bounds of every fitted temperature. Ridge scores (about ±1) want 0.1 to 0.3, logits of an over-sure network 1 to 3."""

_MOST_SCORES = 5_000_000
_RARE = 10.0
_Slope = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class LabelCalibration:
    """How the scores of a multi-label head become probabilities and answers."""

    temperatures: np.ndarray
    """(K,) float64: `sigmoid(score / temperature)` is the label's probability."""
    thresholds: np.ndarray
    """(K,) float64 in (0, 1): the label is given from this probability on."""


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


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature that makes out-of-fold scores likeliest (least NLL; Guo et al. 2017, section 4.2).

    The likelihood is convex in 1/T, so Newton steps inside a shrinking bracket always end at its one minimum. Each target
    gives 1/(N+2) of its mass to all classes alike (Platt 1999, section 2.2): with scores that part the classes perfectly the
    likelihood alone would ask for T = 0 and certain answers; so the answers are as sure as N items in a row can make them.
    Above 5 million scores an even part of the items is used: one number needs no more.

    Args:
        logits: (N, K) float, finite, each row from a model that did not see the item.
        labels: (N,) int in [0, K).

    Returns:
        T in [0.01, 100]; 1.0 when every row's scores are all equal, since no T changes anything then.

    Raises:
        DataError: if there is no item, shapes disagree, or a score is not finite.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise DataError(
            f"scores of shape {logits.shape} and {len(labels)} labels cannot be calibrated together.",
            expected="a row of scores for each label, and at least one.",
            mend="pass the out-of-fold scores and the labels of the same items.",
        )
    _require_finite(logits)
    kept = slice(None, None, max(1, -(-logits.size // _MOST_SCORES)))
    centred = logits[kept].astype(np.float64)
    centred -= centred.max(axis=1, keepdims=True)
    smooth = 1.0 / (len(centred) + 2.0)
    wanted = (1.0 - smooth) * centred[np.arange(len(centred)), labels[kept]] + smooth * centred.mean(axis=1)

    def slope(sharpness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raised = np.exp(centred * sharpness)
        total = raised.sum(axis=1)
        mean = np.einsum("nk,nk->n", raised, centred) / total
        raised *= centred
        square = np.einsum("nk,nk->n", raised, centred) / total
        return np.array([(mean - wanted).mean()]), np.array([(square - mean**2).mean()])

    if not centred.any():
        return 1.0
    return float(1.0 / _minimise_convex(slope, 1)[0])


def fit_label_calibration(scores: np.ndarray, targets: np.ndarray) -> LabelCalibration:
    """Fit each label's temperature and threshold on out-of-fold scores of a multi-label head.

    A rare label's own temperature and threshold would fit the accident of its few positive items, so both are drawn toward
    what is known without them, by the weight n / (n + 10) for n positive items: the temperature (its logarithm) toward that
    of all labels together, the threshold toward 0.5. With 10 positives they go half way; with none they stay there.

    Args:
        scores: (N, K) float, finite, each row from a model that did not see the item.
        targets: (N, K) bool, the truth.

    Returns:
        Temperatures in [0.01, 100] and thresholds in (0, 1).

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
    _require_finite(scores)
    kept = slice(None, None, max(1, -(-scores.size // _MOST_SCORES)))
    values, truth = scores[kept].astype(np.float64), targets[kept]
    trust = targets.sum(axis=0) / (targets.sum(axis=0) + _RARE)
    pooled = np.log(_fit_sigmoid_temperatures(values.reshape(-1, 1), truth.reshape(-1, 1))[0])
    own = np.log(_fit_sigmoid_temperatures(values, truth))
    temperatures = np.exp(trust * own + (1.0 - trust) * pooled)
    best = np.array(
        [
            _best_threshold(sigmoid(scores[:, label] / temperatures[label]), targets[:, label])
            for label in range(scores.shape[1])
        ]
    )
    return LabelCalibration(temperatures=temperatures, thresholds=0.5 + trust * (best - 0.5))


def _fit_sigmoid_temperatures(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    smooth = 1.0 / (len(scores) + 2.0)
    wanted = ((1.0 - smooth) * targets + smooth / 2.0) * scores

    def slope(sharpness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probability = sigmoid(scores * sharpness)
        spread = probability * (1.0 - probability) * scores**2
        return (probability * scores - wanted).mean(axis=0), spread.mean(axis=0)

    return np.where(scores.any(axis=0), 1.0 / _minimise_convex(slope, scores.shape[1]), 1.0)


def _minimise_convex(slope: _Slope, num_problems: int) -> np.ndarray:
    """Roots of increasing slopes, for all problems at once, as 1/T within the bounds."""
    low = np.full(num_problems, 1.0 / HIGHEST_TEMPERATURE)
    high = np.full(num_problems, 1.0 / LOWEST_TEMPERATURE)
    point = np.clip(np.ones(num_problems), low, high)
    for _ in range(60):
        first, second = slope(point)
        low, high = np.where(first < 0, point, low), np.where(first > 0, point, high)
        with np.errstate(over="ignore"):  # an endless step is refused below like any other too long one
            step = np.divide(first, second, out=np.full(num_problems, np.inf), where=second > 0)
        newton = point - step
        # Outside the bracket Newton is lost, and halving the bracket (in ratio) always gains.
        following = np.where((newton > low) & (newton < high), newton, np.sqrt(low * high))
        moved = np.abs(following - point) / point
        point = following
        if moved.max() < 1e-7:
            break
    return point


def _best_threshold(probability: np.ndarray, targets: np.ndarray) -> float:
    num_positive = int(targets.sum())
    if num_positive == 0:
        return 0.5
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order]
    right = np.cumsum(targets[order])
    scores = 2.0 * right / (np.arange(1, len(ranked) + 1) + num_positive)
    # A threshold cannot part items of equal probability.
    scores[:-1][ranked[1:] == ranked[:-1]] = -1.0
    last = int(scores.argmax())
    following = ranked[last + 1] if last + 1 < len(ranked) else 0.0
    return float(np.clip((ranked[last] + following) / 2.0, 1e-6, 1.0 - 1e-6))


def _require_finite(scores: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=tuple(range(1, scores.ndim))))
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(scores)} items have scores that are not finite (the first is row {bad[0]}).",
            expected="finite numbers only.",
            mend="look for NaN or infinity in the features of these items.",
        )
