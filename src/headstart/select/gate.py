"""The gate: a tuned model replaces the floor only where it is better beyond doubt, on items that chose nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.evidence.intervals import paired_bootstrap
from headstart.records import Task


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a tuned model did against the floor on the same items."""

    passed: bool
    floor_score: float
    tuned_score: float
    """Mean accuracy, mean share of right yes-or-no answers, or negative squared error in units of the targets' variance."""
    gain: float
    low: float
    high: float
    """The gain's 95 % interval, by a paired bootstrap over items (over groups where there are some)."""
    num_items: int
    basis: str
    """Which items, in words."""

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @property
    def told(self) -> str:
        """In words."""
        measured = f"{self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}] on {self.basis}"
        return f"gain {measured}: " + ("better beyond doubt" if self.passed else "not better beyond doubt")


def hold_gate(
    tuned: np.ndarray, floor: np.ndarray, targets: np.ndarray, task: Task, *, groups: np.ndarray | None, seed: int, basis: str
) -> Verdict:
    """Compare the answers of two models to the same items.

    Args:
        tuned: (N, K) answers of the tuned model, to items it neither learned from nor was chosen by.
        floor: (N, K) answers of the floor, likewise.
        targets: as `encode_targets` gives them.
        task: what the answers tell.
        groups: (N,) group of each item, if any has one; groups are drawn as a whole.
        seed: of the bootstrap.
        basis: which items, in words.

    Returns:
        The verdict.
    """
    marks = [item_scores(answers, targets, task) for answers in (tuned, floor)]
    if groups is not None:
        # A group's items rise and fall together, so it is one draw, of the sum of its items.
        names, place = np.unique(groups, return_inverse=True)
        marks = [np.bincount(place, mark) * len(names) / len(targets) for mark in marks]
    gain, low, high = paired_bootstrap(marks[0], marks[1], seed)
    tuned_score, floor_score = (float(mark.mean()) for mark in marks)
    return Verdict(
        passed=low > 0,
        floor_score=floor_score,
        tuned_score=tuned_score,
        gain=gain,
        low=low,
        high=high,
        num_items=len(targets),
        basis=basis,
    )


def item_scores(answers: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    """How right each answer is, higher better: (N,) float64."""
    match task:
        case "single":
            return (answers.argmax(axis=1) == targets).astype(np.float64)
        case "multi":
            return ((answers > 0.5) == (targets > 0.5)).mean(axis=1, dtype=np.float64)
        case "value":
            return -((answers[:, 0] - targets) ** 2) / max(float(targets.var()), 1e-300)
