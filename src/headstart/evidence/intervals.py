"""How far a number measured on few items can be trusted: 95 % intervals.

A share of right answers gets the exact binomial interval; everything else is bootstrapped: items are drawn again with
replacement, 2,000 times. Above 25,000 items there are fewer draws (never under 500), since the noise of the percentile
itself, about 5 % of the interval's width at 500 draws, no longer matters beside so narrow an interval. Memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headstart.evidence.binomial import Interval, clopper_pearson

NUM_DRAWS = 2000
_FEWEST_DRAWS = 500
_WORK = 50_000_000
_CHUNK = 2_000_000


def bootstrap_means(columns: np.ndarray, seed: int) -> np.ndarray:
    """Means of items drawn again with replacement, the same draws for every column.

    Args:
        columns: (N, S) float64; what each item adds to each of S means.
        seed: of the draws.

    Returns:
        (R, S) float64, R draws (see the module's first lines).
    """
    num_items, num_columns = columns.shape
    separate = [np.ascontiguousarray(columns[:, column]) for column in range(num_columns)]
    means = [
        np.stack([values[drawn].mean(axis=1) for values in separate], axis=1)
        for drawn in _draw_items(num_items, num_columns, seed)
    ]
    return np.concatenate(means)


def bootstrap_ratio(sums: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Means over the members of units (documents, groups) that are drawn again as a whole, each with all its members.

    Args:
        sums: (U,) float64, of each unit's members.
        counts: (U,) float64 or int > 0, how many members each has.
        seed: of the draws.

    Returns:
        (R,) float64, R draws (see the module's first lines).
    """
    means = bootstrap_means(np.stack([sums, counts], axis=1), seed)
    return means[:, 0] / means[:, 1]


def bootstrap_mean(values: np.ndarray, seed: int) -> Interval:
    """Percentile interval of a mean over items.

    Args:
        values: (N,) float.
        seed: of the draws.

    Returns:
        (low, high).
    """
    return percentile_interval(_mean_draws(np.asarray(values, dtype=np.float64), seed))


def paired_bootstrap(
    correct_a: np.ndarray, correct_b: np.ndarray, seed: int, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    """How much more often A is right than B on the same items, with its percentile interval.

    Args:
        correct_a: (N,) bool, or float in [0, 1] where correctness is a mean over repeats.
        correct_b: (N,) likewise, of the same items in the same order.
        seed: of the draws.
        groups: (N,) group of each item, if any has one; groups are drawn as a whole, and the mean is over the items drawn.

    Returns:
        (difference, low, high), each in [-1, 1]; A is better beyond doubt when low > 0.
    """
    differences = np.asarray(correct_a, dtype=np.float64) - np.asarray(correct_b, dtype=np.float64)
    if groups is None:
        return float(differences.mean()), *bootstrap_mean(differences, seed)
    place = np.unique(groups, return_inverse=True)[1]
    drawn = bootstrap_ratio(np.bincount(place, differences), np.bincount(place), seed)
    return float(differences.mean()), *percentile_interval(drawn)


def bootstrap_macro_f1(labels: np.ndarray, predicted: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """Macro-F1 of items drawn again within each true class, so that no class is ever drawn away.

    Items of one class with the same predictions are alike, so it is their counts that are drawn (from a multinomial).

    Args:
        labels: (N,) int in [0, num_classes), the truth.
        predicted: (R, N) int, what was said in each of R repeats; R is 1 for one test set.
        num_classes: K.
        seed: of the draws.

    Returns:
        (draws,) float64 in [0, 1], each a mean over the repeats.
    """
    patterns, counts = np.unique(np.vstack([labels[None], predicted]), axis=1, return_counts=True)
    draws = num_draws(patterns.shape[1] * len(predicted))
    right = np.zeros((len(predicted), num_classes, draws), dtype=np.float32)
    either = np.zeros_like(right)
    for pattern, times in _draw_patterns(patterns[0], counts, draws, seed):
        label, answers = patterns[0, pattern], patterns[1:, pattern]
        either[:, label] += times
        # One row per repeat, so no pair of indices occurs twice and += counts each.
        either[np.arange(len(answers)), answers] += times
        right[answers == label, label] += times
    scores = np.divide(2.0 * right, either, out=np.zeros_like(right), where=either > 0)
    return (scores.sum(axis=1, dtype=np.float64) / np.count_nonzero(either, axis=1)).mean(axis=0)


def bootstrap_ece(gaps: np.ndarray, bins: list[np.ndarray], seed: int) -> np.ndarray:
    """Calibration error of items drawn again within each bin, so that the bins keep their mass.

    Args:
        gaps: (N,) confidence less correctness.
        bins: the items of each bin.
        seed: of the draws.

    Returns:
        (draws,) float64 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    draws = num_draws(len(gaps))
    total = np.zeros(draws)
    for items in bins:
        values, step = gaps[items], max(1, _CHUNK // len(items))
        for start in range(0, draws, step):
            drawn = rng.integers(0, len(items), size=(min(step, draws - start), len(items)))
            total[start : start + step] += np.abs(values[drawn].sum(axis=1))
    return total / len(gaps)


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> Interval:
    """The middle `level` of bootstrapped values.

    Args:
        draws: (R,) float.
        level: in (0, 1).

    Returns:
        (low, high).
    """
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


def centred_interval(draws: np.ndarray, estimate: float) -> Interval:
    """Percentile interval moved so that the draws' mean lies on the estimate, held in [0, 1].

    For the calibration error, whose draws lie too high by construction: noise adds to every absolute gap.

    Args:
        draws: (R,) float.
        estimate: of the items as they are.

    Returns:
        (low, high).
    """
    low, high = percentile_interval(draws + (estimate - draws.mean()))
    return max(0.0, min(low, estimate)), min(1.0, max(high, estimate))


def normal_interval(estimate: float, influences: np.ndarray) -> Interval:
    """Interval of a metric from what each item moves it by (the infinitesimal jackknife), held in [0, 1].

    Agrees with the bootstrap once items are many, at no cost by draws (Efron 1982, The Jackknife, chapter 6).

    Args:
        estimate: the metric, in [0, 1].
        influences: (N,) derivative of the metric by each item's weight.

    Returns:
        (low, high).
    """
    margin = 1.959963984540054 * float(np.sqrt(np.square(influences).sum()))
    return max(0.0, estimate - margin), min(1.0, estimate + margin)


def widen_perfect(estimate: float, interval: Interval, num_items: int) -> Interval:
    """Let a perfect score have been lucky: a bootstrap cannot draw a mistake that it has never seen.

    Args:
        estimate: the metric, in [0, 1].
        interval: its bootstrap interval.
        num_items: N.

    Returns:
        The interval; for a score of 1 or 0 with no spread, the exact binomial interval of N right or wrong answers.
    """
    if interval[0] < interval[1] or 0.0 < estimate < 1.0:
        return interval
    return clopper_pearson(num_items if estimate >= 1.0 else 0, num_items)


def num_draws(work: int) -> int:
    """How many draws to make when one costs `work` steps: 2,000, or fewer for very much work, at least 500.

    Args:
        work: steps of one draw, at least 1.

    Returns:
        In [500, 2000].
    """
    return max(_FEWEST_DRAWS, min(NUM_DRAWS, _WORK // max(1, work)))


def _mean_draws(values: np.ndarray, seed: int) -> np.ndarray:
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > 64:
        return bootstrap_means(values[:, None], seed)[:, 0]
    # Few distinct values (right and wrong, say): drawing their counts is the same bootstrap without touching the items.
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=NUM_DRAWS)
    return drawn @ distinct / len(values)


def _draw_items(num_items: int, num_columns: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    draws, step = num_draws(num_items * num_columns), max(1, _CHUNK // num_items)
    for start in range(0, draws, step):
        yield rng.integers(0, num_items, size=(min(step, draws - start), num_items))


def _draw_patterns(labels: np.ndarray, counts: np.ndarray, draws: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        total = int(counts[mine].sum())
        yield from zip(mine, rng.multinomial(total, counts[mine] / total, size=draws).T.astype(np.float32), strict=True)
