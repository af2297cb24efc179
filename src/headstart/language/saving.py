"""A language model's folder: a checkpoint that transformers opens, too, with headstart.json and the evidence beside it.

Weights of a name on the hub are not copied: the tensors that changed are there (tail.safetensors), and the rest is opened by
name. Everything else could be gone tomorrow, so the whole network is there (model.safetensors).
"""

from __future__ import annotations

import copyreg
import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from headstart.artifact.store import MANIFEST, REPORT, SELF_TEST, read_manifest, sums_of_logs
from headstart.backbones.catalog import BackboneSource, find_source
from headstart.backbones.causal import CausalBackbone, open_causal
from headstart.backbones.files import CHANGES, find_weights, sha256_of
from headstart.errors import ArtifactError, BackboneError, SettingError
from headstart.features.device import accelerator
from headstart.language.model import LanguageModel, LanguageReport
from headstart.language.network import token_losses
from headstart.language.packing import Blocks
from headstart.model.manifest import Manifest
from headstart.model.place import STAGE, announce, own_path
from headstart.runtime import as_utf8, atomic_write_text
from headstart.tuning.tensors import save_tensors

WEIGHTS, CONFIG = "model.safetensors", "config.json"
GOLDEN_TOKENS = 64
TOLERANCE = 2e-2
"""Nats by which a token's loss may differ on another processor; another network's differ by far more."""
_EXAMPLE = "--backbone hf:HuggingFaceTB/SmolLM2-135M"


def find_language_model(name: str) -> BackboneSource:
    """Find a language model by name, without loading it.

    Args:
        name: hf:NAME, file:PATH, random:NAME with one of these, or artifact:PATH.

    Returns:
        Where it is.

    Raises:
        BackboneError: if there is none of that name, or it is for other items.
        SettingError: if no name is given: none is bundled.
        ArtifactError: if a saved model is named that does not write.
    """
    if name == "auto":
        raise SettingError(
            "no language model comes with the package, so one must be named.",
            expected="--backbone hf:NAME (downloaded once) or file:PATH (saved by transformers' save_pretrained).",
            mend=_EXAMPLE,
        )
    if name.startswith("artifact:"):
        return _saved_source(Path(name.partition(":")[2]).expanduser(), name)
    source = find_source(name)
    if source.library != "transformers" or source.kind not in {"hf", "file", "random"}:
        raise BackboneError(
            f"backbone {name!r} is no language model that writes.",
            expected="a causal model of transformers: hf:NAME, file:PATH, or artifact:PATH of a model that writes.",
            mend=_EXAMPLE,
        )
    return source


def _saved_source(folder: Path, name: str) -> BackboneSource:
    manifest = read_manifest(folder)
    _require_writing(manifest, folder)
    if CHANGES not in manifest.files:
        found = find_weights(name, str(folder))
        return BackboneSource(
            name=name,
            kind="file",
            architecture=found.architecture,
            modality="text",
            weights_path=found.path,
            sha256=found.checksum,
        )
    base = find_source(str(manifest.backbone["base"]))
    known = replace(base, name=name, base=base.name, base_sha256=str(manifest.backbone["base_sha256"]))
    return known.with_changes(folder / CHANGES)


def _require_writing(manifest: Manifest, folder: Path) -> None:
    if manifest.task != "generate":
        raise ArtifactError(
            f"{folder} labels {manifest.modality} items, and writes nothing.",
            expected="a model fitted with --task generate.",
            mend=f"headstart predict {folder} ITEM, or fit a language model: headstart fit CORPUS --task generate.",
        )


@dataclass(frozen=True, kw_only=True)
class Written:
    """What goes into a folder beside the network."""

    manifest: Manifest
    """Without its files."""
    texts: dict[str, str]
    """Report, page and card, by name."""
    golden: Blocks
    """Tokens whose losses are kept, to be compared when the model is opened."""
    changes: dict[str, torch.Tensor]


def save_model(folder: Path, backbone: CausalBackbone, written: Written, *, whole: bool) -> None:
    """Write a language model's folder.

    Args:
        folder: exists, and nobody reads it yet.
        backbone: with the changes in it.
        written: what goes beside it.
        whole: whether all weights are written, or those that changed.
    """
    stage = folder / STAGE  # what transformers writes has names that only it knows
    stage.mkdir()
    if whole:
        backbone.network.save_pretrained(stage, max_shard_size="1000GB")
        # Written by way of a temporary file, which is its owner's alone.
        (stage / WEIGHTS).chmod((stage / CONFIG).stat().st_mode)
    else:
        backbone.network.config.save_pretrained(stage)
        save_tensors({name: tensor.contiguous().cpu() for name, tensor in written.changes.items()}, stage / CHANGES)
    backbone.tokenizer.save_pretrained(stage)
    save_tensors(_golden(backbone, written.golden), stage / SELF_TEST)
    for name, text in written.texts.items():
        (stage / name).write_bytes(as_utf8(text))
    made = sorted(path for path in stage.rglob("*") if path.is_file())
    files = {path.relative_to(stage).as_posix(): sha256_of(path) for path in made}
    announce(folder, files)
    for path in sorted(stage.iterdir()):
        path.replace(folder / path.name)
    stage.rmdir()
    manifest = replace(written.manifest, files=files | sums_of_logs(folder))
    atomic_write_text(folder / MANIFEST, manifest.as_text(), error=ArtifactError)


def _golden(backbone: CausalBackbone, blocks: Blocks) -> dict[str, torch.Tensor]:
    read, following = (torch.from_numpy(part[:1, :GOLDEN_TOKENS].copy()) for part in (blocks.read, blocks.following))
    return {"read": read, "following": following, "losses": _losses(backbone, read, following)}


def _losses(backbone: CausalBackbone, read: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        hidden = backbone.base(input_ids=read, use_cache=False).last_hidden_state
        return token_losses(hidden, backbone.vocabulary, following)


def open_model(path: str | Path) -> LanguageModel:
    """Open a saved language model: compare checksums, and ask it for the losses of a few tokens again.

    Args:
        path: the folder `fit` made.

    Returns:
        The model, ready to write.

    Raises:
        ArtifactError: if it is no saved language model, was changed, or answers otherwise here.
        BackboneError: if its weights are to be had by name, and cannot be.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    _require_writing(manifest, folder)
    for name, sha256 in manifest.files.items():
        if not manifest.is_sealed(name):
            continue
        file = own_path(folder, name)
        if file is None or not file.is_file() or sha256_of(file) != sha256:
            why = "its sha256 differs" if file is not None and file.is_file() else "it is gone"
            raise _changed(folder, name, why)
    if REPORT not in manifest.files or SELF_TEST not in manifest.files:
        raise _changed(folder, MANIFEST, f"it does not list {REPORT} and {SELF_TEST}")
    backbone = open_causal(_saved_source(folder, f"artifact:{folder}"))
    golden = load_file(folder / SELF_TEST)
    found = _losses(backbone, golden["read"], golden["following"])
    worst = float((found - golden["losses"]).abs().max())
    if not worst <= TOLERANCE:
        raise _changed(folder, "the network", f"its losses differ by {worst:.1e} from those it was saved with")
    backbone.network.to(accelerator())
    content = read_report(folder)
    return LanguageModel(folder=folder, manifest=manifest, backbone=backbone, report=LanguageReport(content=content))


def _restore(folder: str, checksum: str) -> LanguageModel:
    """Open a model that another process sent, by its folder.

    Raises:
        ArtifactError: if the folder is gone, or another model is there now.
    """
    model = open_model(folder)
    if _identity(model) != checksum:
        raise _changed(Path(folder), MANIFEST, "another model was saved there since it was sent")
    return model


def _identity(model: LanguageModel) -> str:
    return hashlib.sha256(model.manifest.as_text().encode()).hexdigest()


# Sent to another process as the folder, which is opened there.
copyreg.pickle(LanguageModel, lambda model: (_restore, (str(model.folder.absolute()), _identity(model))))


def read_report(folder: Path) -> dict[str, Any]:
    """The evidence in a language model's folder.

    Raises:
        ArtifactError: if it is no JSON.
    """
    try:
        return dict(json.loads((folder / REPORT).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise _changed(folder, REPORT, "it is no JSON object") from error


def _changed(folder: Path, name: str, why: str) -> ArtifactError:
    return ArtifactError(
        f"{name} in {folder} is not what was saved: {why}.",
        expected="every file as `headstart fit` wrote it, and the versions that headstart.json lists under packages.",
        mend="copy the whole folder again from where it was made.",
    )


def packages() -> dict[str, str]:
    """Versions of what a language model is made with."""
    found = {}
    for name in ("headstart", "numpy", "torch", "transformers", "tokenizers", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
