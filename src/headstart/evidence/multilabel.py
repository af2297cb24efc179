"""The metrics of the multi-label task with their intervals.

Up to 100,000 (item, label) pairs the items are bootstrapped. Beyond, 2,000 sortings of everything would take minutes, and
the intervals come from each item's influence on the metric instead; where both are possible they agree closely.
"""

from __future__ import annotations

import numpy as np

from headstart.evidence.intervals import Interval, normal_interval, num_draws, percentile_interval, widen_perfect
from headstart.evidence.metrics import mean_average_precision, micro_f1, score_counts

_MOST_PAIRS = 100_000


def measure_multi(probabilities: np.ndarray, targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Score a multi-label model.

    Args:
        probabilities: (N, K) in [0, 1].
        targets: (N, K) bool, the truth.
        predicted: (N, K) bool, what was said.

    Returns:
        macro_f1 (over the labels that occur in the truth or the answers), micro_f1 and mean_average_precision, in [0, 1].
    """
    return {
        "macro_f1": _macro_f1(*_count(targets, predicted)),
        "micro_f1": micro_f1(targets, predicted),
        "mean_average_precision": mean_average_precision(probabilities, targets),
    }


def bound_multi(probabilities: np.ndarray, targets: np.ndarray, predicted: np.ndarray, seed: int) -> dict[str, Interval]:
    """Give each metric of `measure_multi` its 95 % interval.

    Args:
        probabilities: (N, K) in [0, 1].
        targets: (N, K) bool, the truth.
        predicted: (N, K) bool, what was said.
        seed: of the draws.

    Returns:
        (low, high) for each metric.
    """
    metrics = measure_multi(probabilities, targets, predicted)
    if targets.size > _MOST_PAIRS:
        influences = influence_multi(probabilities, targets, predicted)
        intervals = {name: normal_interval(metrics[name], moved) for name, moved in influences.items()}
    else:
        intervals = {
            name: percentile_interval(drawn) for name, drawn in _bootstrap(probabilities, targets, predicted, seed).items()
        }
    return {name: widen_perfect(metrics[name], interval, len(targets)) for name, interval in intervals.items()}


def influence_multi(probabilities: np.ndarray, targets: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """How each item moves each metric: the metric's derivative by the item's weight, at weight 1.

    Args:
        probabilities: (N, K) in [0, 1].
        targets: (N, K) bool, the truth.
        predicted: (N, K) bool, what was said.

    Returns:
        (N,) float64 for each metric; each sums to 0 but for rounding.
    """
    right, said, true = _count(targets, predicted)
    either = said + true
    occurs = either > 0
    shares = np.divide(1.0, either, out=np.zeros_like(either), where=occurs) / max(1, np.count_nonzero(occurs))
    scores = score_counts(right, said, true).f1
    micro = micro_f1(targets, predicted)
    both = (targets & predicted).astype(np.float32)
    any_side = targets.astype(np.float32) + predicted
    known = np.flatnonzero(targets.any(axis=0))
    moved = np.zeros(len(targets))
    for label in known:
        moved += _influence_precision(probabilities[:, label], targets[:, label])
    return {
        "macro_f1": (both @ (2.0 * shares) - any_side @ (scores * shares)).astype(np.float64),
        "micro_f1": (2.0 * both.sum(axis=1) - micro * any_side.sum(axis=1)) / max(1.0, float(either.sum())),
        "mean_average_precision": moved / max(1, len(known)),
    }


def _count(targets: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts = ((targets & predicted).sum(axis=0), predicted.sum(axis=0), targets.sum(axis=0))
    return counts[0].astype(np.float64), counts[1].astype(np.float64), counts[2].astype(np.float64)


def _macro_f1(right: np.ndarray, said: np.ndarray, true: np.ndarray) -> float:
    occurs = (said + true) > 0
    return float(score_counts(right, said, true).f1[occurs].mean()) if occurs.any() else 0.0


def _bootstrap(probabilities: np.ndarray, targets: np.ndarray, predicted: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    num_items, num_labels = targets.shape
    draws = num_draws(targets.size)
    step = max(1, 4_000_000 // targets.size)
    ranked = [_rank(probabilities[:, label], targets[:, label]) for label in range(num_labels)]
    both, any_side = (targets & predicted).astype(np.float32), targets.astype(np.float32) + predicted
    drawn: dict[str, list[np.ndarray]] = {"macro_f1": [], "micro_f1": [], "mean_average_precision": []}
    for start in range(0, draws, step):
        weights = rng.multinomial(num_items, np.full(num_items, 1.0 / num_items), size=min(step, draws - start)).astype(
            np.float32
        )
        right, either = weights @ both, weights @ any_side
        scores = np.divide(2.0 * right, either, out=np.zeros_like(right), where=either > 0)
        drawn["macro_f1"].append(scores.sum(axis=1) / np.maximum(1, np.count_nonzero(either, axis=1)))
        drawn["micro_f1"].append(2.0 * right.sum(axis=1) / np.maximum(1.0, either.sum(axis=1)))
        drawn["mean_average_precision"].append(_weighted_precisions(weights, ranked))
    return {name: np.concatenate(parts).astype(np.float64) for name, parts in drawn.items()}


def _rank(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return order, ends, targets[order]


def _weighted_precisions(weights: np.ndarray, ranked: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    total, known = np.zeros(len(weights)), np.zeros(len(weights))
    for order, ends, targets in ranked:
        if not targets.any():
            continue
        placed = weights[:, order]
        seen = np.cumsum(placed, axis=1)[:, ends]
        right = np.cumsum(placed * targets, axis=1)[:, ends]
        gained = np.diff(right, axis=1, prepend=0.0)
        precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
        positives = right[:, -1]
        total += np.divide((gained * precision).sum(axis=1), positives, out=np.zeros(len(weights)), where=positives > 0)
        known += positives > 0
    return total / np.maximum(1, known)


def _influence_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    order, ends, placed = _rank(scores, targets)
    tie = np.searchsorted(ends, np.arange(len(order)))
    seen, right = (ends + 1.0)[tie], np.cumsum(placed)[ends].astype(np.float64)[tie]
    positives = right[-1]
    average = float((placed * right / seen).sum() / positives)
    # An item of weight w adds to `seen` (and, if positive, to `right`) of every positive at or below its score.
    raised = _suffix_sums(placed / seen, ends, tie)
    lowered = _suffix_sums(placed * right / seen**2, ends, tie)
    moved = np.empty(len(order))
    moved[order] = (placed * (right / seen - average + raised) - lowered) / positives
    return moved


def _suffix_sums(values: np.ndarray, ends: np.ndarray, tie: np.ndarray) -> np.ndarray:
    sums = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    starts = np.append(0, ends[:-1] + 1)
    return sums[starts][tie]
