"""How well a language model knows a text: perplexity and bits per byte, with intervals, and whether one beats another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.backbones.causal import CausalBackbone
from headstart.evidence.intervals import bootstrap_ratio, percentile_interval
from headstart.language.network import token_losses
from headstart.language.packing import NO_TARGET, Blocks

# Documents are drawn again where there are so many; else stretches of one text.
LEAST_DOCUMENTS = 20
STRETCH = 64
"""Tokens of a stretch: neighbouring tokens are hard or easy together."""
# Fewer are too few to draw again from.
LEAST_UNITS = 6
BLOCKS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What each part of a text cost a model."""

    nats: np.ndarray
    """(U,) float64, by document or stretch."""
    tokens: np.ndarray
    """(U,) float64: tokens of each."""
    num_bytes: int
    unit: str
    """'documents' or 'runs of 64 tokens'."""

    @property
    def mean(self) -> float:
        """Nats a token."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def perplexity(self) -> float:
        """Between how many tokens the model was in doubt, in the mean."""
        return math.exp(self.mean)

    @property
    def bits_per_byte(self) -> float:
        """Of the text in UTF-8, whatever the tokenizer; the end of each document has its part in it."""
        return float(self.nats.sum()) / math.log(2) / self.num_bytes

    def interval(self, seed: int) -> tuple[float, float]:
        """Of the perplexity, 95 %, by drawing documents or stretches again."""
        low, high = percentile_interval(np.exp(bootstrap_ratio(self.nats, self.tokens, seed)))
        return low, high

    def as_json(self, seed: int) -> dict[str, Any]:
        """As the report holds it."""
        return {
            "perplexity": self.perplexity,
            "perplexity_ci95": list(self.interval(seed)),
            "bits_per_byte": self.bits_per_byte,
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a tuned model knows a text better than the one it came from."""

    gain: float
    """Nats a token that it saves."""
    low: float
    high: float
    basis: str
    num_units: int

    @property
    def passed(self) -> bool:
        """Whether it is better beyond doubt; what few units say is never that."""
        return self.low > 0 and self.num_units >= LEAST_UNITS

    @property
    def told(self) -> str:
        """In words."""
        if self.num_units < LEAST_UNITS:
            return f"too little text to judge by: {self.basis}"
        word = "better" if self.passed else "not better beyond doubt"
        return f"{word}: {self.gain:+.3f} nats a token less ({self.low:+.3f} to {self.high:+.3f}) on {self.basis}"


def measure(backbone: CausalBackbone, blocks: Blocks) -> Losses:
    """Ask a model how unexpected a text is.

    Args:
        backbone: in evaluation mode.
        blocks: of the text.

    Returns:
        What each document cost, or each stretch where there are few documents.
    """
    device = next(backbone.network.parameters()).device
    nats = np.zeros(blocks.read.shape, np.float64)
    with torch.no_grad():
        for start in range(0, len(blocks), BLOCKS_AT_ONCE):
            rows = slice(start, start + BLOCKS_AT_ONCE)
            read, following = (torch.from_numpy(part[rows]).to(device) for part in (blocks.read, blocks.following))
            hidden = backbone.base(input_ids=read, use_cache=False).last_hidden_state
            nats[rows] = token_losses(hidden, backbone.vocabulary, following).double().cpu().numpy()
    counted = blocks.following != NO_TARGET
    several = len(np.unique(blocks.owner[counted])) >= LEAST_DOCUMENTS
    place = np.arange(blocks.read.size).reshape(blocks.read.shape)
    units = np.unique((blocks.owner if several else place // STRETCH)[counted], return_inverse=True)[1]
    return Losses(
        nats=np.bincount(units, nats[counted]),
        tokens=np.bincount(units).astype(np.float64),
        num_bytes=blocks.num_bytes,
        unit="documents" if several else f"runs of {STRETCH} tokens",
    )


def compare(tuned: Losses, before: Losses, seed: int) -> Verdict:
    """Judge a tuned model by the one it came from, on the same units.

    Args:
        tuned: what the text cost it.
        before: what it cost the other.
        seed: of the draws.
    """
    low, high = percentile_interval(bootstrap_ratio(before.nats - tuned.nats, tuned.tokens, seed))
    basis = f"{len(tuned.nats)} {tuned.unit} that chose nothing"
    return Verdict(gain=before.mean - tuned.mean, low=low, high=high, basis=basis, num_units=len(tuned.nats))


@contextmanager
def changed(backbone: CausalBackbone, changes: Mapping[str, torch.Tensor]) -> Iterator[CausalBackbone]:
    """The backbone with some tensors replaced, for as long as the block lasts.

    Args:
        backbone: of whose network they are.
        changes: by name.

    Yields:
        The backbone.
    """
    state = backbone.network.state_dict()
    before = {name: state[name].clone() for name in changes}
    backbone.network.load_state_dict(dict(changes), strict=False)
    try:
        yield backbone
    finally:
        backbone.network.load_state_dict(before, strict=False)
