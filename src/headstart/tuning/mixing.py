"""Mixup and CutMix: two samples of a batch made into one, with the targets of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from headstart.backbones.flow import channel_axis
from headstart.tuning.losses import Loss
from headstart.tuning.plan import TuningPlan

Inputs = tuple[torch.Tensor, ...]
PartLoss = Callable[[torch.Tensor, np.ndarray], torch.Tensor]
"""From the scores of some rows of a batch, and those rows, to their losses."""


def mix(
    inputs: Inputs, targets: torch.Tensor, loss: Loss, plan: TuningPlan, random: np.random.Generator
) -> tuple[Inputs, PartLoss]:
    """Mix the samples of a batch in pairs, if the plan says so.

    Where the inputs are states at a cut, they are what is mixed (Verma et al. 2019, arXiv 1806.05236).

    Args:
        inputs: state (B, …) and pooled features (B, P).
        targets: (B, …).
        loss: of scores and targets.
        plan: with the strength of mixup (Zhang et al. 2018, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899).
        random: draws pairs, shares and boxes.

    Returns:
        The inputs to use, and how to tell the loss.
    """
    if not plan.mixup and not plan.cutmix:
        return inputs, lambda scores, part: loss(scores, targets[part].to(scores.device))
    partner = torch.from_numpy(random.permutation(len(targets)))
    box = bool(plan.cutmix) and inputs[0].ndim == 4 and (not plan.mixup or random.random() < 0.5)
    strength = plan.cutmix if box else plan.mixup or plan.cutmix
    share = float(random.beta(strength, strength))
    if box:
        mixed, share = _with_box(inputs, partner, share, random)
    else:
        mixed = tuple(share * part + (1 - share) * part[partner] for part in inputs)

    def lossy(scores: torch.Tensor, part: np.ndarray) -> torch.Tensor:
        own, others = targets[part].to(scores.device), targets[partner[part]].to(scores.device)
        return share * loss(scores, own) + (1 - share) * loss(scores, others)

    return mixed, lossy


def _with_box(inputs: Inputs, partner: torch.Tensor, share: float, random: np.random.Generator) -> tuple[Inputs, float]:
    """Paste a box of the partner's map, and give the share that is left of each sample's own."""
    state, *pooled = inputs
    first = 1 if channel_axis(tuple(state.shape[1:])) == 2 else 2  # Swin's kin have their channels last
    high, wide = state.shape[first : first + 2]
    sides = [max(1, round(float(np.sqrt(1 - share)) * length)) for length in (high, wide)]
    top, left = (int(random.integers(0, length - side + 1)) for length, side in zip((high, wide), sides, strict=True))
    pasted = state.clone()
    where = (*[slice(None)] * first, slice(top, top + sides[0]), slice(left, left + sides[1]))
    pasted[where] = state[partner][where]
    kept = 1 - sides[0] * sides[1] / (high * wide)
    return (pasted, *(kept * part + (1 - kept) * part[partner] for part in pooled)), kept
