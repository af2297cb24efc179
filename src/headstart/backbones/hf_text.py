"""Text encoders built with transformers: the one file that knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from headstart import runtime
from headstart.backbones.bundled import BUNDLED
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.changes import apply_changes, tensors_sha256
from headstart.backbones.encoder import EMBEDDINGS, POOL, WHOLE, Encoder
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.backbones.sentence import SentenceSettings, read_sentence_settings
from headstart.backbones.source import check_base, tuned_sha256
from headstart.backbones.texts import TextBackbone
from headstart.errors import BackboneError
from headstart.preprocess.text import TextPreprocess

# A checkpoint that names no length reads this much at most; more is slow, and few texts need it.
MOST_TOKENS = 512
RANDOM_SEED = 0
# Tokens on which a network is looked at: ids that every vocabulary has.
_TRIED = torch.tensor([[1, 2, 3, 2, 1]])


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
    tokenizer = _load_tokenizer(source, folder)
    network = _load_network(source, folder)
    checksum = source.sha256 if source.kind in {"bundled", "file"} else tensors_sha256(network)
    check_base(source, checksum)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    network.requires_grad_(False).eval()
    told = read_sentence_settings(folder, source.name)
    layers, why, width = _find_layers(network, source.name)
    encoder = Encoder(network, layers=layers, summary=told.summary, normalised=told.normalised).eval()
    preprocess = TextPreprocess(tokenizer=tokenizer, max_tokens=_max_tokens(network.config, told))
    blocks = _blocks(network, layers, width)
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="text",
        licence=source.licence or "not stated",
        source=source.origin(_origin(source, folder)),
        sha256=tuned_sha256(checksum, source),
        base_sha256=checksum,
        width=width,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        blocks=blocks,
        base=source.base,
    )
    return TextBackbone(info=info, preprocess=preprocess, encoder=encoder, why_untraced=why)


def _origin(source: BackboneSource, folder: Path | str) -> str:
    match source.kind:
        case "bundled":
            return f"the package {BUNDLED[source.base or source.name].package}"
        case "random":
            return f"untrained: random weights of seed {RANDOM_SEED}, configured as {folder}"
    return str(folder)


def _load_tokenizer(source: BackboneSource, folder: Path | str) -> str:
    """The tokenizer as JSON, as the `tokenizers` package reads it without transformers."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_how(folder))
    except Exception as error:  # whatever a tokenizer's own code meets in its files
        raise _cannot_load(source, error) from error
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise BackboneError(
            f"the tokenizer of backbone {source.name!r} is no fast one, so no model of it can predict without transformers.",
            expected="a tokenizer.json beside the weights.",
            mend="convert it: AutoTokenizer.from_pretrained(PATH, use_fast=True).save_pretrained(PATH)",
        )
    # How long a text may be, and what stands behind it in a batch, is the recipe's to say, to whoever reads the file.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer.backend_tokenizer.to_str()


def _load_network(source: BackboneSource, folder: Path | str) -> nn.Module:
    """The network without any head; with random weights, if its source says so."""
    try:
        if source.kind == "random":
            config = transformers.AutoConfig.from_pretrained(folder, **_how(folder))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(RANDOM_SEED)
                network = transformers.AutoModel.from_config(config, dtype=torch.float32)
        else:
            network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, **_how(folder))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _cannot_load(source, error) from error
    # Of what a model for pre-training has behind the encoder, nothing is used.
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    return network


def _how(folder: Path | str) -> dict[str, Any]:
    """Options of every loading: no code of a checkpoint is run, and what lies here is not looked for elsewhere."""
    return {"local_files_only": runtime.offline() or isinstance(folder, Path), "trust_remote_code": False}


def _cannot_load(source: BackboneSource, error: Exception) -> BackboneError:
    told = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return BackboneError(
        f"backbone {source.name!r} cannot be loaded by transformers: {told[:300]}",
        expected="a model of transformers with weights and a tokenizer.",
        mend="check the name; --offline uses only what was downloaded before.",
    )


def _find_layers(network: nn.Module, name: str) -> tuple[str, str, int]:
    """The name of the list of layers, or '' and why there is none that can be cut; and the width of the features.

    Raises:
        BackboneError: if the network gives no hidden state for each token.
    """
    try:
        with torch.no_grad():
            hidden = Encoder(network, layers="", summary="mean", normalised=False)(_TRIED)[0][0]
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        raise BackboneError(
            f"backbone {name!r} is no encoder of texts: {type(network).__name__} cannot run on tokens and their mask alone.",
            expected="an encoder such as BERT, RoBERTa, DistilBERT, DeBERTa, MPNet or ModernBERT.",
            mend="choose another backbone.",
        ) from error
    count = int(getattr(network.config, "num_hidden_layers", 0) or 0)
    lists = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    for found in lists:
        if _runs_in_turn(network, found, hidden.shape):
            return found, "", int(hidden.shape[2])
    return "", f"{type(network).__name__} keeps its {count} layers in no list that it runs through once.", int(hidden.shape[2])


def _runs_in_turn(network: nn.Module, layers: str, shape: torch.Size) -> bool:
    """Whether each layer of a list is called once, and gives a hidden state for each token."""
    encoder = Encoder(network, layers=layers, summary="mean", normalised=False)
    try:
        with torch.no_grad():
            outputs, _ = encoder(_TRIED)
    except (KeyError, IndexError, TypeError, AttributeError):
        return False
    return len(outputs) == encoder.num_layers + 1 and all(
        isinstance(output, torch.Tensor) and output.shape == shape for output in outputs
    )


def _blocks(network: nn.Module, layers: str, width: int) -> tuple[BlockInfo, ...]:
    total = sum(p.numel() for p in network.parameters())
    if not layers:
        named = [(WHOLE, total), (POOL, 0)]
        return tuple(BlockInfo(name=name, width=width, num_parameters=count) for name, count in named)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in network.get_submodule(layers).children()]
    named = [(EMBEDDINGS, total - sum(counts)), *((f"layers.{index}", count) for index, count in enumerate(counts)), (POOL, 0)]
    return tuple(BlockInfo(name=name, width=width, num_parameters=count) for name, count in named)


def _max_tokens(config: Any, told: SentenceSettings) -> int:  # noqa: ANN401 - a configuration of transformers
    if told.max_tokens:
        return told.max_tokens
    positions = int(getattr(config, "max_position_embeddings", 0) or MOST_TOKENS)
    # RoBERTa counts positions from its padding token on.
    offset = int(config.pad_token_id or 0) + 1 if getattr(config, "model_type", "") in _OFFSET_POSITIONS else 0
    return min(positions - offset, MOST_TOKENS)


_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"}
