"""Pretrained networks as ordered named blocks, each with its own preprocess, licence and weights' checksum."""

from headstart.backbones.catalog import BUNDLED, BackboneSource, locate, open_backbone

__all__ = ["BUNDLED", "BackboneSource", "locate", "open_backbone"]
