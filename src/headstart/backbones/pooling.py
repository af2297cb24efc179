"""A backbone as it is used: the pooled outputs of all its blocks side by side, from one forward pass, whole or cut in two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.flow import channel_axes


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """Which blocks' pooled outputs stand in the features, and where."""

    axes: tuple[int, ...]
    """For each block, which axis of its output holds the channels, batch left out."""
    kept: tuple[int, ...]
    """Blocks whose pooled outputs stand side by side, first to last."""
    slices: tuple[tuple[int, int], ...]
    """Start and width for each block; two blocks whose pooled outputs are equal share their place."""
    shapes: tuple[tuple[int, ...], ...]
    """Of each block's output, batch left out."""
    kinds: tuple[int, ...] = ()
    """Of numbers in each block's pooled output, equally many of each; () where all are means."""


def find_pooling(backbone: Backbone) -> Pooling:
    """Run a backbone once to see what its blocks give.

    Args:
        backbone: as `open_backbone` gives it.
    """
    with torch.no_grad():
        outputs = backbone.tapped()(torch.from_numpy(backbone.preprocess.example(2)))
    shapes = tuple(tuple(output.shape[1:]) for output in outputs)
    axes = channel_axes(shapes)
    vectors = [pool(output, axis) for output, axis in zip(outputs, axes, strict=True)]
    kept: list[int] = []
    slices: list[tuple[int, int]] = []
    for index, vector in enumerate(vectors):
        # A last map and its own pooling are the same features: keep the network's own pooling. Only a step without weights
        # is ever a pooling: with weights, outputs may agree untrained (a residual branch begins at 0) and no longer when tuned.
        following = (
            vectors[index + 1] if index + 1 < len(vectors) and not backbone.info.blocks[index + 1].num_parameters else None
        )
        if following is not None and following.shape == vector.shape and torch.allclose(following, vector, atol=1e-5):
            slices.append((-1, vector.shape[1]))
            continue
        start = sum(vectors[before].shape[1] for before in kept)
        kept.append(index)
        slices.append((start, vector.shape[1]))
        slices = [(start, width) if place == -1 else (place, width) for place, width in slices]
    return Pooling(axes=tuple(axes), kept=tuple(kept), slices=tuple(slices), shapes=shapes)


class PooledBlocks(nn.Module):
    """A whole backbone, frozen: (B, 3, H, W) to (B, W), the mean over positions of every block's output, side by side."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.pooling = find_pooling(backbone)
        self.network = backbone.tapped()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the network once."""
        outputs = self.network(pixels)
        return torch.cat([pool(outputs[index], self.pooling.axes[index]) for index in self.pooling.kept], dim=1)


class PooledPrefix(nn.Module):
    """The blocks up to a cut, frozen: (B, 3, H, W) to (B, M + P).

    The first M columns are the flattened output at the cut; the P after it are the pooled outputs that `PooledTail` goes on
    from.
    """

    def __init__(self, backbone: Backbone, cut: str) -> None:
        super().__init__()
        self.pooling = find_pooling(backbone)
        self.cut = cut
        self.network = backbone.tapped_prefix(cut)
        self.kept = tuple(index for index in self.pooling.kept if index <= backbone.blocks.index(cut))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the prefix once."""
        outputs = self.network(pixels)
        pooled = [pool(outputs[index], self.pooling.axes[index]) for index in self.kept]
        return torch.cat([outputs[-1].flatten(1), *pooled], dim=1)


class PooledTail(nn.Module):
    """The blocks behind a cut, trainable; with `PooledPrefix` before it, it gives what `PooledBlocks` gives."""

    def __init__(self, backbone: Backbone, cut: str | None) -> None:
        """Copy the weights behind a cut.

        Args:
            backbone: open; not changed.
            cut: the last frozen block; None for none, so that the tail is the whole network and takes pixels.
        """
        super().__init__()
        pooling = find_pooling(backbone)
        first = 0 if cut is None else backbone.blocks.index(cut) + 1
        self.network = backbone.tapped_copy() if cut is None else backbone.tapped_tail(cut)
        self.taps = tuple((index - first, pooling.axes[index]) for index in pooling.kept if index >= first)
        self.own_prefix = "network." if backbone.traced is None else ""
        """What stands before the backbone's own names of its tensors."""
        self.state_shape = None if cut is None else pooling.shapes[first - 1]

    def forward(self, state: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Go on from the cut.

        Args:
            state: (B, …) the output at the cut, or pixels.
            pooled: (B, P) pooled outputs of the blocks before, (B, 0) where the tail is the whole network.

        Returns:
            (B, W), the pooled outputs of all blocks.
        """
        outputs = self.network(state)
        return torch.cat([pooled, *(pool(outputs[place], axis) for place, axis in self.taps)], dim=1)


def pool(output: torch.Tensor, channel_axis: int) -> torch.Tensor:
    """Mean over all positions of a block's output: maps, sequences and vectors become (B, C).

    Args:
        output: of a block, batch first.
        channel_axis: which axis holds the channels, batch left out.
    """
    positions = [axis for axis in range(1, output.ndim) if axis != 1 + channel_axis]
    return output.mean(positions) if positions else output
