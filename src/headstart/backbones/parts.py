"""The parts of any backbone, as they are compiled and as they are trained."""

from __future__ import annotations

from headstart.backbones.backbone import Backbone
from headstart.backbones.pooling import PooledBlocks, PooledPrefix, PooledTail
from headstart.backbones.sounds import PooledSoundPrefix, PooledSounds, SoundBackbone, SoundTail
from headstart.backbones.texts import PooledTextPrefix, PooledTexts, TextBackbone, TextTail

AnyBackbone = Backbone | TextBackbone | SoundBackbone
Pooled = PooledBlocks | PooledPrefix | PooledTexts | PooledTextPrefix | PooledSounds | PooledSoundPrefix
Tail = PooledTail | TextTail | SoundTail


def pooled_network(backbone: AnyBackbone, cut: str) -> Pooled:
    """The network that is compiled: the whole backbone, or the part of it up to a cut.

    Args:
        backbone: as `open_backbone` gives it.
        cut: the last block of the part; '' for the whole.

    Raises:
        BackboneError: if there is no such block, or the network cannot be cut.
    """
    if isinstance(backbone, TextBackbone):
        return PooledTextPrefix(backbone, cut) if cut else PooledTexts(backbone)
    if isinstance(backbone, SoundBackbone):
        return PooledSoundPrefix(backbone, cut) if cut else PooledSounds(backbone)
    return PooledPrefix(backbone, cut) if cut else PooledBlocks(backbone)


def pooled_tail(backbone: AnyBackbone, cut: str | None) -> Tail:
    """The network that is trained: the blocks behind a cut, with weights of their own.

    Args:
        backbone: as `open_backbone` gives it; not changed.
        cut: the last frozen block; None for the whole network.

    Raises:
        BackboneError: if there is no such block, or the network cannot be cut.
    """
    if isinstance(backbone, TextBackbone):
        return TextTail(backbone, cut)
    return SoundTail(backbone, cut) if isinstance(backbone, SoundBackbone) else PooledTail(backbone, cut)
