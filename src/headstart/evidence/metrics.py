"""The numbers that say how good a model is; numpy only, each checked against scikit-learn in the tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_BINS = 15
"""The most bins of the reliability diagram and of the expected calibration error."""
LEAST_IN_BIN = 10
"""Items: with a few of them a bin shows noise, which would be read as news."""
_TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Precision, recall and F1 of every class, with how many items of it there were."""

    precision: np.ndarray
    """(K,) float64 in [0, 1]; 0 where the class was never predicted."""
    recall: np.ndarray
    """(K,) float64 in [0, 1]; 0 where there was no item of the class."""
    f1: np.ndarray
    """(K,) float64 in [0, 1]."""
    support: np.ndarray
    """(K,) int64, items of the class."""


def count_confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count which class was taken for which.

    Args:
        labels: (N,) int in [0, num_classes), the truth.
        predicted: (N,) int in [0, num_classes).
        num_classes: K.

    Returns:
        (K, K) int64; the row is the truth, the column what was said.
    """
    cells = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def score_classes(confusion: np.ndarray) -> ClassScores:
    """Score every class from a confusion matrix; undefined ratios are 0, as in scikit-learn's `zero_division=0`.

    Args:
        confusion: (K, K) int, rows are the truth.

    Returns:
        The scores, in the matrix's order.
    """
    right = np.diagonal(confusion).astype(np.float64)
    return score_counts(right, confusion.sum(axis=0), confusion.sum(axis=1))


def score_counts(right: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> ClassScores:
    """Score every class or label from its three counts.

    Args:
        right: (K,) times it was said and true.
        predicted: (K,) times it was said.
        support: (K,) times it was true.

    Returns:
        The scores, in the same order.
    """
    return ClassScores(
        precision=_ratio(right, predicted),
        recall=_ratio(right, support),
        f1=_ratio(2.0 * right, np.asarray(predicted) + np.asarray(support)),
        support=np.asarray(support).astype(np.int64),
    )


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of items labelled right, in [0, 1].

    Args:
        labels: (N,) int, the truth.
        predicted: (N,) int.

    Returns:
        The share; 0 when there are no items.
    """
    return float(np.mean(labels == predicted)) if len(labels) else 0.0


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 over the classes that occur, be it in the truth or in what was said; every class counts alike.

    Args:
        confusion: (K, K) int, rows are the truth.

    Returns:
        In [0, 1]; equal to scikit-learn's `f1_score(average="macro")`, which leaves out classes that occur on neither side.
    """
    occurs = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return float(score_classes(confusion).f1[occurs].mean()) if occurs.any() else 0.0


def micro_f1(targets: np.ndarray, predicted: np.ndarray) -> float:
    """F1 over all (item, label) pairs of a multi-label task pooled, so frequent labels count more.

    Args:
        targets: (N, K) bool, the truth.
        predicted: (N, K) bool.

    Returns:
        In [0, 1]; 0 when no label is either true or said.
    """
    right = int(np.count_nonzero(targets & predicted))
    either = int(np.count_nonzero(targets)) + int(np.count_nonzero(predicted))
    return 2.0 * right / either if either else 0.0


def item_log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the probability each item's true class was given.

    Args:
        probabilities: (N, K) in [0, 1], rows sum to 1.
        labels: (N,) int in [0, K).

    Returns:
        (N,) float64 in nats; probabilities are held above 2.2e-16, so no loss is over 36.1.
    """
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(chosen, _TINY, 1.0))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `item_log_losses`, in nats.

    Args:
        probabilities: (N, K) in [0, 1], rows sum to 1.
        labels: (N,) int in [0, K).

    Returns:
        At least 0; ln K is what equal probabilities get.
    """
    return float(item_log_losses(probabilities, labels).mean())


def bin_confidences(confidence: np.ndarray) -> list[np.ndarray]:
    """Sort items by confidence and cut them into equal bins (up to one item): 15, or fewer for 10 items in each.

    Args:
        confidence: (N,) of the likeliest class.

    Returns:
        One array of item indices a bin, least confident first.
    """
    order = np.argsort(confidence, kind="stable")
    return np.array_split(order, max(1, min(NUM_BINS, len(order) // LEAST_IN_BIN)))


def smooth_ties(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Give items of one and the same confidence their common share of right answers.

    Without this, where the items of a tie fall among the bins, and with it the calibration error, would hang on their order.

    Args:
        confidence: (N,) of the likeliest class.
        correct: (N,) bool.

    Returns:
        (N,) float64 in [0, 1].
    """
    _, tie, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    return (np.bincount(tie, weights=correct.astype(np.float64)) / counts)[tie]


def ece(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of the likeliest class, over bins of equal mass (Guo et al. 2017, section 2; Nguyen 2015).

    With few items a bin it comes out too high even for perfect probabilities: about 0.1 for 10 items a bin.

    Args:
        probabilities: (N, K) in [0, 1], rows sum to 1.
        labels: (N,) int in [0, K).

    Returns:
        In [0, 1]: the mean over items of |confidence - accuracy| of their bin.
    """
    gaps = calibration_gaps(probabilities, labels)
    confidence = probabilities.max(axis=1)
    return float(sum(abs(gaps[items].sum()) for items in bin_confidences(confidence)) / len(labels))


def chance_ece(probabilities: np.ndarray) -> tuple[float, float]:
    """The calibration error that perfect probabilities show by chance, over the bins of `ece`.

    In each bin the sum of confidence less correctness is about normal; its absolute value has the mean sqrt(2 V / pi) and the
    variance V (1 - 2 / pi), where V is the sum of p (1 - p).

    Args:
        probabilities: (N, K) in [0, 1], rows sum to 1.

    Returns:
        Mean and standard deviation of the calibration error.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    variances = np.array([(confidence[items] * (1 - confidence[items])).sum() for items in bin_confidences(confidence)])
    mean = np.sqrt(2 / np.pi * np.maximum(variances, 0)).sum() / len(confidence)
    return float(mean), float(np.sqrt((1 - 2 / np.pi) * max(variances.sum(), 0.0)) / len(confidence))


def calibration_gaps(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Confidence less correctness of each item, the terms `ece` averages within bins.

    Args:
        probabilities: (N, K) in [0, 1], rows sum to 1.
        labels: (N,) int in [0, K).

    Returns:
        (N,) float64 in [-1, 1].
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    return confidence - smooth_ties(confidence, probabilities.argmax(axis=1) == labels)


def average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of every label: the area under its precision-recall steps, as scikit-learn defines it.

    Args:
        scores: (N, K), higher is more likely; only their order within a label counts.
        targets: (N, K) bool, the truth.

    Returns:
        (K,) float64 in [0, 1]; NaN for a label that no item has.
    """
    return np.array([_average_precision(scores[:, label], targets[:, label]) for label in range(scores.shape[1])])


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean of `average_precisions` over the labels that at least one item has.

    Args:
        scores: (N, K), higher is more likely.
        targets: (N, K) bool, the truth.

    Returns:
        In [0, 1]; 0 when no item has any label.
    """
    precisions = average_precisions(scores, targets)
    known = ~np.isnan(precisions)
    return float(precisions[known].mean()) if known.any() else 0.0


def mae(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean absolute error, in the target's unit.

    Args:
        predictions: (N,) float.
        targets: (N,) float.

    Returns:
        At least 0.
    """
    return float(np.abs(predictions - targets).mean())


def rmse(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Root of the mean squared error, in the target's unit.

    Args:
        predictions: (N,) float.
        targets: (N,) float.

    Returns:
        At least 0.
    """
    return float(np.sqrt(np.square(predictions - targets).mean()))


def r2(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Share of the target's variance that the predictions explain.

    Args:
        predictions: (N,) float.
        targets: (N,) float.

    Returns:
        At most 1; 0 is what always answering the mean gets. When the targets are all equal: 1 if exactly hit, else 0.
    """
    left = float(np.square(targets - predictions).sum())
    total = float(np.square(targets - targets.mean()).sum())
    if total == 0.0:
        return 1.0 if left == 0.0 else 0.0
    return 1.0 - left / total


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    below = np.asarray(below, dtype=np.float64)
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def _average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    num_positive = np.count_nonzero(targets)
    if num_positive == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # A threshold cannot part items of equal score, so precision is read at the end of each tie.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    right = np.cumsum(targets[order])[ends].astype(np.float64)
    gained = np.diff(right, prepend=0.0)
    return float((gained * right / (ends + 1)).sum() / num_positive)
