"""Text encoders built with transformers: the one file that knows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from headstart import runtime
from headstart.backbones.catalog import BUNDLED, BackboneSource
from headstart.backbones.changes import apply_changes, check_base, tensors_sha256, tuned_sha256
from headstart.backbones.encoder import EMBEDDINGS, POOL, Encoder, Summary
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.backbones.texts import TextBackbone
from headstart.errors import BackboneError
from headstart.preprocess.text import TextPreprocess

# A checkpoint that names no length reads this much at most; more is slow, and few texts need it.
MOST_TOKENS = 512
RANDOM_SEED = 0


def build(source: BackboneSource) -> TextBackbone:
    """Build an encoder, load its weights and tokenizer, freeze it and find its layers.

    Args:
        source: as `catalog.locate` gives it.

    Returns:
        The backbone.

    Raises:
        BackboneError: if weights or tokenizer cannot be had, or it is no encoder.
    """
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = source.weights_path.parent if source.weights_path else source.architecture
    network, config, tokenizer = _load(source, folder)
    checksum = source.sha256 or tensors_sha256(network)
    check_base(source, checksum)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    network.requires_grad_(False).eval()
    told = _sentence_settings(folder)
    layers = _find_layers(network, int(config.num_hidden_layers))
    encoder = Encoder(network, layers=layers, summary=told["summary"], normalised=told["normalised"]).eval()
    width = int(config.hidden_size)
    preprocess = TextPreprocess(tokenizer=tokenizer, max_tokens=_max_tokens(config, told))
    blocks = _blocks(network, layers, width)
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="text",
        licence=source.licence or "not stated",
        source=str(folder) if source.kind != "bundled" else f"the package {BUNDLED[source.base or source.name].package}",
        sha256=tuned_sha256(checksum, source),
        base_sha256=checksum,
        width=width,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        blocks=blocks,
        base=source.base,
    )
    return TextBackbone(info=info, preprocess=preprocess, encoder=encoder)


def _load(source: BackboneSource, folder: Path | str) -> tuple[nn.Module, Any, str]:
    """The network without any head, its configuration, and its tokenizer as JSON."""
    local = runtime.offline() or isinstance(folder, Path)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=local)
        network = transformers.AutoModel.from_pretrained(folder, local_files_only=local, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"backbone {source.name!r} cannot be loaded by transformers: {str(error).splitlines()[0][:300]}",
            expected="a model of transformers with weights and a tokenizer.",
            mend="check the name; --offline uses only what was downloaded before.",
        ) from error
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise BackboneError(
            f"the tokenizer of backbone {source.name!r} is no fast one, so no model of it can predict without transformers.",
            expected="a tokenizer.json beside the weights.",
            mend="convert it: AutoTokenizer.from_pretrained(PATH, use_fast=True).save_pretrained(PATH)",
        )
    # Of what a model for pre-training has behind the encoder, nothing is used.
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    return network, network.config, fast.to_str()


def _find_layers(network: nn.Module, count: int) -> str:
    """The name of the list of layers."""
    found = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not found:
        raise BackboneError(
            f"{type(network).__name__} keeps its {count} layers in no list.",
            expected="an encoder such as BERT, RoBERTa, DistilBERT, DeBERTa, MPNet or ModernBERT.",
            mend="choose another backbone.",
        )
    return found[0]


def _blocks(network: nn.Module, layers: str, width: int) -> tuple[BlockInfo, ...]:
    counts = [sum(p.numel() for p in layer.parameters()) for layer in network.get_submodule(layers).children()]
    rest = sum(p.numel() for p in network.parameters()) - sum(counts)
    named = [(EMBEDDINGS, rest), *((f"layers.{index}", count) for index, count in enumerate(counts)), (POOL, 0)]
    return tuple(BlockInfo(name=name, width=width, num_parameters=count) for name, count in named)


def _sentence_settings(folder: Path | str) -> dict[str, Any]:
    """How the checkpoint makes one vector of a text, as sentence-transformers writes it; the mean, where it does not say."""
    told: dict[str, Any] = {"summary": "mean", "normalised": False, "max_tokens": None}
    if not isinstance(folder, Path):
        return told
    modules = _read_json(folder / "modules.json")
    told["normalised"] = any(str(module.get("type", "")).endswith("Normalize") for module in modules or [])
    told["max_tokens"] = (_read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    pooling = _read_json(folder / "1_Pooling" / "config.json") or {}
    summaries: dict[str, Summary] = {"pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    told["summary"] = next((summary for key, summary in summaries.items() if pooling.get(key)), "mean")
    return told


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _max_tokens(config: Any, told: dict[str, Any]) -> int:  # noqa: ANN401 - a configuration of transformers
    if told["max_tokens"]:
        return int(told["max_tokens"])
    positions = int(getattr(config, "max_position_embeddings", 0) or MOST_TOKENS)
    # RoBERTa counts positions from its padding token on.
    offset = int(config.pad_token_id or 0) + 1 if getattr(config, "model_type", "") in _OFFSET_POSITIONS else 0
    return min(positions - offset, MOST_TOKENS)


_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}
