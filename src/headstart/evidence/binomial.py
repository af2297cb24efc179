"""The exact interval of a share, without scipy: its import would cost a warm run a second."""

from __future__ import annotations

import math

Interval = tuple[float, float]


def clopper_pearson(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Exact binomial interval of a share (Clopper & Pearson 1934): covers the truth at least `level` of the time.

    Args:
        successes: in [0, trials]; may be a fraction, as when each item's correctness is a mean over repeats.
        trials: items, at least 1.
        level: in (0, 1).

    Returns:
        (low, high) in [0, 1].
    """
    tail = (1.0 - level) / 2.0
    low = 0.0 if successes <= 0 else beta_quantile(tail, successes, trials - successes + 1)
    high = 1.0 if successes >= trials else beta_quantile(1.0 - tail, successes + 1, trials - successes)
    return low, high


def beta_quantile(probability: float, first: float, second: float) -> float:
    """Quantile of a beta distribution, by bisection on its distribution function.

    Args:
        probability: in (0, 1).
        first: the first shape parameter, > 0.
        second: the second shape parameter, > 0.

    Returns:
        In [0, 1], to about 1e-12.
    """
    low, high = 0.0, 1.0
    while high - low > 1e-13:
        middle = (low + high) / 2.0
        if incomplete_beta(middle, first, second) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def incomplete_beta(point: float, first: float, second: float) -> float:
    """Distribution function of the beta distribution: the regularised incomplete beta function.

    The continued fraction of NIST's DLMF 8.17.22 (https://dlmf.nist.gov/8.17.E22), evaluated by Lentz's method.

    Args:
        point: in [0, 1].
        first: the first shape parameter, > 0.
        second: the second shape parameter, > 0.

    Returns:
        In [0, 1].
    """
    if point <= 0.0 or point >= 1.0:
        return 0.0 if point <= 0.0 else 1.0
    if point > (first + 1.0) / (first + second + 2.0):
        return 1.0 - incomplete_beta(1.0 - point, second, first)
    scale = math.lgamma(first + second) - math.lgamma(first) - math.lgamma(second)
    front = math.exp(scale + first * math.log(point) + second * math.log1p(-point)) / first
    return front * _continued_fraction(point, first, second)


def _continued_fraction(point: float, first: float, second: float) -> float:
    tiny = 1e-300
    below = 1.0 / (1.0 - (first + second) * point / (first + 1.0) or tiny)
    above, value = 1.0, below
    for term in range(1, 20_000):
        twice = first + 2 * term
        even = term * (second - term) * point / ((twice - 1.0) * twice)
        odd = -(first + term) * (first + second + term) * point / (twice * (twice + 1.0))
        for step in (even, odd):
            below = 1.0 / (1.0 + step * below or tiny)
            above = 1.0 + step / above or tiny
            value *= above * below
        if abs(above * below - 1.0) < 1e-15:
            break
    return value
