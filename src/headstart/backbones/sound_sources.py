"""Which file builds which sound backbone."""

from __future__ import annotations

from headstart.backbones.hf_audio import build as build_encoder
from headstart.backbones.mfcc import build as build_coefficients
from headstart.backbones.sounds import SoundBackbone
from headstart.backbones.source import BackboneSource
from headstart.backbones.speaker import build as build_speaker
from headstart.backbones.speech_embedding import build as build_speech_embedding


def open_sounds(source: BackboneSource) -> SoundBackbone:
    """Build a sound backbone.

    Args:
        source: as `catalog.locate` gives it.

    Returns:
        The backbone, frozen.

    Raises:
        BackboneError: if its weights cannot be had or do not fit.
    """
    builders = {
        "mfcc-1": build_coefficients,
        "ge2e-lstm-3x256": build_speaker,
        "speech-embedding-96": build_speech_embedding,
    }
    return builders.get(source.architecture, build_encoder)(source)
