"""The gate: a tuned model replaces the floor only where it is better beyond doubt, on items that chose nothing else.

It is judged by the log-loss, as heads and features are: whether an item is right or wrong says so little that two hundred
items can hardly tell a gain of three points from chance, while how sure each answer was of the truth tells much of the same
gain. The accuracy must not be lower for it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.evidence.intervals import paired_bootstrap
from headstart.records import Task
from headstart.select.calibration import calibrate

# What an answer that was sure and wrong costs at most: that of one in a billion.
_LEAST_PROBABILITY = 1e-9


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
    """The score's gain with its 95 % interval, by a paired bootstrap over items (over groups where there are some)."""
    loss: str
    """What it is judged by: 'log-loss' or 'squared error'."""
    floor_loss: float
    tuned_loss: float
    """Mean log-loss in nats (of a label, for the multi task), or squared error in units of the targets' variance."""
    loss_gain: float
    loss_low: float
    loss_high: float
    """By how much the tuned model's loss is lower, likewise; the gate asks that `loss_low` is above 0, and `gain` not below."""
    num_items: int
    basis: str
    """Which items, in words."""
    chosen: bool = False
    """Whether these items chose the tuned weights, too; that they like them is then no proof, and nothing passes."""

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @property
    def told(self) -> str:
        """In words."""
        measured = f"{self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}] on {self.basis}"
        loss = f"{self.loss} lower by {self.loss_gain:.3f} [{self.loss_low:+.3f}, {self.loss_high:+.3f}]"
        if self.chosen and self.loss_low > 0 and self.gain >= 0:
            return f"gain {measured}; {loss}: better, on items that are no proof"
        return f"gain {measured}; {loss}: " + ("better beyond doubt" if self.passed else "not better beyond doubt")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What each item says of a model."""

    scores: np.ndarray
    """(N,) float64, higher better: right or wrong, the share of right yes-or-no answers, or the negative loss."""
    losses: np.ndarray
    """(N,) float64, lower better."""


def hold_gate(
    tuned: np.ndarray, floor: np.ndarray, targets: np.ndarray, task: Task, *, groups: np.ndarray | None, seed: int, basis: str
) -> Verdict:
    """Compare the scores that two models give the same items, each with the temperature that suits it best.

    Args:
        tuned: (N, K) scores of the tuned model, of items it neither learned from nor was chosen by.
        floor: (N, K) scores of the floor, likewise.
        targets: as `encode_targets` gives them.
        task: what the scores tell.
        groups: (N,) group of each item, if any has one; groups are drawn as a whole.
        seed: of the bootstrap.
        basis: which items, in words.

    Returns:
        The verdict.
    """
    ours, theirs = (mark_items(scores, targets, task) for scores in (tuned, floor))
    gain, low, high = paired_bootstrap(ours.scores, theirs.scores, seed, groups)
    if task != "value" and low == high == 0.0:
        high = 1 - 0.05 ** (1 / (len(targets) if groups is None else len(np.unique(groups))))
        low = -high
    loss_gain, loss_low, loss_high = paired_bootstrap(theirs.losses, ours.losses, seed, groups)
    return Verdict(
        passed=loss_low > 0 and gain >= 0,
        floor_score=float(theirs.scores.mean()),
        tuned_score=float(ours.scores.mean()),
        gain=gain,
        low=low,
        high=high,
        loss="squared error" if task == "value" else "log-loss",
        floor_loss=float(theirs.losses.mean()),
        tuned_loss=float(ours.losses.mean()),
        loss_gain=loss_gain,
        loss_low=loss_low,
        loss_high=loss_high,
        num_items=len(targets),
        basis=basis,
    )


def mark_items(scores: np.ndarray, targets: np.ndarray, task: Task) -> Marks:
    """How well a model's scores tell each item's truth, once they are calibrated on these items.

    Args:
        scores: (N, K).
        targets: as `encode_targets` gives them.
        task: what the scores tell.

    Returns:
        Marks of the N items.
    """
    calibration = calibrate(scores, targets, task=task, num_labels=scores.shape[1])
    answers = calibration.answers(scores, task)
    match task:
        case "single":
            right = (answers.argmax(axis=1) == targets).astype(np.float64)
            chances = answers[np.arange(len(targets)), targets]
            return Marks(scores=right, losses=-np.log(np.maximum(chances, _LEAST_PROBABILITY)))
        case "multi":
            truth = targets > 0.5
            right = ((answers >= calibration.thresholds) == truth).mean(axis=1, dtype=np.float64)
            chances = np.maximum(np.where(truth, answers, 1 - answers), _LEAST_PROBABILITY)
            return Marks(scores=right, losses=-np.log(chances).mean(axis=1))
        case "value":
            losses = (answers[:, 0] - targets) ** 2 / max(float(targets.var()), 1e-300)
            return Marks(scores=-losses, losses=losses)
