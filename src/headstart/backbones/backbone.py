"""A backbone that is open: network, preprocess and identity in one, never one without the other."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass

import torch
from torch import nn

from headstart.backbones.cutting import cut, tapped, tapped_copy, tapped_prefix, tapped_tail
from headstart.backbones.info import BackboneInfo
from headstart.backbones.tracing import Trace
from headstart.errors import BackboneError
from headstart.preprocess.recipe import Preprocess


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained network as ordered named blocks; frozen and in evaluation mode."""

    info: BackboneInfo
    preprocess: Preprocess
    network: nn.Module
    traced: Trace | None
    """None where the network cannot be traced: it then works as a whole, but cannot be cut."""
    why_untraced: str = ""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, input to output."""
        return tuple(block.name for block in self.info.blocks)

    @property
    def mostly_linear(self) -> bool:
        """Whether most of the weights are of linear layers, as in a transformer."""
        modules = list(self.network.modules())
        linear = sum(module.weight.numel() for module in modules if isinstance(module, nn.Linear))
        return 2 * linear > self.info.num_parameters

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Run the whole network.

        Args:
            batch: (B, 3, H, W) float32, as `preprocess` gives it.

        Returns:
            Features after the last block, (B, D) float32.
        """
        return self.network(batch)

    def cut(self, block: str) -> tuple[nn.Module, nn.Module]:
        """Split the network after a block.

        Args:
            block: one of `blocks`.

        Returns:
            The prefix, everything up to and including `block`, which stays frozen and in evaluation mode whatever is
            called on it; and the tail, a trainable copy of the rest. `tail(prefix(x))` equals the whole.

        Raises:
            BackboneError: if there is no such block, or the network cannot be cut.
        """
        return cut(self._cuttable(block), block)

    def tapped(self) -> nn.Module:
        """The network giving every block's output, first to last, as a list."""
        return tapped(self.traced) if self.traced is not None else _Whole(self.network)

    def tapped_prefix(self, block: str) -> nn.Module:
        """The network up to and including a block, frozen, giving the outputs of its blocks as a list.

        Args:
            block: one of `blocks`.

        Raises:
            BackboneError: if there is no such block, or the network cannot be cut.
        """
        return tapped_prefix(self._cuttable(block), block)

    def tapped_tail(self, block: str) -> nn.Module:
        """The network behind a block, with a trainable copy of the weights, giving the outputs of its blocks as a list.

        Args:
            block: one of `blocks`, not the last; the tail takes its output.

        Raises:
            BackboneError: if there is no such block, or the network cannot be cut.
        """
        return tapped_tail(self._cuttable(block), block)

    def tapped_copy(self) -> nn.Module:
        """The network as `tapped` gives it, with its own trainable copy of the weights."""
        if self.traced is not None:
            return tapped_copy(self.traced)
        return _Whole(copy.deepcopy(self.network.network).requires_grad_(True))  # type: ignore[arg-type]

    def _cuttable(self, block: str) -> Trace:
        if self.traced is None:
            raise BackboneError(
                f"backbone {self.info.name!r} cannot be cut: {self.why_untraced}",
                expected="an architecture that torch.fx can trace.",
                mend="use it whole (strategy extract or full), or choose another backbone.",
            )
        if block not in self.blocks:
            near = difflib.get_close_matches(block, self.blocks, n=1)
            raise BackboneError(
                f"backbone {self.info.name!r} has no block {block!r}.",
                expected=f"one of {', '.join(self.blocks)}.",
                mend=f"name {near[0] if near else self.blocks[-1]!r} instead.",
            )
        return self.traced


class _Whole(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        return [self.network(batch)]
