"""A sound backbone that is open, and its parts as they are compiled and trained: windows of samples to pooled features."""

from __future__ import annotations

import copy
import difflib
import math
from dataclasses import dataclass

import torch
from torch import nn

from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.backbones.pooling import Pooling
from headstart.backbones.sound_network import PLACES, SoundNetwork
from headstart.errors import BackboneError
from headstart.preprocess.audio import AudioPreprocess

# Windows that go through a tail together on a CPU.
WINDOWS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class SoundBackbone:
    """A network of windows as ordered named blocks; frozen and in evaluation mode."""

    info: BackboneInfo
    preprocess: AudioPreprocess
    network: SoundNetwork
    why_untraced: str = ""
    """Why it cannot be cut, where it cannot."""
    mostly_linear: bool = False
    """Whether most of the weights are of linear layers, as in a transformer."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, input to output."""
        return tuple(block.name for block in self.info.blocks)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Run the whole network.

        Args:
            windows: (B, K, W) float32, as `preprocess` collates them.

        Returns:
            The last block's pooled output, (B, D) float32.
        """
        pooled = PooledSounds(self)
        start, width = pooled.pooling.slices[-1]
        return pooled(windows)[:, start : start + width]

    def cut(self, block: str) -> tuple[nn.Module, nn.Module]:
        """Split the network after a block.

        Args:
            block: one of `blocks`, not the last.

        Returns:
            The prefix, frozen, from windows (B, K, W) to the state (B, K, S); and the tail, a trainable copy of the rest, from
            that state to the whole network's output.

        Raises:
            BackboneError: if there is no such block, or the network cannot be cut.
        """
        return _StatePrefix(self, block), _StateTail(self, block)

    def index_of(self, block: str) -> int:
        """The place of a block that the network can be cut behind.

        Raises:
            BackboneError: if there is no such block, or the network cannot be cut.
        """
        if self.why_untraced:
            raise BackboneError(
                f"backbone {self.info.name!r} cannot be cut: {self.why_untraced}",
                expected="a network whose blocks run one after the other.",
                mend="use it whole (strategy extract or full), or choose another backbone.",
            )
        if block not in self.blocks[:-1]:
            near = difflib.get_close_matches(block, self.blocks[:-1], n=1)
            raise BackboneError(
                f"backbone {self.info.name!r} cannot be cut behind {block!r}.",
                expected=f"one of {', '.join(self.blocks[:-1])}." if self.blocks[:-1] else "a network of several blocks.",
                mend=f"name {near[0]!r} instead." if near else "name one of its blocks, or use it whole.",
            )
        return self.blocks.index(block)


def block_infos(network: SoundNetwork, names: tuple[str, ...], window: int) -> tuple[BlockInfo, ...]:
    """Run a network once, to say what its blocks are.

    Args:
        network: in evaluation mode.
        names: of its blocks.
        window: W, samples.
    """
    outputs = _outputs(network, window)
    pooled = network.pool(outputs, torch.ones(1, PLACES, dtype=torch.bool), 1)
    return tuple(
        BlockInfo(name=name, width=vector.shape[1], num_parameters=_count(block))
        for name, vector, block in zip(names, pooled, network.blocks, strict=True)
    )


def find_sound_pooling(backbone: SoundBackbone) -> Pooling:
    """Where each block's pooled output lies among the features.

    Args:
        backbone: open.
    """
    shapes = [tuple(output.shape[1:]) for output in _outputs(backbone.network, backbone.preprocess.window)]
    widths = [block.width for block in backbone.info.blocks]
    most = backbone.preprocess.max_windows
    return Pooling(
        axes=(0,) * len(widths),
        kept=tuple(range(len(widths))),
        slices=tuple((sum(widths[:index]), width) for index, width in enumerate(widths)),
        shapes=tuple((most, math.prod(shape) + PLACES) for shape in shapes),
        kinds=backbone.network.kinds,
    )


def _outputs(network: SoundNetwork, window: int) -> list[torch.Tensor]:
    with torch.no_grad():
        return network(0.01 * torch.sin(torch.arange(window) / 9.0)[None])[0]


def _count(block: nn.Module) -> int:
    return sum(parameter.numel() for parameter in block.parameters())


class PooledSounds(nn.Module):
    """A whole network: (B, K, W) windows to (B, P), the pooled outputs of all blocks side by side."""

    def __init__(self, backbone: SoundBackbone) -> None:
        super().__init__()
        self.pooling = find_sound_pooling(backbone)
        self.network = backbone.network

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Run the network once for each window."""
        rows = windows.shape[0]
        outputs, places = self.network(windows.flatten(0, 1))
        return torch.cat(self.network.pool(outputs, places, rows), dim=1)


class PooledSoundPrefix(nn.Module):
    """The blocks up to a cut, frozen: (B, K, W) to (B, M + P), the flattened state and the pooled outputs up to it.

    M grows with K: a state has a row for each window. `features.lengths` brings states to one length.
    """

    def __init__(self, backbone: SoundBackbone, cut: str) -> None:
        super().__init__()
        self.pooling = find_sound_pooling(backbone)
        self.cut = cut
        index = backbone.index_of(cut)
        self.kept = tuple(range(index + 1))
        network = backbone.network
        self.network = SoundNetwork(network.front, list(network.blocks)[: index + 1], masked=network.masked)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Run the prefix once for each window."""
        rows = windows.shape[0]
        outputs, places = self.network(windows.flatten(0, 1))
        state = torch.cat([outputs[-1].flatten(1), places.to(outputs[-1].dtype)], dim=1)
        return torch.cat([state.reshape(rows, -1), *self.network.pool(outputs, places, rows)], dim=1)


class SoundTail(nn.Module):
    """The blocks behind a cut, trainable; with the prefix before it, it gives what `PooledSounds` gives.

    Windows without any sound, which only fill up a batch, do not go through the blocks.
    """

    def __init__(self, backbone: SoundBackbone, cut: str | None) -> None:
        """Copy the weights behind a cut.

        Args:
            backbone: open; not changed.
            cut: the last frozen block; None for none, so that the tail is the whole network and takes windows.
        """
        super().__init__()
        self.first = 0 if cut is None else backbone.index_of(cut) + 1
        self.whole = cut is None
        self.max_windows = backbone.preprocess.max_windows
        self.pooling = find_sound_pooling(backbone)
        self.shape = (
            () if cut is None else tuple(_outputs(backbone.network, backbone.preprocess.window)[self.first - 1].shape[1:])
        )
        network = backbone.network
        behind = [copy.deepcopy(block) if index >= self.first else nn.Identity() for index, block in enumerate(network.blocks)]
        self.network = SoundNetwork(
            copy.deepcopy(network.front), behind, masked=network.masked, ends_in_direction=network.ends_in_direction
        )
        self.network.requires_grad_(True)
        self.own_prefix = ""
        """What stands before the backbone's own names of its tensors."""

    def forward(self, state: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Go on from the cut.

        Args:
            state: (B, K, S) the states of the windows, or windows (B, K, W).
            pooled: (B, P) pooled outputs of the blocks before, (B, 0) where the tail is the whole network.

        Returns:
            (B, D), the pooled outputs of all blocks.
        """
        rows, windows = state.shape[0], state.flatten(0, 1)
        places = self.network.find_places(~torch.isnan(windows)) if self.whole else windows[:, -PLACES:] > 0.5
        heard = places.any(1).nonzero()[:, 0]
        parts = [self._run(windows[few]) for few in heard.split(WINDOWS_AT_ONCE)]
        whole = []
        for outputs in zip(*parts, strict=True):
            together = torch.cat(outputs)
            whole.append(together.new_zeros(len(windows), *together.shape[1:]).index_copy(0, heard, together))
        return torch.cat([pooled, *self.network.pool(whole, places, rows)], dim=1)

    def _run(self, windows: torch.Tensor) -> list[torch.Tensor]:
        if self.whole:
            return self.network(windows)[0]
        return self.network.run(windows[:, :-PLACES].reshape(-1, *self.shape), self.first)


class _StatePrefix(nn.Module):
    """Windows (B, K, W) to the state behind a block, (B, K, S)."""

    def __init__(self, backbone: SoundBackbone, block: str) -> None:
        super().__init__()
        self.prefix = PooledSoundPrefix(backbone, block)
        self.width = self.prefix.pooling.shapes[self.prefix.kept[-1]][1]

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found = self.prefix(windows)
        count = windows.shape[1]
        return found[:, : count * self.width].reshape(len(windows), count, self.width)

    def train(self, mode: bool = True) -> _StatePrefix:
        return super().train(False)


class _StateTail(nn.Module):
    """From the state behind a block to the whole network's output."""

    def __init__(self, backbone: SoundBackbone, block: str) -> None:
        super().__init__()
        self.tail = SoundTail(backbone, block)
        self.width = backbone.info.width

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return self.tail(state, state.new_empty(len(state), 0))[:, -self.width :]
