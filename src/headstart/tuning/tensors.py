"""Tensors in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a .safetensors file that whoever may read the folder's other files may read, too.

    Args:
        tensors: by name.
        path: of the file.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path)  # by way of a temporary file, which is its owner's alone
    path.chmod(mode)
