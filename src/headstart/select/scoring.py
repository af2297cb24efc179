"""A network's scores of items, and how well they tell the truth. Loads torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headstart.inference import ordered_map
from headstart.records import Task
from headstart.select.gate import mark_items
from headstart.tuning.inputs import Inputs
from headstart.tuning.loop import make_accelerator
from headstart.tuning.network import TunableNetwork
from headstart.tuning.training import TrainingSet


def scores_of(network: TunableNetwork, inputs: Inputs, ids: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
    """A network's scores of some items as they are: (N, K) float64."""
    device = make_accelerator().device
    network.to(device).eval()
    batches = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    with torch.no_grad():
        loaded = ordered_map(lambda few: inputs.load(few, None), batches, num_workers=1)
        parts = [network(*(torch.from_numpy(part).to(device) for part in batch)).float().cpu().numpy() for batch in loaded]
    return np.concatenate(parts).astype(np.float64)


def calibrated_loss(network: TunableNetwork, items: TrainingSet, task: Task) -> float:
    """The mean loss of a network on some items, by which weights are chosen.

    Its scores are calibrated first, as the saved model's will be: a network that trained long is too sure of its answers, and
    by its plain loss the least trained one would seem the best.
    """
    return float(mark_items(scores_of(network, items.inputs, items.ids), items.targets, task).losses.mean())
