"""Checkpoints: all that a training needs to go on as if it had never stopped, written whole at an epoch's end.

Everything random is drawn from the seed, the epoch and the batch's number, so no generator's state is kept.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart import runtime
from headstart.errors import TuningError
from headstart.tuning.averaging import WeightAverage
from headstart.tuning.callbacks.base import Callback, call
from headstart.tuning.training import Training

DIGEST_BYTES = 32
# What a training has come to, besides weights and optimiser.
PROGRESS = ("epoch", "micro_batch", "scheduled_rate", "rate_factor", "fixed_rate", "stop_training", "why_stopped", "history")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training keeps its state, and what it is a training of."""

    path: Path
    about: Mapping[str, str]
    """What must be the same to go on: backbone, strategy, data, plan, …; in words that a message can show."""
    resume: bool = False
    """Whether to go on from the file, if it is there."""
    every: int = 1
    """Epochs from one writing to the next; the last epoch is written in any case."""


def write_checkpoint(
    checkpoint: Checkpoint, training: Training, average: WeightAverage | None, callbacks: Sequence[Callback]
) -> None:
    """Write the state after an epoch, in place of that of the epoch before.

    Args:
        checkpoint: where to.
        training: with weights and optimiser.
        average: of the weights, if there is one.
        callbacks: whose state is kept.

    Raises:
        TuningError: if it cannot be written, or a callback's state or what it put into the logs cannot be kept.
    """
    state = {
        "about": dict(checkpoint.about),
        "weights": training.weights(),
        "optimiser": training.optimiser.state_dict(),
        "average": None if average is None else average.state(),
        "callbacks": [[type(callback).__name__, _state_of(callback)] for callback in callbacks],
        **{name: getattr(training, name) for name in PROGRESS},
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getvalue()
    checkpoint.path.parent.mkdir(parents=True, exist_ok=True)
    # A flipped bit in a weight would train on unnoticed.
    runtime.atomic_write_bytes(checkpoint.path, hashlib.sha256(content).digest() + content, error=TuningError)


def read_checkpoint(
    checkpoint: Checkpoint, training: Training, average: WeightAverage | None, callbacks: Sequence[Callback]
) -> bool:
    """Go on from a checkpoint, if one is there and is wanted.

    Args:
        checkpoint: where from.
        training: takes up weights, optimiser and progress.
        average: of the weights, if the plan has one.
        callbacks: take up the state of those of the same class, in order.

    Returns:
        Whether it did.

    Raises:
        TuningError: if the file cannot be read, or is of another training; it names both.
    """
    if not (checkpoint.resume and checkpoint.path.is_file()):
        return False
    try:
        state = _read_whole(checkpoint.path)
        about = dict(state["about"])
    except Exception as error:  # torch raises whatever the unpickler met
        raise _unreadable(checkpoint, error) from error
    _refuse_other(checkpoint, about)
    try:
        training.set_weights(state["weights"])
        training.optimiser.load_state_dict(state["optimiser"])
        if average is not None:
            average.restore(state["average"])
        for name in PROGRESS:
            setattr(training, name, state[name])
        kept = list(state["callbacks"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # RuntimeError is load_state_dict's
        raise _unreadable(checkpoint, error) from error
    for callback in callbacks:
        # A callback may be added or left out between the runs; the others find their own state again.
        place = next((place for place, (name, _) in enumerate(kept) if name == type(callback).__name__), None)
        if place is not None:
            call(callback, "restore", kept.pop(place)[1])
    return True


def _read_whole(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
        raise ValueError("its sha256 is another than when it was written")
    # Tensors and plain values only: nothing in the file is run.
    return torch.load(io.BytesIO(content[DIGEST_BYTES:]), map_location="cpu", weights_only=True)


def _state_of(callback: Callback) -> Any:  # noqa: ANN401 - plain values of any shape
    return _plain(call(callback, "state"), f"the state of the callback {type(callback).__name__}")


def _plain(value: Any, where: str) -> Any:  # noqa: ANN401 - as above
    """Make sure that a value can be read back from a checkpoint without running any code.

    Args:
        value: None, numbers, texts, tensors, and lists and dicts of these.
        where: it is, for the message.

    Returns:
        The value, with numpy's numbers as Python's and tuples as lists.

    Raises:
        TuningError: if there is anything else in it.
    """
    match value:
        case np.generic():
            return value.item()
        case None | bool() | int() | float() | str() | torch.Tensor():
            return value
        case list() | tuple():
            return [_plain(part, where) for part in value]
        case dict():
            return {_plain(name, where): _plain(part, where) for name, part in value.items()}
    raise TuningError(
        f"{where} cannot be kept in a checkpoint: there is a {type(value).__name__} in it.",
        expected="None, numbers, texts, tensors, and lists and dicts of these.",
        mend="convert it, as with array.tolist().",
    )


def _unreadable(checkpoint: Checkpoint, error: Exception) -> TuningError:
    told = " ".join(str(error).split())[:200]
    return TuningError(
        f"the checkpoint {checkpoint.path} cannot be read: {type(error).__name__}: {told}",
        expected="a checkpoint as this version writes it.",
        mend="begin again, without --resume.",
    )


def _refuse_other(checkpoint: Checkpoint, about: Mapping[str, str]) -> None:
    other = [name for name in {**checkpoint.about, **about} if checkpoint.about.get(name) != about.get(name)]
    # Another backbone or other data make most of the rest other, too.
    other = [name for name in other if name in ("backbone", "data", "seed")] or other
    if other:
        told = "; ".join(f"{name} was {about.get(name)}, and is {checkpoint.about.get(name)}" for name in other)
        raise TuningError(
            f"the checkpoint {checkpoint.path} is of another training: {told}.",
            expected="the same data, backbone and options as when it was written.",
            mend="repeat them, or begin again without --resume.",
        )
