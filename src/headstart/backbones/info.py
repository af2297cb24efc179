"""What is known of a backbone without its weights at hand: plain records that travel into caches, reports and artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from headstart.records import Modality

FUSED_BY = "+"
"""Between the names of backbones that are used together."""


@dataclass(frozen=True, kw_only=True)
class BlockInfo:
    """One named step of a backbone."""

    name: str
    width: int
    """Channels of the block's output: the width of its pooled features."""
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """A backbone's identity: enough to know it again and to say where it came from."""

    name: str
    """What the user typed: 'efficientnet-lite0', 'timm:resnet50', …"""
    architecture: str
    modality: Modality
    licence: str
    source: str
    """Where the weights came from, in words."""
    sha256: str
    """Of the weights' file where there is one, else of the tensors in order; '' for a random network."""
    width: int
    """D, the width of the features after the last block."""
    num_parameters: int
    blocks: tuple[BlockInfo, ...]
    base_sha256: str = ""
    """Of the weights before tuning changed any; equal to `sha256` where it changed none."""
    base: str = ""
    """The name that opens the weights before tuning changed any, where that is not `name`: for 'artifact:PATH'."""
    parts: tuple[BackboneInfo, ...] = ()
    """Of several backbones used together, each one's own; their blocks are told in `blocks`, by longer names."""

    @property
    def tuned(self) -> bool:
        """Whether tuning changed any of the weights."""
        return bool(self.base_sha256) and self.sha256 != self.base_sha256

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        told = {name: value for name, value in asdict(self).items() if name != "parts"}
        told["blocks"] = [asdict(block) for block in self.blocks]
        return told | ({"parts": [part.as_json() for part in self.parts]} if self.parts else {})

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> BackboneInfo:
        """The inverse of `as_json`."""
        blocks = tuple(BlockInfo(**block) for block in value["blocks"])
        return cls(**(value | {"blocks": blocks, "parts": tuple(map(cls.from_json, value.get("parts", ())))}))


def fuse_infos(parts: Sequence[BackboneInfo]) -> BackboneInfo:
    """What is known of several backbones used together.

    Args:
        parts: two or more, of one modality.

    Returns:
        Their identities as one: names joined by '+', blocks by their part's name, a slash and their own, and a SHA-256 of the
        parts' checksums in order.
    """
    sums = " ".join(part.sha256 for part in parts)
    return BackboneInfo(
        name=FUSED_BY.join(part.name for part in parts),
        architecture=FUSED_BY.join(part.architecture for part in parts),
        modality=parts[0].modality,
        licence="; ".join(f"{part.name}: {part.licence}" for part in parts),
        source="; ".join(f"{part.name}: {part.source}" for part in parts),
        sha256=hashlib.sha256(sums.encode()).hexdigest(),
        width=sum(part.width for part in parts),
        num_parameters=sum(part.num_parameters for part in parts),
        blocks=tuple(replace(block, name=f"{part.name}/{block.name}") for part in parts for block in part.blocks),
        parts=tuple(replace(part, blocks=()) for part in parts),
    )
