"""A sound network as it is used: windows through a front and blocks in a row; mean and deviation of each block's output.

A network that was trained to give a vector of length 1 has for its last block what its authors take for a whole sound: the
mean of the windows' vectors, brought back to that length.

Every sound backbone is such a row, so that one cut serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

PLACES = 128
"""In how many places of a window it is noted whether sound is there."""
_LEAST_VARIANCE = 1e-10
_LEAST_LENGTH = 1e-5


class SoundNetwork(nn.Module):
    """Windows of samples to the output of each block."""

    def __init__(
        self, front: nn.Module, blocks: Sequence[nn.Module], *, masked: bool = True, ends_in_direction: bool = False
    ) -> None:
        """Put a network together.

        Args:
            front: without weights; called with samples (N, W), 0 where there are none, and the mask (N, W).
            blocks: each called with what the one before it gave, the first with what the front gives.
            masked: whether positions of an output follow the time of the window, so that those without sound are left out.
            ends_in_direction: whether the last block gives vectors of length 1, (N, C), as `pool_directions` takes them.
        """
        super().__init__()
        self.front = front
        self.blocks = nn.ModuleList(blocks)
        self.masked = masked
        self.ends_in_direction = ends_in_direction

    def forward(self, windows: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Run the network.

        Args:
            windows: (N, W) float32, NaN where there is no sound.

        Returns:
            The output of each block, (N, …); and where there is sound, (N, `PLACES`) bool.
        """
        here = ~torch.isnan(windows)
        started = self.front(torch.where(here, windows, torch.zeros_like(windows)), here)
        return self.run(started, 0), self.find_places(here)

    def run(self, state: torch.Tensor, first: int) -> list[torch.Tensor]:
        """The outputs of all blocks from a number on, given what enters that one."""
        outputs = []
        for block in list(self.blocks)[first:]:
            state = block(state)
            outputs.append(state)
        return outputs

    @property
    def kinds(self) -> tuple[int, ...]:
        """How many kinds of numbers `pool` makes of each output: means and deviations, or a direction alone."""
        return (2,) * (len(self.blocks) - 1) + (1 if self.ends_in_direction else 2,)

    def pool(self, outputs: Sequence[torch.Tensor], places: torch.Tensor, rows: int) -> list[torch.Tensor]:
        """Each output as one vector an item.

        Args:
            outputs: of the last blocks, in order, the last one's last.
            places: (N, `PLACES`) bool.
            rows: B; each item has N / B windows.
        """
        *before, last = outputs
        ways = [*(pool_windows for _ in before), pool_directions if self.ends_in_direction else pool_windows]
        return [way(output, places, rows) for way, output in zip(ways, [*before, last], strict=True)]

    def find_places(self, here: torch.Tensor) -> torch.Tensor:
        """Thin out a mask (N, W) to (N, `PLACES`); a window with any sound keeps its first place."""
        some = here.any(1, keepdim=True)
        if not self.masked:
            return some.expand(-1, PLACES)
        picked = here[:, _middles(PLACES, here.shape[1])]
        return torch.cat([some, picked[:, 1:]], dim=1)


def pool_windows(output: torch.Tensor, places: torch.Tensor, rows: int) -> torch.Tensor:
    """Mean and standard deviation of a block's output over all positions of an item's windows where there is sound.

    Args:
        output: (N, C), (N, T, C), or maps (N, C, T, F), whose frequencies are averaged.
        places: (N, `PLACES`) bool.
        rows: B; each item has N / B windows.

    Returns:
        (B, 2 C), means and then deviations; 0 where there is no sound.
    """
    frames = as_frames(output)
    length, width = frames.shape[1], frames.shape[2]
    heard = places.any(1, keepdim=True) if length == 1 else places[:, _middles(length, PLACES)]
    mask = heard.reshape(rows, -1, 1)
    weights = mask.to(frames.dtype)
    values = torch.where(mask, frames.reshape(rows, -1, width), torch.zeros_like(weights))
    count = weights.sum(1).clamp(min=1)
    mean = values.sum(1) / count
    variance = (((values - mean[:, None]) * weights) ** 2).sum(1) / count
    return torch.cat([mean, (variance + _LEAST_VARIANCE).sqrt()], dim=1)


def pool_directions(output: torch.Tensor, places: torch.Tensor, rows: int) -> torch.Tensor:
    """Mean of the vectors of an item's windows where there is sound, brought to length 1.

    Args:
        output: (N, C).
        places: (N, `PLACES`) bool.
        rows: B; each item has N / B windows.

    Returns:
        (B, C); 0 where there is no sound.
    """
    mask = places.any(1).reshape(rows, -1, 1)
    vectors = torch.where(mask, output.reshape(rows, mask.shape[1], -1), torch.zeros_like(mask, dtype=output.dtype))
    return nn.functional.normalize(vectors.sum(1), dim=1, eps=_LEAST_LENGTH)


def as_frames(output: torch.Tensor) -> torch.Tensor:
    """A block's output as vectors in time: (N, T, C)."""
    if output.ndim == 2:
        return output[:, None]
    return output.mean(3).transpose(1, 2) if output.ndim == 4 else output


def _middles(count: int, length: int) -> torch.Tensor:
    """The positions, among `length`, that lie in the middle of `count` equal parts; the first part is its first position."""
    middles = ((torch.arange(count) + 0.5) * (length / count)).long().clamp(max=length - 1)
    middles[0] = 0
    return middles
