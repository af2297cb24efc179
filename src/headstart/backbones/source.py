"""Where a named backbone comes from: a plain record, made before anything is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from headstart.backbones.bundled import BUNDLED
from headstart.backbones.files import sha256_of
from headstart.errors import BackboneError
from headstart.records import Modality

Kind = Literal["bundled", "timm", "hf", "file", "vectors", "random", "plugin", "fusion"]
Library = Literal["timm", "transformers", "tokenizers", "torch"]

SOUND_ARCHITECTURES = frozenset(entry.architecture for entry in BUNDLED.values() if entry.modality == "audio")


@dataclass(frozen=True, kw_only=True)
class BackboneSource:
    """Where a named backbone comes from, before anything is loaded."""

    name: str
    kind: Kind
    architecture: str
    modality: Modality
    weights_path: Path | None = None
    sha256: str = ""
    """Of the weights' file, where there is one yet; with what lies beside it, for a folder of transformers."""
    changes_path: Path | None = None
    """A .safetensors file of tensors that tuning changed; they replace those of the same names."""
    changes_sha256: str = ""
    base: str = ""
    """The name of the backbone that was tuned, for 'artifact:'."""
    base_sha256: str = ""
    """Of that backbone's weights when it was tuned; '' where nobody noted it."""
    licence: str = ""
    """Where the network's library does not know it."""
    image_size: int | None = None
    """Side in pixels that the weights were last trained at, where that is not the weights' own."""

    static: bool = False
    """Whether it is a table of vectors, one for each token."""
    most_words: int | None = None
    """Of a file of word vectors, where the user says so."""
    parts: tuple[BackboneSource, ...] = ()
    """The backbones that are used together, for 'A+B'."""

    @property
    def library(self) -> Library:
        """Which package builds it."""
        if self.static:
            return "tokenizers"
        if self.modality == "audio":
            return "torch" if self.architecture in SOUND_ARCHITECTURES else "transformers"
        return "transformers" if self.modality == "text" else "timm"

    @property
    def identity(self) -> dict[str, str]:
        """What tells these weights from others."""
        told = {"kind": self.kind, "architecture": self.architecture, "sha256": self.sha256}
        told |= {"most_words": str(self.most_words)} if self.most_words else {}
        return told | ({"changes": self.changes_sha256} if self.changes_path else {})

    def origin(self, published: str) -> str:
        """Where the weights came from, in words.

        Args:
            published: where those came from that tuning began with.
        """
        return published + (", then tuned by headstart" if self.changes_path else "")

    def with_changes(self, path: Path) -> BackboneSource:
        """The same backbone with some tensors replaced.

        Args:
            path: a .safetensors file of tensors by the network's own names.
        """
        return replace(self, changes_path=path, changes_sha256=sha256_of(path))


def check_base(source: BackboneSource, checksum: str) -> None:
    """Make sure that what tuning changed is put into the weights it was changed in.

    Args:
        source: of the backbone.
        checksum: of its weights before any change.

    Raises:
        BackboneError: if they are others.
    """
    if source.base_sha256 and source.base_sha256 != checksum:
        raise BackboneError(
            f"backbone {source.name!r}: the weights of {source.base} are not those it was tuned from "
            f"(sha256 {checksum[:12]}…, was {source.base_sha256[:12]}…).",
            expected=f"{source.base} as it was when the model was fitted.",
            mend="use the file, and the versions of torch and timm that headstart.json lists under packages.",
        )


def tuned_sha256(checksum: str, source: BackboneSource) -> str:
    """The checksum of weights in which tuning changed some: that of the weights before, where it changed none."""
    if not source.changes_path:
        return checksum
    return hashlib.sha256(f"{checksum} {source.changes_sha256}".encode()).hexdigest()
