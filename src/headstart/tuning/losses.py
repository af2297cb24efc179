"""What a training lowers, by task; one loss a sample, so that samples can weigh differently and be mixed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from headstart.records import AnyTask

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From scores (B, K) and targets to (B,) losses."""
# The perplexity of a loss above this is no number that a float holds.
MOST_NATS = 700.0


def make_loss(task: AnyTask, *, label_smoothing: float = 0.0, scale: float = 1.0) -> Loss:
    """Make the loss of a task.

    Args:
        task: 'single' takes (B,) int64 classes and gives the cross-entropy in nats; 'multi' takes (B, K) of 0 and 1 and gives
            the mean binary cross-entropy; 'value' takes (B,) numbers and gives the squared error in units of `scale`;
            'generate' takes token losses (B, T) for scores and says with (B, T) of 0 and 1 which count.
        label_smoothing: of the single task, in [0, 1).
        scale: standard deviation of the training values, of the value task; of the generate task, the mean number of tokens
            that count in a sample, so that the mean over samples is the mean over tokens.

    Returns:
        The loss.
    """

    def cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores, targets, label_smoothing=label_smoothing, reduction="none")

    def yes_or_no(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean(dim=1)

    def squared_error(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((scores[:, 0] - targets) / scale) ** 2

    def of_tokens(losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        return (losses * counted).sum(dim=1) / scale

    return {"single": cross_entropy, "multi": yes_or_no, "value": squared_error, "generate": of_tokens}[task]


def scale_of(task: AnyTask, targets: np.ndarray) -> float:
    """The scale that `make_loss` takes, of some targets; 1 where the task has none."""
    match task:
        case "value":
            return float(targets.std()) or 1.0
        case "generate":
            return float(targets.sum(axis=1).mean()) or 1.0
    return 1.0


def count_right(task: AnyTask, scores: torch.Tensor, targets: torch.Tensor) -> float:
    """How much of a batch is right, summed over its samples.

    Args:
        task: of the targets.
        scores: (B, K).
        targets: as `make_loss` takes them.

    Returns:
        Right labels (single), right shares of yes-or-no answers (multi), or negative squared errors (value); nothing
        (generate): there only the loss tells.
    """
    match task:
        case "single":
            return float((scores.argmax(dim=1) == targets).sum())
        case "multi":
            return float(((scores > 0) == (targets > 0.5)).float().mean(dim=1).sum())
        case "value":
            return -float(((scores[:, 0] - targets) ** 2).sum())
        case "generate":
            return 0.0


def score_of(task: AnyTask, loss: float, right: float) -> dict[str, float]:
    """What a validation is told by, beside its loss.

    Args:
        task: of the targets.
        loss: mean over the samples.
        right: mean of what `count_right` counts.
    """
    match task:
        case "value":
            return {"valid_rmse": math.sqrt(-right)}
        case "generate":
            return {"valid_perplexity": math.exp(min(loss, MOST_NATS))}
    return {"valid_accuracy": right}
