"""Pretrained networks as ordered named blocks, each with its own preprocess, licence and weights' checksum."""

from headstart.backbones.bundled import BUNDLED
from headstart.backbones.catalog import BackboneSource, locate, open_backbone

__all__ = ["BUNDLED", "BackboneSource", "locate", "open_backbone"]
