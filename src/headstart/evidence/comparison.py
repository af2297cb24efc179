"""A tuned network beside the baseline: the scores of both on the same test items, and the paired difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.evidence.evaluation import Evaluation
from headstart.evidence.intervals import paired_bootstrap
from headstart.records import Task

METRICS: dict[Task, str] = {"single": "accuracy", "multi": "micro_f1", "value": "mae"}
"""The metric that two models are compared by; of `mae` less is better."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A tuned network and the baseline on test items that neither of them used."""

    tuned: Evaluation
    baseline: Evaluation
    gain: tuple[float, float, float] | None
    """How much better the tuned network is in the metric, with its paired 95 % interval (gain, low, high); above 0 is better.
    None for several labels an item, whose metric is no mean over items."""

    @property
    def code(self) -> str | None:
        """'better', 'worse' or 'unsure', by the interval of the gain; None where there is none."""
        if self.gain is None:
            return None
        _, low, high = self.gain
        return "better" if low > 0 else "worse" if high < 0 else "unsure"

    def as_json(self) -> dict[str, Any]:
        """The `tuning.on_test` object of report.json."""
        name = METRICS[self.tuned.task]
        gain, *interval = self.gain or (None,)
        return {
            "metric": name,
            "num_items": self.tuned.num_items,
            "tuned": self.tuned.metrics[name],
            "tuned_ci95": list(self.tuned.intervals[name]),
            "baseline": self.baseline.metrics[name],
            "baseline_ci95": list(self.baseline.intervals[name]),
            "gain": gain,
            "gain_ci95": interval or None,
            "code": self.code,
        }


def item_scores(answers: np.ndarray, truth: np.ndarray, task: Task) -> np.ndarray | None:
    """What each item adds to the metric of `METRICS`, signed so that more is better.

    Args:
        answers: (N, K) calibrated answers.
        truth: (N,) as `encode_targets` gives it.
        task: of the labels.

    Returns:
        (N,) float64: 1 for a right label, else 0; or the negative absolute error. None for several labels an item.
    """
    match task:
        case "single":
            return (answers.argmax(axis=1) == truth).astype(np.float64)
        case "value":
            return -np.abs(answers[:, 0] - truth.reshape(-1))
        case "multi":
            return None


def compare(
    tuned: tuple[Evaluation, np.ndarray | None],
    baseline: tuple[Evaluation, np.ndarray | None],
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> Comparison:
    """Compare a tuned network with the baseline on the same items.

    Args:
        tuned: its evaluation, and its scores by item (`item_scores`).
        baseline: likewise, of the same items in the same order.
        seed: of the bootstrap.
        groups: (N,) group of each item, drawn as a whole; None where no item has one.
    """
    gain = None
    if tuned[1] is not None and baseline[1] is not None:
        gain = paired_bootstrap(tuned[1], baseline[1], seed, groups)
    return Comparison(tuned=tuned[0], baseline=baseline[0], gain=gain)
