"""From which probability on a label is given; learned from out-of-fold scores, as the temperatures are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.heads.temperature import fit_label_temperatures, sigmoid, trust_in_labels


@dataclass(frozen=True, kw_only=True)
class LabelCalibration:
    """How the scores of a multi-label head become probabilities and answers."""

    temperatures: np.ndarray
    """(K,) float64: `sigmoid(score / temperature)` is the label's probability."""
    thresholds: np.ndarray
    """(K,) float64 in (0, 1): the label is given from this probability on."""


def fit_label_calibration(scores: np.ndarray, targets: np.ndarray) -> LabelCalibration:
    """Fit each label's temperature and threshold on out-of-fold scores of a multi-label head.

    A rare label's own threshold would fit the accident of its few positive items, so it is drawn toward 0.5 by the weight
    n / (n + 10) for n positive items, as its temperature is toward that of all labels (`fit_label_temperatures`).

    Args:
        scores: (N, K) float, finite, each row from a model that did not see the item.
        targets: (N, K) bool, the truth.

    Returns:
        Temperatures > 0 and thresholds in (0, 1).

    Raises:
        DataError: if shapes disagree, there is no item, or a score is not finite.
    """
    temperatures, targets = fit_label_temperatures(scores, targets), np.asarray(targets, dtype=bool)
    best = np.array(
        [
            _best_threshold(sigmoid(scores[:, label] / temperatures[label]), targets[:, label])
            for label in range(scores.shape[1])
        ]
    )
    return LabelCalibration(temperatures=temperatures, thresholds=0.5 + trust_in_labels(targets) * (best - 0.5))


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
