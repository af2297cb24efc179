"""Where a training's batches come from: tokens, or the frozen layers' states of each block, computed once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headstart.backbones.causal import CausalBackbone
from headstart.language.packing import NO_TARGET, Blocks
from headstart.tuning.inputs import Batch
from headstart.tuning.training import TrainingSet

# States are kept while a fit runs, where they leave most of the disk free.
MOST_OF_DISK = 0.25
BLOCKS_AT_ONCE = 8
LARGEST_HALF = 6e4
"""Numbers beyond this are no half-precision ones; some models have states so large."""


@dataclass(frozen=True, kw_only=True)
class TokenBatches:
    """Tokens, for a network that trains as a whole."""

    blocks: Blocks

    def load(self, ids: Sequence[str], view: int | None) -> Batch:
        """Tokens and what follows them; they have no views."""
        rows = _rows(ids)
        return self.blocks.read[rows], self.blocks.following[rows]


@dataclass(frozen=True, kw_only=True)
class KeptStates:
    """States at a cut that were computed once."""

    states: np.ndarray
    """(N, T, H) float16 or float32, on disk."""
    blocks: Blocks

    def load(self, ids: Sequence[str], view: int | None) -> Batch:
        """States and the tokens that follow."""
        rows = _rows(ids)
        return self.states[rows].astype(np.float32), self.blocks.following[rows]


@dataclass(frozen=True, kw_only=True)
class ComputedStates:
    """States at a cut that are computed anew each time."""

    backbone: CausalBackbone
    first: int
    blocks: Blocks

    def load(self, ids: Sequence[str], view: int | None) -> Batch:
        """States and the tokens that follow."""
        rows = _rows(ids)
        return _run(self.backbone, self.first, self.blocks.read[rows]), self.blocks.following[rows]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What a training of a strategy reads, and how it came about."""

    train: TrainingSet
    watch: TrainingSet
    told: str
    """In words, for the report."""


def make_batches(
    backbone: CausalBackbone, train: Blocks, watch: Blocks, *, first: int | None, folder: Path, passes: int
) -> Batches:
    """Make the batches of a training ready.

    Args:
        backbone: whose layers before the cut are run.
        train: blocks to learn from.
        watch: blocks that end the training.
        first: the number of the first layer that trains; None where everything does.
        folder: for the states that are kept.
        passes: epochs at most; one alone does not repay keeping.

    Returns:
        The batches.
    """
    if first is None:
        return _batches(
            TokenBatches(blocks=train), TokenBatches(blocks=watch), train, watch, "nothing is frozen before the cut"
        )
    size = (len(train) + len(watch)) * train.read.shape[1] * backbone.info.width * 2
    room = MOST_OF_DISK * shutil.disk_usage(folder).free
    if passes < 2 or size > room:
        why = "one epoch alone does not repay keeping them" if passes < 2 else f"they would take {size / 1e9:.1f} GB"
        told = f"the states before layer {first} are computed anew in each epoch: {why}"
        computed = [ComputedStates(backbone=backbone, first=first, blocks=blocks) for blocks in (train, watch)]
        return _batches(computed[0], computed[1], train, watch, told)
    kept = [_keep(backbone, first, blocks, folder / f"states-{name}") for name, blocks in (("train", train), ("watch", watch))]
    told = f"the states before layer {first} were computed once: {size / 1e6:.1f} MB"
    return _batches(kept[0], kept[1], train, watch, told)


def _batches(
    train_inputs: TokenBatches | KeptStates | ComputedStates,
    watch_inputs: TokenBatches | KeptStates | ComputedStates,
    train: Blocks,
    watch: Blocks,
    told: str,
) -> Batches:
    return Batches(train=_as_set(train_inputs, train), watch=_as_set(watch_inputs, watch), told=told)


def _as_set(inputs: TokenBatches | KeptStates | ComputedStates, blocks: Blocks) -> TrainingSet:
    counted = (blocks.following != NO_TARGET).astype(np.float32)
    return TrainingSet(inputs=inputs, ids=tuple(str(row) for row in range(len(blocks))), targets=counted)


def _keep(backbone: CausalBackbone, first: int, blocks: Blocks, path: Path) -> KeptStates:
    """Compute all states once, as half-precision numbers where all of them are such."""
    for precision in (np.float16, np.float32):
        shape = (*blocks.read.shape, backbone.info.width)
        states = np.memmap(path, precision, "w+", shape=shape)
        fits = True
        for start in range(0, len(blocks), BLOCKS_AT_ONCE):
            found = _run(backbone, first, blocks.read[start : start + BLOCKS_AT_ONCE])
            fits = precision == np.float32 or float(np.abs(found).max()) < LARGEST_HALF
            if not fits:
                break
            states[start : start + BLOCKS_AT_ONCE] = found
        if fits:
            # The file has no name any more, and is gone when nobody reads it.
            path.unlink()
            return KeptStates(states=states, blocks=blocks)
    raise RuntimeError("states in single precision always fit")


def _run(backbone: CausalBackbone, first: int, read: np.ndarray) -> np.ndarray:
    device = next(backbone.network.parameters()).device
    return backbone.run_to(first, torch.from_numpy(read).to(device)).float().cpu().numpy()


def _rows(ids: Sequence[str]) -> np.ndarray:
    return np.array([int(id_) for id_ in ids], np.int64)
