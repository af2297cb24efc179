"""Averages of weights along a training: the running one (EMA) and that of the last epochs (SWA)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headstart.tuning.plan import TuningPlan

# The share of the epochs, at the end, that SWA averages (Izmailov et al. 2018, arXiv 1803.05407, use the last quarter).
LAST_EPOCHS = 0.25


class WeightAverage:
    """A running mean of a network's floating-point weights and statistics."""

    def __init__(self, network: nn.Module, plan: TuningPlan) -> None:
        self._plan = plan
        self._count = 0
        self._mean = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def after_batch(self, network: nn.Module) -> None:
        """Take the weights in after a step, if the average is a running one."""
        if self._plan.averaging == "ema":
            self._count += 1
            # In the first steps the average would be mostly the weights it began with.
            decay = min(self._plan.ema_decay, (1 + self._count) / (10 + self._count))
            self._move(network, 1 - decay)

    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """Take the weights in after an epoch, if the average is one of the last epochs."""
        if self._plan.averaging != "swa":
            return
        first = self._plan.epochs - max(1, round(LAST_EPOCHS * self._plan.epochs))
        self._count = self._count + 1 if epoch >= first else 0
        self._move(network, 1 / max(self._count, 1))

    def weights(self) -> dict[str, torch.Tensor]:
        """The average, by name."""
        return self._mean

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self._count, "mean": self._mean}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._count = state["count"]
        for name, tensor in self._mean.items():
            tensor.copy_(state["mean"][name])

    def _move(self, network: nn.Module, share: float) -> None:
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if tensor.is_floating_point():
                    self._mean[name].lerp_(tensor, share)
                else:
                    self._mean[name].copy_(tensor)


def make_average(network: nn.Module, plan: TuningPlan) -> WeightAverage | None:
    """The average a plan asks for, or None."""
    return None if plan.averaging == "none" else WeightAverage(network, plan)


def interpolated(start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Weights between two sets of them.

    Args:
        start: by name.
        end: of the same names.
        share: of `end`, in [0, 1].

    Returns:
        (1 - share) start + share end; what is no floating-point number comes from `end`.
    """
    if share == 1.0:
        return dict(end)
    return {
        name: torch.lerp(start[name].to(tensor.device), tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in end.items()
    }
