"""The optimiser: AdamW with a rate for each block, and how the rates move."""

from __future__ import annotations

import math

import torch

from headstart.tuning.network import Trainable
from headstart.tuning.plan import TuningPlan

# Devices on which torch updates the weights of a group in one sweep, much faster than by one operation after the other.
FUSED = ("cpu", "cuda", "mps")


def make_optimiser(network: Trainable, plan: TuningPlan, *, device: str = "cpu") -> torch.optim.Optimizer:
    """AdamW in groups: the head, then the blocks from the head backwards; matrices decay, biases and norms do not.

    Args:
        network: whose parameters with gradients are optimised.
        plan: with the rates.
        device: type of the one it will work on.
    """
    named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    head = [name for name in named if name.startswith("head.")]
    blocks = [[name for name in block if name in named] for block in reversed(network.blocks())]
    rates = [plan.backbone_rate * plan.block_decay**depth for depth in range(len(blocks))]
    groups = []
    for rate, names in zip([plan.head_rate, *rates], [head, *blocks], strict=True):
        for decays in (True, False):
            chosen = [named[name] for name in names if (named[name].ndim > 1) == decays]
            if chosen:
                share = rate / plan.head_rate
                weight_decay = plan.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": rate, "share": share, "weight_decay": weight_decay})
    return torch.optim.AdamW(groups, fused=device in FUSED)


def learning_rate_share(progress: float, plan: TuningPlan) -> float:
    """The share of its highest value that every rate has: a straight rise, then half a cosine down to 0.

    Args:
        progress: of the whole training, in [0, 1].
        plan: with the share of the steps that the rise takes.
    """
    if progress < plan.warm_up:
        # The first step's rate is not 0: with few steps that one would be lost.
        return (progress + plan.warm_up * 0.1) / (plan.warm_up * 1.1)
    return 0.5 * (1 + math.cos(math.pi * (progress - plan.warm_up) / (1 - plan.warm_up)))


def set_rates(optimiser: torch.optim.Optimizer, head_rate: float) -> None:
    """Give the head this learning rate, and every block its share of it."""
    for group in optimiser.param_groups:
        group["lr"] = head_rate * group["share"]


def unfreeze(network: Trainable, plan: TuningPlan, epoch: int) -> None:
    """Let blocks train by their turn, from the head backwards.

    Args:
        network: whose blocks are switched.
        plan: with the epochs from one block to the next; 0 changes nothing.
        epoch: counted from 0.
    """
    if not plan.unfreeze_every:
        return
    parameters = dict(network.named_parameters())
    for depth, names in enumerate(reversed(network.blocks())):
        for name in names:
            parameters[name].requires_grad_(epoch >= (depth + 1) * plan.unfreeze_every)


def pull_to_source(network: Trainable, source: dict[str, torch.Tensor], strength: float) -> None:
    """Add the gradient of strength / 2 times the squared distance to the source weights (L2-SP), the head's left out.

    Args:
        network: with gradients.
        source: the weights it began with, by name.
        strength: of the pull.
    """
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not name.startswith("head."):
            parameter.grad.add_(parameter.detach() - source[name], alpha=strength)
