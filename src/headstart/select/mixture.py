"""Several heads that answer as one: where little is known, none is thrown out by an accident.

Each head's out-of-fold scores are brought to one unit and added in shares. A few dozen labels hardly tell one set of shares
from the next, so the shares are the mean of a whole grid of them, each set as likely as it makes the answers out of fold: near
equal where nothing is known, all to one head where much is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from headstart.heads.judge import Judge
from headstart.records import Task

_STEPS_OF_TWO, _STEPS = 10, 4


def likely_shares(judge: Judge, sides: Sequence[np.ndarray]) -> np.ndarray:
    """The share of each head in a common answer.

    Args:
        judge: of the rows.
        sides: S times (N, K) out-of-fold scores, in one unit.

    Returns:
        (S,) float64, none below 0, with sum 1.
    """
    steps = _STEPS_OF_TWO if len(sides) == 2 else _STEPS
    grid = (
        np.array([shares for shares in itertools.product(range(steps + 1), repeat=len(sides)) if sum(shares) == steps]) / steps
    )
    losses = np.array([judge.criterion(judge.mark(mix(sides, shares))) for shares in grid])
    count = len(sides[0]) if judge.clusters is None else int(judge.clusters.max()) + 1
    # Of numbers with a normal error the likelihood is a power of the squared error.
    logs = -0.5 * count * np.log(np.maximum(losses, 1e-300)) if judge.task == "value" else -count * losses
    likelihoods = np.exp(logs - logs.max())
    return likelihoods @ grid / likelihoods.sum()


def mix(sides: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Scores of a common answer.

    Args:
        sides: S times (N, K) scores, in one unit.
        shares: (S,).

    Returns:
        (N, K) float64.
    """
    return sum((share * side for share, side in zip(shares, sides, strict=True)), np.zeros(sides[0].shape))


def knowledge(judge: Judge, scores: np.ndarray) -> tuple[float, float]:
    """How much more a head tells than whoever knows how frequent the classes are, or the values' mean, and nothing else.

    Args:
        judge: of the rows.
        scores: (N, K) out of fold.

    Returns:
        By how much its loss is lower, and the standard error of that.
    """
    weights = judge.weights[:, None]
    match judge.task:
        case "single":
            shares = (np.eye(int(judge.targets.max()) + 1)[judge.targets] * weights).mean(axis=0)
            known = np.log(np.maximum(shares, 1e-9))
        case "multi":
            shares = np.clip(judge.targets.mean(axis=0), 1e-9, 1 - 1e-9)
            known = np.log(shares / (1 - shares))
        case "value":
            known = judge.targets.mean(axis=0)
    return judge.compare(judge.mark(np.tile(known, (len(judge.targets), 1))), judge.mark(scores))


def unit_of(task: Task, scores: np.ndarray) -> float:
    """What scores are divided by before they are added to others: the mean distance from each other, or from zero (multi).

    A temperature would do, but where a few dozen items are told apart without a mistake it is next to nothing, and the other
    sides would have no part in the sum.

    Args:
        task: what they tell.
        scores: (N, K).
    """
    match task:
        case "single":
            return float(np.abs(scores - scores.mean(axis=1, keepdims=True)).mean()) or 1.0
        case "multi":
            return float(np.abs(scores).mean()) or 1.0
        case "value":
            return 1.0
