"""How a checkpoint makes one vector of a text, where it is one of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from headstart import runtime
from headstart.backbones.encoder import Summary
from headstart.errors import BackboneError

# By its names in the settings; older ones are one yes-or-no key each.
_SUMMARIES: dict[str, Summary] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_OLDER = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Where the most tokens that are read may be told; what transformers' own tokenizers say is not always meant for this.
_LENGTHS = (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
# What tokenizers say that know of no length is larger by far.
_NO_LENGTH = 1_000_000


@dataclass(frozen=True, kw_only=True)
class SentenceSettings:
    """What the checkpoint says; layers behind the pooling other than a normalisation are left out."""

    summary: Summary = "mean"
    normalised: bool = False
    """Whether the vector has length 1."""
    max_tokens: int | None = None


def read_sentence_settings(folder: Path | str, name: str) -> SentenceSettings:
    """Read them from a folder, or from the hub or what was downloaded of it before.

    Args:
        folder: of the checkpoint, or its name on the hub.
        name: of the backbone, for messages.

    Returns:
        The settings; the mean of all tokens, where the checkpoint says nothing.

    Raises:
        BackboneError: if it makes its vector in a way that is not known here.
    """
    modules = _read_json(folder, "modules.json")
    if not isinstance(modules, list):
        return SentenceSettings(max_tokens=_length(folder, _LENGTHS[:1]))
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    pooling = next((str(module.get("path")) for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "")
    return SentenceSettings(
        summary=_summary(folder, f"{pooling}/config.json", name) if pooling else "mean",
        normalised="Normalize" in kinds,
        max_tokens=_length(folder, _LENGTHS),
    )


def _length(folder: Path | str, places: Sequence[tuple[str, str]]) -> int | None:
    for name, key in places:
        told = _read_json(folder, name)
        length = told.get(key) if isinstance(told, dict) else None
        if isinstance(length, int) and 0 < length < _NO_LENGTH:
            return length
    return None


def _summary(folder: Path | str, place: str, name: str) -> Summary:
    told = _read_json(folder, place)
    if not isinstance(told, dict):
        raise BackboneError(
            f"backbone {name!r}: its modules.json names a pooling, and {place} is not there or holds no object.",
            expected="the settings of the pooling, as sentence-transformers writes them.",
            mend="copy or download the whole checkpoint again.",
        )
    modes = told.get("pooling_mode", [mode for key, mode in _OLDER.items() if told.get(key)])
    modes = [modes] if isinstance(modes, str) else list(modes or ["mean"])
    if len(modes) == 1 and modes[0] in _SUMMARIES:
        return _SUMMARIES[modes[0]]
    raise BackboneError(
        f"backbone {name!r} makes a text's vector by pooling its tokens as {' and '.join(map(repr, modes))}.",
        expected=f"one of {', '.join(_SUMMARIES)}.",
        mend="save the encoder alone, with transformers' save_pretrained, to have the mean of all tokens; or choose another.",
    )


def _read_json(folder: Path | str, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """A file's content; None where there is no such file.

    Raises:
        BackboneError: if there is one, and it cannot be had or read: no other way of pooling is taken in its place.
    """
    try:
        path = folder / name if isinstance(folder, Path) else _fetch(folder, name)
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, EntryNotFoundError):
        return None
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise BackboneError(
            f"{name} of the backbone at {folder} cannot be read ({type(error).__name__}: {error}).",
            expected="the file as its library wrote it.",
            mend="copy or download it again.",
        ) from error


def _fetch(repository: str, name: str) -> Path:
    return Path(hf_hub_download(repository, name, local_files_only=runtime.offline()))
