"""Whether training labels look wrong, by the answers of models that did not learn from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.evidence.binomial import clopper_pearson

SUREST = 0.25
"""Share of the items, those with the surest answers, that are looked at."""
FEWEST = 25
"""Fewer of the surest items say nothing."""
LEAST_WRONG = 0.03
"""The 95 % interval of the share of contradicted labels among the surest items must lie above this."""
AS_OFTEN = 0.55
"""Where labels are right, a sure answer is wrong far less often than any answer; where they are wrong, nearly as often."""
MOST_WRONG = 0.3
"""Of all answers: a model that is wrong more often is no judge of labels."""


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """What the surest out-of-fold answers say about the labels."""

    num_sure: int
    num_contradicted: int
    """Of those, items whose label is another than the answer."""

    @property
    def share(self) -> float:
        """An estimate of the share of wrong labels."""
        return self.num_contradicted / self.num_sure


def find_label_noise(probabilities: np.ndarray, labels: np.ndarray) -> LabelNoise | None:
    """Find whether the surest out-of-fold answers contradict the labels about as often as all answers do.

    Args:
        probabilities: (N, K) out of fold.
        labels: (N,) int in [0, K), as they are in the data.

    Returns:
        The counts; None where nothing speaks against the labels, or the answers are too few or too poor to judge them.
    """
    count = int(SUREST * len(labels))
    if count < FEWEST:
        return None
    wrong = probabilities.argmax(axis=1) != labels
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")[:count]
    found = LabelNoise(num_sure=count, num_contradicted=int(wrong[surest].sum()))
    if wrong.mean() > MOST_WRONG or found.share < AS_OFTEN * wrong.mean():
        return None
    low, _ = clopper_pearson(found.num_contradicted, count)
    return found if low > LEAST_WRONG else None
