"""From a head's scores to what a model says: temperatures and thresholds, fitted on items the head did not learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.evidence.calibration import fit_label_calibration
from headstart.heads.temperature import fit_temperature, sigmoid, softmax
from headstart.records import Task


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From a head's scores to what a model says."""

    temperatures: np.ndarray
    """(K,) float64, > 0; all equal for the single task, ones for the value task."""
    thresholds: np.ndarray
    """(K,) float64: from which probability a label is given, for the multi task."""

    def answers(self, scores: np.ndarray, task: Task) -> np.ndarray:
        """What scores say.

        Args:
            scores: (N, K).
            task: what they tell.

        Returns:
            (N, K) float64: probabilities (single: rows sum to 1; multi: one a label), or (N, 1) values.
        """
        scores = scores.astype(np.float64) / self.temperatures
        match task:
            case "single":
                return softmax(scores)
            case "multi":
                return sigmoid(scores)
            case "value":
                return scores


def calibrate(
    scores: np.ndarray, truth: np.ndarray, *, task: Task, num_labels: int, known: np.ndarray | None = None
) -> Calibration:
    """Fit temperature, and thresholds for the multi task, on scores of items that were not learned from.

    Args:
        scores: (N, K) before any temperature.
        truth: their targets, as `encode_targets` gives them.
        task: what the scores tell.
        num_labels: K.
        known: (N,) bool, the items to fit on (see `heads.folds.known_rows`); all of them if left out.
    """
    if known is not None and not known.all():
        scores, truth = scores[known], truth[known]
    match task:
        case "single":
            temperatures = np.full(num_labels, fit_temperature(scores, truth))
            return Calibration(temperatures=temperatures, thresholds=np.full(num_labels, 0.5))
        case "multi":
            found = fit_label_calibration(scores, truth > 0.5)
            return Calibration(temperatures=found.temperatures, thresholds=found.thresholds)
        case "value":
            return Calibration(temperatures=np.ones(1), thresholds=np.full(1, 0.5))
