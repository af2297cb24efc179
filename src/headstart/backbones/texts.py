"""A text backbone that is open, and its parts as they are compiled and trained: token ids to pooled features."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from headstart.backbones.encoder import (
    Encoder,
    EncoderTail,
    in_windows,
    masked_mean,
    mean_over_windows,
    without_layers,
)
from headstart.backbones.info import BackboneInfo
from headstart.backbones.pooling import Pooling
from headstart.backbones.word_encoder import WordEncoder
from headstart.errors import BackboneError
from headstart.preprocess.text import TextPreprocess

# Windows that go through a tail together on a CPU: enough for full matrix products.
ROWS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class TextBackbone:
    """An encoder as ordered named blocks (embeddings, layers, pool); frozen and in evaluation mode."""

    info: BackboneInfo
    preprocess: TextPreprocess
    encoder: Encoder | WordEncoder
    why_untraced: str = ""
    """Why it cannot be cut, where it cannot."""
    mostly_linear: bool = True
    """Whether most of the weights that matter are of linear layers, as in every transformer."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, input to output."""
        return tuple(block.name for block in self.info.blocks)

    @property
    def layered(self) -> Encoder:
        """The encoder, of which every backbone that can be cut has one."""
        assert isinstance(self.encoder, Encoder), "a table of vectors is not cut"
        return self.encoder

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
            near = difflib.get_close_matches(block, self.blocks[:-1], n=1)
            raise BackboneError(
                f"backbone {self.info.name!r} cannot be cut behind {block!r}.",
                expected=f"one of {', '.join(self.blocks[:-1])}.",
                mend=f"name {near[0] if near else self.blocks[-2]!r} instead.",
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
        vectors, mask = self.network.pooled(in_windows(tokens, self.max_tokens))
        return mean_over_windows(vectors, mask.sum(1), tokens.shape[0])


class PooledTextPrefix(nn.Module):
    """The blocks up to a cut, frozen: (B, L) to (B, M + P), the flattened state and the pooled outputs up to it.

    M grows with L: a state has a row for each token. `features.lengths` brings states to one length.
    """

    def __init__(self, backbone: TextBackbone, cut: str) -> None:
        super().__init__()
        self.pooling = find_text_pooling(backbone)
        self.cut = cut
        self.index = backbone.index_of(cut)
        self.kept = tuple(range(self.index + 1))
        self.network = without_layers(backbone.layered, range(self.index, backbone.layered.num_layers))
        self.max_tokens = backbone.preprocess.max_tokens

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the prefix once for each window."""
        rows = tokens.shape[0]
        outputs, mask = self.network(in_windows(tokens, self.max_tokens))
        vectors = torch.cat([masked_mean(outputs[index], mask) for index in self.kept], dim=1)
        state = _with_mask(outputs[self.index], mask).reshape(rows, -1)
        return torch.cat([state, mean_over_windows(vectors, mask.sum(1), rows)], dim=1)


class TextTail(nn.Module):
    """The blocks behind a cut, trainable; with the prefix before it, it gives what `PooledTexts` gives.

    Windows of like lengths go through the layers together, and windows without a token not at all: little time is lost on
    padding, whatever the order of the items.
    """

    def __init__(self, backbone: TextBackbone, cut: str | None) -> None:
        """Copy the weights behind a cut.

        Args:
            backbone: open; not changed.
            cut: the last frozen block; None for none, so that the tail is the whole network and takes tokens.
        """
        super().__init__()
        self.whole = cut is None
        self.max_tokens = backbone.preprocess.max_tokens
        self.pooling = find_text_pooling(backbone)
        if cut is None:
            self.network: PooledTexts | EncoderTail = copy.deepcopy(PooledTexts(backbone))
            self.own_prefix = "network.network."
        else:
            self.network = EncoderTail(backbone.layered, backbone.index_of(cut))
            self.own_prefix = "encoder.network."
        self.network.requires_grad_(True)
        if isinstance(self.network, EncoderTail):
            self.network.freeze_what_does_not_run()

    def forward(self, state: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Go on from the cut.

        Args:
            state: (B, L, H + 1) the state with its mask, or tokens (B, L).
            pooled: (B, P) pooled outputs of the blocks before, (B, 0) where the tail is the whole network.

        Returns:
            (B, W), the pooled outputs of all blocks.
        """
        windows = in_windows(state, self.max_tokens)
        mask = windows >= 0 if self.whole else windows[..., -1] > 0.5
        counts = mask.sum(1)
        order = torch.argsort(counts, stable=True)
        order = order[counts[order] > 0]
        parts = [
            self._run(windows[part], int(counts[part[-1]]))
            for part in order.split(len(order) or 1 if self._words else rows_at_once(windows))
            if len(part)
        ]
        width = sum(wide for _, wide in self.pooling.slices) - pooled.shape[1]
        vectors = torch.cat(parts) if parts else pooled.new_zeros(0, width)
        back = vectors.new_zeros(len(windows), vectors.shape[1]).index_copy(0, order, vectors)
        return torch.cat([pooled, mean_over_windows(back, counts, len(state))], dim=1)

    def train_tokens(self, ids: np.ndarray) -> None:
        """Of a table of vectors, let only those of some tokens train; every other network stays as it is.

        Args:
            ids: of the tokens that occur; below 0 there is none.
        """
        encoder = self._words
        if encoder is not None:
            encoder.network.train_tokens(ids)

    def settled(self) -> TextTail:
        """The tail with the source's tensors, under their names; a copy, where `train_tokens` put others in their place."""
        if self._words is None:
            return self
        copied = copy.deepcopy(self)
        assert copied._words is not None, "as in what was copied"
        copied._words.network.put_back()
        return copied

    @property
    def _words(self) -> WordEncoder | None:
        whole = self.network
        return whole.network if isinstance(whole, PooledTexts) and isinstance(whole.network, WordEncoder) else None

    def _run(self, windows: torch.Tensor, longest: int) -> torch.Tensor:
        """The vectors of a few windows, cut to the longest of them, by the blocks behind the cut."""
        windows = windows[:, :longest]
        if isinstance(self.network, PooledTexts):
            return self.network.network.pooled(windows)[0]
        hidden, mask = windows[..., :-1], windows[..., -1] > 0.5
        behind = self.network(hidden, mask)
        summary = self.network.encoder.summarise([hidden, *behind][-1], mask)
        return torch.cat([*(masked_mean(output, mask) for output in behind), summary], dim=1)


def rows_at_once(windows: torch.Tensor) -> int:
    """How many windows go through a tail together: on a CPU few, since they then differ little in length; else all."""
    return ROWS_AT_ONCE if windows.device.type == "cpu" else max(len(windows), 1)


class _StatePrefix(nn.Module):
    """Tokens (B, T) to the state behind a block."""

    def __init__(self, backbone: TextBackbone, index: int) -> None:
        super().__init__()
        self.encoder = backbone.layered
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
