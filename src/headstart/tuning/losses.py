"""What a training lowers, by task; one loss a sample, so that samples can weigh differently and be mixed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from headstart.records import Task

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From scores (B, K) and targets to (B,) losses."""


def make_loss(task: Task, *, label_smoothing: float = 0.0, scale: float = 1.0) -> Loss:
    """Make the loss of a task.

    Args:
        task: 'single' takes (B,) int64 classes and gives the cross-entropy in nats; 'multi' takes (B, K) of 0 and 1 and gives
            the mean binary cross-entropy; 'value' takes (B,) numbers and gives the squared error in units of `scale`.
        label_smoothing: of the single task, in [0, 1).
        scale: standard deviation of the training values, of the value task.

    Returns:
        The loss.
    """

    def cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores, targets, label_smoothing=label_smoothing, reduction="none")

    def yes_or_no(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean(dim=1)

    def squared_error(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((scores[:, 0] - targets) / scale) ** 2

    return {"single": cross_entropy, "multi": yes_or_no, "value": squared_error}[task]


def count_right(task: Task, scores: torch.Tensor, targets: torch.Tensor) -> float:
    """How much of a batch is right, summed over its samples.

    Args:
        task: of the targets.
        scores: (B, K).
        targets: as `make_loss` takes them.

    Returns:
        Right labels (single), right shares of yes-or-no answers (multi), or negative squared errors (value).
    """
    match task:
        case "single":
            return float((scores.argmax(dim=1) == targets).sum())
        case "multi":
            return float(((scores > 0) == (targets > 0.5)).float().mean(dim=1).sum())
        case "value":
            return -float(((scores[:, 0] - targets) ** 2).sum())
