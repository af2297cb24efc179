"""What the blocks of a text network's trainable part consist of."""

from __future__ import annotations

from headstart.backbones.encoder import EncoderTail
from headstart.backbones.texts import PooledTexts


def text_blocks(network: PooledTexts | EncoderTail) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Tell the parameters and modules of a tail's network by block: all that is no layer, then each layer.

    Args:
        network: of a `TextTail`.

    Returns:
        Names of parameters and of modules, for each block that has parameters, first to last.
    """
    encoder, before = (network.encoder, "encoder.") if isinstance(network, EncoderTail) else (network.network, "network.")
    named = [name for name, _ in network.named_parameters()]
    if not encoder.layers:
        return [(tuple(named), tuple(name for name, _ in network.named_children()))]
    path = f"{before}network.{encoder.layers}"
    layers = [f"{path}.{number}" for number in range(encoder.num_layers)]
    around = [
        name
        for name, _ in network.named_modules()
        if name and not _is_in(name, path) and not _is_in(path, name) and _is_in(path, name.rpartition(".")[0])
    ]
    rest = tuple(name for name in named if not _is_in(name, path))
    blocks = [(rest, tuple(around)), *((tuple(n for n in named if _is_in(n, layer)), (layer,)) for layer in layers)]
    return [(parameters, modules) for parameters, modules in blocks if parameters]


def _is_in(name: str, outer: str) -> bool:
    """Whether a name is that of a module, or of something in it; everything is in ''."""
    return not outer or name == outer or name.startswith(f"{outer}.")
