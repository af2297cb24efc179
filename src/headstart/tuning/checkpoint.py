"""Checkpoints: all that a training needs to go on as if it had never stopped, written whole at each epoch's end.

Everything random is drawn from the seed, the epoch and the batch, so no generator's state is kept.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart import runtime
from headstart.errors import TuningError
from headstart.tuning.averaging import WeightAverage
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.training import Training


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training keeps its state, and what it is a training of."""

    path: Path
    about: Mapping[str, str]
    """What must be the same to go on: backbone, strategy, data, plan, …; in words that a message can show."""
    resume: bool = False
    """Whether to go on from the file, if it is there."""


def write_checkpoint(
    checkpoint: Checkpoint,
    training: Training,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    callbacks: Sequence[Callback],
) -> None:
    """Write the state after an epoch, in place of that of the epoch before.

    Raises:
        TuningError: if it cannot be written.
    """
    state = {
        "about": dict(checkpoint.about),
        "epoch": training.epoch,
        "weights": training.weights(),
        "optimiser": optimiser.state_dict(),
        "average": None if average is None else average.state(),
        "history": training.history,
        "rate_factor": training.rate_factor,
        "fixed_rate": training.fixed_rate,
        "stop_training": training.stop_training,
        "why_stopped": training.why_stopped,
        "callbacks": [[type(callback).__name__, callback.state()] for callback in callbacks],
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    runtime.atomic_write_bytes(checkpoint.path, stream.getvalue(), error=TuningError)


def read_checkpoint(
    checkpoint: Checkpoint,
    training: Training,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    callbacks: Sequence[Callback],
) -> bool:
    """Go on from a checkpoint, if one is there and is wanted.

    Returns:
        Whether it did.

    Raises:
        TuningError: if the file cannot be read, or is of another training; it names both.
    """
    if not (checkpoint.resume and checkpoint.path.is_file()):
        return False
    try:
        # Tensors and plain values only: nothing in the file is run.
        state: dict[str, Any] = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the unpickler met
        raise TuningError(
            f"the checkpoint {checkpoint.path} cannot be read: {str(error).splitlines()[0][:200]}",
            expected="a checkpoint as this version writes it.",
            mend="begin again, without --resume.",
        ) from error
    _refuse_other(checkpoint, state["about"])
    training.set_weights(state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    if average is not None:
        average.restore(state["average"])
    for name in ("epoch", "history", "rate_factor", "fixed_rate", "stop_training", "why_stopped"):
        setattr(training, name, state[name])
    kept = list(state["callbacks"])
    for callback in callbacks:
        # A callback may be added or left out between the runs; the others find their own state again.
        found = next((entry for entry in kept if entry[0] == type(callback).__name__), None)
        if found is not None:
            kept.remove(found)
            callback.restore(found[1])
    return True


def _refuse_other(checkpoint: Checkpoint, about: Mapping[str, str]) -> None:
    other = [name for name in {**checkpoint.about, **about} if checkpoint.about.get(name) != about.get(name)]
    if other:
        told = "; ".join(f"{name} was {about.get(name)}, and is {checkpoint.about.get(name)}" for name in other)
        raise TuningError(
            f"the checkpoint {checkpoint.path} is of another training: {told}.",
            expected="the same data, backbone and options as when it was written.",
            mend="repeat them, or begin again without --resume.",
        )
