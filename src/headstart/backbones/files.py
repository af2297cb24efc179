"""Weights on the user's own disk: checkpoints of timm, and models that `fit` saved. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import BackboneError
from headstart.records import Modality

# In a saved model's folder: the tensors that tuning changed.
CHANGES = "tail.safetensors"
MANIFEST = "headstart.json"
# What transformers and sentence-transformers keep beside an encoder's weights.
_SETTINGS = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "1_Pooling/config.json",
    "preprocessor_config.json",
)
# What transformers calls networks that take sounds (`model_type` of config.json).
SOUND_TYPES = frozenset(
    {
        "wav2vec2",
        "wav2vec2-conformer",
        "hubert",
        "wavlm",
        "unispeech",
        "unispeech-sat",
        "data2vec-audio",
        "sew",
        "sew-d",
        "whisper",
        "audio-spectrogram-transformer",
    }
)
# Large checkpoints are several files, and one that lists them.
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A checkpoint that was found."""

    path: Path
    library: str
    """'timm' or 'transformers'."""
    architecture: str
    """'' where neither the name nor a config.json tells it."""

    @property
    def modality(self) -> Modality:
        """What it takes, told by the kind of network."""
        if self.library == "timm":
            return "image"
        return "audio" if self.architecture in SOUND_TYPES else "text"

    @property
    def checksum(self) -> str:
        """SHA-256 of the weights, with what lies beside them and says what becomes of them: tokenizer, pooling, settings."""
        if self.library == "timm":
            return sha256_of(self.path)
        weights = " ".join(map(sha256_of, self.parts))
        return hashlib.sha256(f"{weights} {self.settings_checksum}".encode()).hexdigest()

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files that hold the weights, with the index of them first where they are several."""
        return (self.path, *_listed_in(self.path)) if self.path.name in _INDEXES else (self.path,)

    @property
    def settings_checksum(self) -> str:
        """SHA-256 of what lies beside the weights."""
        return settings_checksum(self.path.parent)


@dataclass(frozen=True, kw_only=True)
class SavedBackbone:
    """What a saved model says of the backbone inside it."""

    base: str
    """The name that opens the weights before tuning changed any."""
    base_sha256: str
    """Of those weights; '' where the model does not say."""
    modality: str
    image_size: int | None
    """Side in pixels of the model's input."""
    changes_path: Path | None
    """The tensors that tuning changed, their checksum compared; None where it changed none."""


def find_weights(name: str, rest: str) -> WeightsFile:
    """Find a checkpoint of timm or transformers.

    Args:
        name: the whole name, for messages.
        rest: PATH or PATH#ARCH.

    Returns:
        The weights' file, and whose they are.

    Raises:
        BackboneError: if there is none, or a folder lacks weights or config.json.
    """
    path_text, _, architecture = rest.partition("#")
    path = Path(path_text).expanduser()
    if not path.exists():
        raise BackboneError(
            f"backbone {name!r}: there is nothing at {path}.",
            expected="a checkpoint of timm or transformers: a folder with config.json, or timm's .safetensors or .pth file.",
            mend="check the path; file:PATH#ARCH names the architecture of a bare weights file.",
        )
    if not path.is_dir() and not path.is_file():
        raise BackboneError(
            f"backbone {name!r}: {path} is no regular file.",
            expected="a checkpoint of timm or transformers: a folder, or a .safetensors or .pth file.",
            mend="copy the weights into a file.",
        )
    if not path.is_dir():
        return WeightsFile(path=path, library="timm", architecture=architecture)
    known = ("model.safetensors", "pytorch_model.bin", "model.pth", *_INDEXES)
    weights = next((path / file for file in known if (path / file).is_file()), None)
    config = path / "config.json"
    if weights is None or not config.is_file():
        raise BackboneError(
            f"backbone {name!r}: the folder {path} holds no {'weights' if weights is None else 'config.json'}.",
            expected="config.json, and model.safetensors or pytorch_model.bin.",
            mend=(
                f"name it as artifact:{path}: it is a model that `headstart fit` saved."
                if (path / MANIFEST).is_file()
                else "save it with save_pretrained or timm.models.save_for_hf, or name timm's weights' file: file:PATH#ARCH."
            ),
        )
    library, named = _named_in(config)
    found = WeightsFile(path=weights, library=library, architecture=architecture or named)
    if missing := [part.name for part in found.parts if not part.is_file()]:
        raise BackboneError(
            f"backbone {name!r}: {weights.name} lists {missing[0]}, which the folder {path} does not hold.",
            expected="all parts of the weights.",
            mend="copy the whole folder.",
        )
    return found


def _listed_in(index: Path) -> list[Path]:
    """The parts that an index of weights names."""
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
        return [index.parent / name for name in sorted(set(told["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"{index} cannot be read ({type(error).__name__}: {error}).",
            expected="a JSON object whose 'weight_map' names the file of each tensor, as save_pretrained writes it.",
            mend="copy the whole folder again from where it was made.",
        ) from error


def _named_in(config: Path) -> tuple[str, str]:
    """The library that wrote a config.json, and the architecture it names."""
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
        if "model_type" in told:
            return "transformers", str(told["model_type"])
        return "timm", str(told.get("architecture", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise BackboneError(
            f"{config} cannot be read ({type(error).__name__}: {error}).",
            expected="a JSON object with an 'architecture' (timm) or a 'model_type' (transformers).",
            mend="correct it, or name the architecture: file:PATH#ARCH.",
        ) from error


def read_saved(name: str, folder: Path) -> SavedBackbone:
    """Read what a saved model says of its backbone.

    Args:
        name: the whole name, for messages.
        folder: that `fit` made.

    Returns:
        The backbone's base, and what tuning changed of it.

    Raises:
        BackboneError: if the folder is no saved model, or what tuning changed is not what was saved.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        seen = "there is nothing there" if not folder.exists() else f"it holds no {MANIFEST}"
        raise BackboneError(
            f"backbone {name!r}: {folder} is no saved model: {seen}.",
            expected="the folder of a model that `headstart fit --out` made.",
            mend="check the path behind artifact:.",
        )
    try:
        told = json.loads(manifest.read_text(encoding="utf-8"))
        if told["task"] == "generate":
            raise _writes(name, folder)
        backbone, files = dict(told["backbone"]), dict(told["files"])
        if backbone.get("parts"):
            raise _is_several(name, folder, str(backbone["name"]))
        base = str(backbone.get("base") or backbone["name"])
        if base.startswith("artifact:"):
            raise ValueError(f"its backbone is {base}, which should be the one that was tuned first")
        found = SavedBackbone(
            base=base,
            # A model whose backbone had no tuning before it needs no second checksum.
            base_sha256=str(backbone.get("base_sha256") or ("" if backbone.get("base") else backbone["sha256"])),
            modality=str(told["modality"]),
            image_size=_image_size(told["preprocess"]),
            changes_path=folder / CHANGES if CHANGES in files else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"backbone {name!r}: {manifest} cannot be read ({type(error).__name__}: {error}).",
            expected="the file as `headstart fit` wrote it.",
            mend="copy the whole folder again from where it was made.",
        ) from error
    if found.changes_path and not (found.changes_path.is_file() and sha256_of(found.changes_path) == files[CHANGES]):
        why = "its sha256 differs" if found.changes_path.exists() else "it is gone"
        raise BackboneError(
            f"backbone {name!r}: {found.changes_path} is not what was saved: {why}.",
            expected="the file as `headstart fit` wrote it.",
            mend="copy the whole folder again from where it was made.",
        )
    return found


def _writes(name: str, folder: Path) -> BackboneError:
    return BackboneError(
        f"backbone {name!r}: the model in {folder} writes text, and gives no features of a whole one.",
        expected="a model that was fitted on labelled items, or an encoder such as all-minilm-l6-v2.",
        mend=f'headstart generate {folder} "PROMPT" has it write; --task generate takes it as a source.',
    )


def _is_several(name: str, folder: Path, backbones: str) -> BackboneError:
    return BackboneError(
        f"backbone {name!r}: the model in {folder} stands on several backbones together, {backbones}.",
        expected="a model that stands on one backbone.",
        mend=f"--backbone {backbones} gives the same features.",
    )


def settings_checksum(folder: Path) -> str:
    """SHA-256 of all in a folder of transformers that is small and no weights: configuration, tokenizer, pooling.

    Args:
        folder: with a config.json.
    """
    digest = hashlib.sha256()
    for path in sorted(folder / name for name in _SETTINGS):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _image_size(preprocess: dict[str, dict]) -> int | None:
    """The side of the network's input, where it takes pictures, or frames prepared as pictures."""
    size = preprocess.get("picture", preprocess).get("image_size")
    return None if size is None else int(size)
