"""The record that an evaluation gives, and the tables in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.evidence.metrics import ClassScores, bin_confidences, smooth_ties
from headstart.records import Task


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the items that a model did not learn from say about it."""

    task: Task
    num_items: int
    metrics: dict[str, float]
    """By the names of `fit --json`: accuracy, macro_f1, log_loss, ece; or the multi and value tasks' own."""
    intervals: dict[str, list[float]]
    """[low, high], 95 %, for each of the metrics."""
    basis: str
    """What the numbers rest on, in words: '129 test items', …"""
    labels: tuple[str, ...] = ()
    per_class: tuple[dict[str, Any], ...] = ()
    """label, precision, recall, f1, support of each label; empty for the value task."""
    confusion: np.ndarray | None = None
    """(K, K) int64, rows are the truth; single task only."""
    reliability: tuple[dict[str, float], ...] = ()
    """confidence, accuracy, count of each of up to 15 bins of equal mass; single task only."""
    majority: dict[str, Any] | None = None
    """The best constant answer: the most frequent label of these items, and its share of them (accuracy); single task only."""
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Names of items that were given and could not be used."""

    def as_json(self) -> dict[str, Any]:
        """The `test` object of `fit --json`: each metric, each followed by its `_ci95`."""
        entries: dict[str, Any] = {}
        for name, value in self.metrics.items():
            entries[name] = value
            entries[f"{name}_ci95"] = list(self.intervals[name])
        return entries

    def as_report(self) -> dict[str, Any]:
        """The `evaluation` object of report.json, ready for `json.dump`."""
        entries: dict[str, Any] = {
            "basis": self.basis,
            "metrics": dict(self.metrics),
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
        }
        if self.per_class:
            entries["per_class"] = [dict(row) for row in self.per_class]
        if self.confusion is not None:
            entries["confusion"] = {"labels": list(self.labels), "counts": self.confusion.tolist()}
        if self.reliability:
            entries["reliability"] = [dict(row) for row in self.reliability]
        if self.majority is not None:
            entries["majority"] = dict(self.majority)
        return entries


def tabulate_classes(scores: ClassScores, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Put each label's scores in a row.

    Args:
        scores: of K labels.
        names: the K labels, in the same order.

    Returns:
        label, precision, recall, f1 and support of each.
    """
    return tuple(
        {
            "label": name,
            "precision": float(scores.precision[index]),
            "recall": float(scores.recall[index]),
            "f1": float(scores.f1[index]),
            "support": int(scores.support[index]),
        }
        for index, name in enumerate(names)
    )


def tabulate_reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[dict[str, float], ...]:
    """Compare how sure the model was with how often it was right, in the bins of `bin_confidences`.

    Args:
        probabilities: (N, K) in [0, 1], rows sum to 1.
        labels: (N,) int in [0, K), the truth.

    Returns:
        The mean confidence, the accuracy and the count of each bin, least confident first.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = smooth_ties(confidence, probabilities.argmax(axis=1) == labels)
    return tuple(
        {"confidence": float(confidence[items].mean()), "accuracy": float(correct[items].mean()), "count": len(items)}
        for items in bin_confidences(confidence)
    )
