"""A text backbone that is open, and its parts as they are compiled and trained: token ids to pooled features."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from headstart.backbones.encoder import Encoder, EncoderTail, masked_mean
from headstart.backbones.info import BackboneInfo
from headstart.backbones.pooling import Pooling
from headstart.errors import BackboneError
from headstart.preprocess.text import TextPreprocess


@dataclass(frozen=True, kw_only=True)
class TextBackbone:
    """An encoder as ordered named blocks (embeddings, layers, pool); frozen and in evaluation mode."""

    info: BackboneInfo
    preprocess: TextPreprocess
    encoder: Encoder
    why_untraced: str = ""
    """Why it cannot be cut, where it cannot."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, input to output."""
        return tuple(block.name for block in self.info.blocks)

    @property
    def mostly_linear(self) -> bool:
        """As in every transformer, most of the weights that matter are of linear layers."""
        return True

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the whole network.

        Args:
            tokens: (B, L) int64, as `preprocess` collates them.

        Returns:
            What the checkpoint makes of each text, (B, D) float32.
        """
        pooled = PooledTexts(self)
        start, width = pooled.pooling.slices[-1]
        return pooled(tokens)[:, start : start + width]

    def cut(self, block: str) -> tuple[nn.Module, nn.Module]:
        """Split the network after a block.

        Args:
            block: one of `blocks`, not the last.

        Returns:
            The prefix, frozen, from tokens (B, T) to the state, (B, T, H + 1), whose last channel is the mask; and the tail, a
            trainable copy of the rest, from that state to the whole network's output.

        Raises:
            BackboneError: if there is no such block, or the network cannot be cut.
        """
        index = self.index_of(block)
        return _StatePrefix(self, index), _StateTail(self, block)

    def index_of(self, block: str) -> int:
        """The place of a block that the network can be cut behind.

        Raises:
            BackboneError: if there is no such block, or the network cannot be cut.
        """
        if self.why_untraced:
            raise BackboneError(
                f"backbone {self.info.name!r} cannot be cut: {self.why_untraced}",
                expected="an encoder that keeps its layers in one list.",
                mend="use it whole (strategy extract or full), or choose another backbone.",
            )
        if block not in self.blocks[:-1]:
            raise BackboneError(
                f"backbone {self.info.name!r} cannot be cut behind {block!r}.",
                expected=f"one of {', '.join(self.blocks[:-1])}.",
                mend=f"name {self.blocks[-2]!r} instead.",
            )
        return self.blocks.index(block)


class PooledTexts(nn.Module):
    """A whole encoder: (B, L) tokens to (B, W), the mean over the tokens of every block's output, side by side.

    Where L is a multiple of what the network reads at once, a text is read window after window, and its features are the mean
    over all its tokens.
    """

    def __init__(self, backbone: TextBackbone) -> None:
        super().__init__()
        self.pooling = find_text_pooling(backbone)
        self.network = backbone.encoder
        self.max_tokens = backbone.preprocess.max_tokens

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the network once for each window."""
        rows, length = tokens.shape[0], tokens.shape[1]
        num_windows = (length + self.max_tokens - 1) // self.max_tokens
        windows = tokens.reshape(-1, length // num_windows)
        outputs, mask = self.network(windows)
        pooled = [masked_mean(output, mask) for output in outputs]
        vectors = torch.cat([*pooled, self.network.summarise(outputs[-1], mask)], dim=1)
        weights = mask.to(vectors.dtype).sum(1).reshape(rows, -1, 1)
        return (vectors.reshape(rows, -1, vectors.shape[1]) * weights).sum(1) / weights.sum(1)


class PooledTextPrefix(nn.Module):
    """The blocks up to a cut, frozen: (B, T) to (B, M + P), the flattened state and the pooled outputs up to it."""

    def __init__(self, backbone: TextBackbone, cut: str) -> None:
        super().__init__()
        self.pooling = find_text_pooling(backbone)
        self.cut = cut
        self.index = backbone.index_of(cut)
        self.kept = tuple(range(self.index + 1))
        self.network = backbone.encoder

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the prefix once."""
        outputs, mask = self.network(tokens)
        state = _with_mask(outputs[self.index], mask)
        return torch.cat([state.flatten(1), *(masked_mean(outputs[index], mask) for index in self.kept)], dim=1)


class TextTail(nn.Module):
    """The blocks behind a cut, trainable; with the prefix before it, it gives what `PooledTexts` gives."""

    def __init__(self, backbone: TextBackbone, cut: str | None) -> None:
        """Copy the weights behind a cut.

        Args:
            backbone: open; not changed.
            cut: the last frozen block; None for none, so that the tail is the whole network and takes tokens.
        """
        super().__init__()
        self.whole = cut is None
        if cut is None:
            self.network: nn.Module = copy.deepcopy(PooledTexts(backbone))
            self.own_prefix = "network.network."
        else:
            self.network = EncoderTail(backbone.encoder, backbone.index_of(cut))
            self.own_prefix = "encoder.network."
        self.network.requires_grad_(True)
        if isinstance(self.network, EncoderTail):
            self.network.freeze_what_does_not_run()

    def forward(self, state: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Go on from the cut.

        Args:
            state: (B, T, H + 1) the state with its mask, or tokens (B, L).
            pooled: (B, P) pooled outputs of the blocks before, (B, 0) where the tail is the whole network.

        Returns:
            (B, W), the pooled outputs of all blocks.
        """
        if self.whole:
            return self.network(state)
        hidden, mask = state[..., :-1], state[..., -1] > 0.5
        outputs = [hidden, *self.network(hidden, mask)]
        encoder = self.network.encoder
        return torch.cat(
            [pooled, *(masked_mean(output, mask) for output in outputs[1:]), encoder.summarise(outputs[-1], mask)], dim=1
        )


class _StatePrefix(nn.Module):
    """Tokens (B, T) to the state behind a block."""

    def __init__(self, backbone: TextBackbone, index: int) -> None:
        super().__init__()
        self.encoder = backbone.encoder
        self.index = index

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            outputs, mask = self.encoder(tokens)
        return _with_mask(outputs[self.index], mask)

    def train(self, mode: bool = True) -> _StatePrefix:
        return super().train(False)


class _StateTail(nn.Module):
    """From the state behind a block to the whole network's output."""

    def __init__(self, backbone: TextBackbone, block: str) -> None:
        super().__init__()
        self.tail = TextTail(backbone, block)
        self.width = backbone.info.width

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return self.tail(state, state.new_empty(len(state), 0))[:, -self.width :]


def find_text_pooling(backbone: TextBackbone) -> Pooling:
    """Where each block's pooled output lies among the features.

    Args:
        backbone: open.
    """
    count, width, length = len(backbone.blocks), backbone.info.width, backbone.preprocess.max_tokens
    return Pooling(
        axes=(1,) * (count - 1) + (0,),
        kept=tuple(range(count)),
        slices=tuple((index * width, width) for index in range(count)),
        shapes=((length, width + 1),) * (count - 1) + ((width,),),
    )


def _with_mask(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.cat([hidden, mask.to(hidden.dtype)[..., None]], dim=2)
