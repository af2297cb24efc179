"""Putting the tensors that tuning changed into a network, in place of the source's."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.cutting import Frozen
from headstart.backbones.source import check_base, tuned_sha256
from headstart.errors import BackboneError


def apply_changes(network: nn.Module, path: Path) -> None:
    """Replace the tensors that tuning changed.

    Args:
        network: changed in place.
        path: a .safetensors file of tensors by the network's own names.

    Raises:
        BackboneError: if the file cannot be read, or its tensors are none of the network's.
    """
    try:
        changes = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BackboneError(
            f"the tuned weights in {path} cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:200]}).",
            expected="tensors by name, as `headstart fit` wrote them.",
            mend="copy the whole folder again from where it was made.",
        ) from error
    own = network.state_dict()
    wrong = [name for name, tensor in changes.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise BackboneError(
            f"the tuned weights in {path} do not fit the backbone: {len(wrong)} tensors, first {wrong[0]!r}.",
            expected="tensors named and shaped as the backbone's own.",
            mend="use the backbone that was tuned, and the timm version that headstart.json lists under packages.",
        )
    network.load_state_dict(changes, strict=False)


def as_tuned(backbone: Backbone, source: BackboneSource) -> Backbone:
    """An open backbone with the changes of its source, where it was opened without them.

    Args:
        backbone: its network is changed in place.
        source: with the changes, if any.

    Returns:
        The backbone under the source's name.

    Raises:
        BackboneError: if the changes cannot be read or do not fit.
    """
    info = backbone.info
    if not (source.base or source.changes_path):
        return backbone
    check_base(source, info.sha256)
    if source.changes_path:
        network = backbone.network.network if isinstance(backbone.network, Frozen) else backbone.network
        apply_changes(network, source.changes_path)
    told = replace(info, name=source.name, base=source.base, base_sha256=info.sha256, sha256=tuned_sha256(info.sha256, source))
    return replace(backbone, info=told)


def tensors_sha256(network: nn.Module) -> str:
    """Name a network's weights and buffers by their content, where they come from no one file: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
