"""A training under way, as callbacks see and steer it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from headstart.records import AnyTask
from headstart.tuning.inputs import Inputs
from headstart.tuning.network import Trainable
from headstart.tuning.plan import Balance, TuningPlan
from headstart.tuning.tensors import save_tensors


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Items with what is to be learned of them."""

    inputs: Inputs
    ids: tuple[str, ...]
    targets: np.ndarray
    """As `encode_targets` gives them: (N,) int64 classes, (N, K) of 0 and 1, or (N,) values."""
    class_weights: np.ndarray | None = None
    """(K,) how much a sample of each class counts; None for alike."""
    labels: tuple[str, ...] = ()
    """K labels in the order of the targets, for whoever shows them; none where nobody does."""

    def tensors(self, rows: np.ndarray, task: AnyTask) -> torch.Tensor:
        """Targets of some items, as `make_loss` takes them.

        Args:
            rows: (B,) which items.
            task: what the targets are.
        """
        targets = self.targets[rows]
        return torch.from_numpy(targets if task == "single" else targets.astype(np.float32))

    def sample_weights(self, rows: np.ndarray, balance: Balance) -> np.ndarray:
        """How much each of some items counts in the loss, (B,) float32; all alike unless classes are balanced by weights."""
        if self.class_weights is None or balance != "weights":
            return np.ones(len(rows), np.float32)
        return self.class_weights[self.targets[rows]].astype(np.float32)

    def sample_chances(self, balance: Balance) -> np.ndarray | None:
        """How often each item is drawn, (N,), not normalised; None for each once, unless classes are balanced by drawing."""
        if self.class_weights is None or balance != "sampler":
            return None
        return self.class_weights[self.targets]


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

    network: Trainable
    task: AnyTask
    plan: TuningPlan
    optimiser: torch.optim.Optimizer
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
    micro_batch: int = 0
    """Samples that go through the network at once; the plan's batch, halved each time memory runs out."""
    history: list[dict[str, Any]] = field(default_factory=list)
    num_batches: int = 0
    """Steps of the optimiser in an epoch."""
    is_main_process: bool = True
    """Whether this process is the one that writes files, where several train together."""

    def __post_init__(self) -> None:
        """Begin with whole batches."""
        self.micro_batch = self.micro_batch or self.plan.batch_size

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

    def zero_gradients(self) -> None:
        """Forget the last step's gradients, those of weights that no longer train included."""
        for parameter in self.network.parameters():
            parameter.grad = None

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of all weights and statistics, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Take up weights that `weights` gave."""
        self.network.load_state_dict(weights)

    def save_weights(self, path: Path) -> None:
        """Write the weights to a .safetensors file."""
        save_tensors({name: tensor.contiguous() for name, tensor in self.weights().items()}, path)

    def load_weights(self, path: Path) -> None:
        """Read the weights that `save_weights` wrote."""
        self.set_weights(load_file(path))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Run the network as it will predict: in evaluation mode, without gradients; its mode is put back afterwards."""
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.network.train(was_training)

    def run(self, state: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Scores (B, K) of states (B, …) and pooled features (B, P) that are anywhere."""
        device = next(self.network.parameters()).device
        return self.network(state.to(device), pooled.to(device))

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


def in_batches(rows: np.ndarray, size: int, *, fewest: int = 1) -> list[np.ndarray]:
    """Split rows into batches; what is left over joins the batch before it where it is too little for one of its own.

    Args:
        rows: (N,) in order.
        size: B, of every batch but the last.
        fewest: rows that a batch must have, so that each of several processes gets one. It must have two in any case, since
            the statistics of a single sample are none; save where B is 1.

    Returns:
        Batches that together are the rows, in order.
    """
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(batches) > 1 and len(batches[-1]) < max(min(2, size), fewest):
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def in_parts(count: int, most: int) -> list[np.ndarray]:
    """Split a batch into parts as equal as can be.

    Args:
        count: of the batch's samples.
        most: samples that a part may have.

    Returns:
        Positions in the batch, by part.
    """
    return np.array_split(np.arange(count), math.ceil(count / most))
