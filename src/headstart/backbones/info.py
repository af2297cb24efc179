"""What is known of a backbone without its weights at hand: plain records that travel into caches, reports and artifacts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headstart.records import Modality


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

    @property
    def tuned(self) -> bool:
        """Whether tuning changed any of the weights."""
        return bool(self.base_sha256) and self.sha256 != self.base_sha256

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"blocks": [asdict(block) for block in self.blocks]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> BackboneInfo:
        """The inverse of `as_json`."""
        return cls(**(value | {"blocks": tuple(BlockInfo(**block) for block in value["blocks"])}))
