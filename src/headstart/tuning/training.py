"""A training under way, as callbacks see and steer it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.records import Task
from headstart.tuning.inputs import Inputs
from headstart.tuning.network import TunableNetwork
from headstart.tuning.plan import TuningPlan


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Items with what is to be learned of them."""

    inputs: Inputs
    ids: tuple[str, ...]
    targets: np.ndarray
    """As `encode_targets` gives them: (N,) int64 classes, (N, K) of 0 and 1, or (N,) values."""
    class_weights: np.ndarray | None = None
    """(K,) how much a sample of each class counts; None for alike."""


@dataclass(frozen=True, kw_only=True)
class ValidationData:
    """The validation items, as callbacks see them."""

    ids: tuple[str, ...]
    targets: np.ndarray
    inputs: Inputs

    def first(self, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of the first items: state (B, …) and pooled features (B, P), to call the network with."""
        state, pooled = self.inputs.load(self.ids[:count], None)
        return torch.from_numpy(state), torch.from_numpy(pooled)


@dataclass
class Training:
    """The network in training, and the switches that callbacks may turn."""

    network: TunableNetwork
    task: Task
    plan: TuningPlan
    labels: tuple[str, ...] = ()
    epoch: int = 0
    stop_training: bool = False
    why_stopped: str = ""
    rate_factor: float = 1.0
    """What every learning rate of the plan's schedule is multiplied by; changed by callbacks."""
    fixed_rate: float | None = None
    """The head's learning rate, where a callback overrules the schedule; the blocks' stay in proportion."""
    scheduled_rate: float = 0.0
    """The head's learning rate by the schedule at the last step, before factor and overruling."""
    history: list[dict[str, Any]] = field(default_factory=list)
    optimiser: torch.optim.Optimizer | None = None

    @property
    def learning_rate(self) -> float:
        """The head's learning rate; setting it overrules the schedule from the next step on."""
        return self.fixed_rate if self.fixed_rate is not None else self.scheduled_rate * self.rate_factor

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.fixed_rate = float(value)

    def stop(self, why: str) -> None:
        """End the training after this epoch (after this batch, if called there).

        Args:
            why: in words, for the report.
        """
        self.stop_training = True
        self.why_stopped = self.why_stopped or why

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of all weights and statistics, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Take up weights that `weights` gave."""
        self.network.load_state_dict(weights)

    def save_weights(self, path: Path) -> None:
        """Write the weights to a .safetensors file."""
        save_file({name: tensor.contiguous() for name, tensor in self.weights().items()}, path)

    def load_weights(self, path: Path) -> None:
        """Read the weights that `save_weights` wrote."""
        self.set_weights(load_file(path))

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module without children, with its name."""
        return ((name, module) for name, module in self.network.named_modules() if not list(module.children()))


def epoch_order(count: int, *, seed: int, epoch: int, weights: np.ndarray | None = None) -> np.ndarray:
    """The order in which an epoch goes through its samples: the same for the same seed and epoch.

    Args:
        count: N.
        seed: of the training.
        epoch: counted from 0.
        weights: (N,) chance of each sample, not normalised, where rare classes are drawn more often; None for each once.

    Returns:
        (N,) int64 rows.
    """
    random = np.random.default_rng([seed, epoch])
    if weights is None:
        return random.permutation(count)
    return random.choice(count, count, p=weights / weights.sum())


def in_batches(rows: Sequence[int] | np.ndarray, size: int) -> list[np.ndarray]:
    """Split rows into batches; a single row left over joins the batch before it, because statistics of one are none."""
    rows = np.asarray(rows)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
