"""Language models of transformers that write: opened, looked at, and cut between two layers.

As with encoders, nothing here knows an architecture. What a model is made of is found by running it: its layers are the one
list of that length that it runs through, what follows them (the last normalisation) is what runs after the last of them, and
it must be causal, which is tried by changing a later token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from headstart import runtime
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.changes import apply_changes, tensors_sha256
from headstart.backbones.encoder import EMBEDDINGS, Encoder, EncoderTail
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.backbones.source import check_base, tuned_sha256
from headstart.errors import BackboneError

OUTPUT = "output"
"""The block behind the layers: the last normalisation, and the vocabulary's weights where they are no embeddings."""
_TRIED = torch.tensor([[1, 2, 3, 2, 1, 3]])
_RANDOM_SEED = 0
_TOLERANCE = 1e-3


class _Reached(Exception):  # noqa: N818 - ends a run that went far enough, and is no error
    """The cut is reached."""


@dataclass(frozen=True, kw_only=True)
class CausalBackbone:
    """An open language model, frozen and in evaluation mode."""

    info: BackboneInfo
    network: Any
    """With the vocabulary's weights, as transformers makes it."""
    tokenizer: Any
    """A fast one, of transformers."""
    layers: str
    """The name of the list of layers in the network's base."""
    behind: tuple[str, ...]
    """Names of the base's parameters that come after the last layer."""
    max_tokens: int
    """That it can read at once."""

    @property
    def base(self) -> Any:  # noqa: ANN401 - a model of transformers
        """The network from token ids to the last hidden state (B, T, H)."""
        return self.network.base_model

    @property
    def vocabulary(self) -> nn.Linear:
        """The linear layer from the last hidden state (…, H) to scores of tokens (…, V)."""
        return self.network.get_output_embeddings()

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return len(self.base.get_submodule(self.layers))

    def encoder(self) -> Encoder:
        """The base as the cut takes it."""
        return Encoder(self.base, layers=self.layers, summary="last", normalised=False)

    def run_to(self, first: int, tokens: torch.Tensor) -> torch.Tensor:
        """Run the frozen part: what enters a layer.

        Args:
            first: the number of the layer.
            tokens: (B, T) int64.

        Returns:
            (B, T, H).
        """
        reached: list[torch.Tensor] = []

        def keep(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            reached.append(given[0] if given else named["hidden_states"])
            raise _Reached

        layer = list(self.base.get_submodule(self.layers).children())[first]
        handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with torch.no_grad():
                self.base(input_ids=tokens, use_cache=False)
        except _Reached:
            return reached[0]
        finally:
            handle.remove()
        raise RuntimeError(f"layer {first} of {self.info.name} was not reached")

    def tail(self, first: int) -> EncoderTail:
        """A copy of the layers from one on, and what is behind them; these train, and nothing else.

        Args:
            first: the number of the layer.

        Returns:
            From (B, T, H) and a mask (B, T) to a list, the last of which is the last hidden state (B, T, H).
        """
        tail = EncoderTail(self.encoder(), first)
        tail.encoder.network.config.use_cache = False  # type: ignore[union-attr]
        tail.freeze_what_does_not_run()
        for name, parameter in tail.encoder.network.named_parameters():
            if name in self.behind:
                parameter.requires_grad_(True)
        return tail


def open_causal(source: BackboneSource) -> CausalBackbone:
    """Open a language model.

    Args:
        source: of the kind 'hf', 'file' or 'random'.

    Returns:
        The model.

    Raises:
        BackboneError: if weights or tokenizer cannot be had, or it is no causal model whose layers can be cut.
    """
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = source.weights_path.parent if source.weights_path else source.architecture
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_how(folder))
        network = _load(source, folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise _cannot_load(source, error) from error
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise _cannot_load(source, ValueError("its tokenizer is no fast one"))
    checksum = source.sha256 if source.kind == "file" else tensors_sha256(network)
    check_base(source, checksum)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    network.requires_grad_(False).eval()
    layers, behind = _look_at(network, source.name)
    return CausalBackbone(
        info=_describe(network, source, layers, checksum),
        network=network,
        tokenizer=tokenizer,
        layers=layers,
        behind=behind,
        max_tokens=int(getattr(network.config, "max_position_embeddings", 0) or 1 << 20),
    )


def _load(source: BackboneSource, folder: Path | str) -> Any:  # noqa: ANN401 - a model of transformers
    if source.kind != "random":
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **_how(folder))
    config = transformers.AutoConfig.from_pretrained(folder, **_how(folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _how(folder: Path | str) -> dict[str, Any]:
    """No code of a checkpoint is run, and what lies here is not looked for elsewhere."""
    return {"local_files_only": runtime.offline() or isinstance(folder, Path), "trust_remote_code": False}


def _cannot_load(source: BackboneSource, error: Exception) -> BackboneError:
    told = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return BackboneError(
        f"backbone {source.name!r} cannot be opened as a language model: {told[:300]}",
        expected="a causal model of transformers (GPT-2, Llama, Qwen, SmolLM, …) with weights and a fast tokenizer.",
        mend="check the name; --offline uses only what was downloaded before.",
    )


def _look_at(network: Any, name: str) -> tuple[str, tuple[str, ...]]:  # noqa: ANN401 - as above
    """The name of the list of layers, and the names of the base's parameters behind them."""
    base, vocabulary = network.base_model, network.get_output_embeddings()
    with torch.no_grad():
        hidden = base(input_ids=_TRIED, use_cache=False).last_hidden_state
        scores = network(input_ids=_TRIED, use_cache=False).logits
        changed = network(input_ids=torch.cat([_TRIED[:, :-1], _TRIED[:, :1]], 1), use_cache=False).logits
        if not torch.allclose(scores[:, :-1], changed[:, :-1], atol=_TOLERANCE):
            raise _unsuitable(name, "it sees the tokens that it should guess: it is an encoder, not a causal model")
        if not isinstance(vocabulary, nn.Linear) or not torch.allclose(vocabulary(hidden), scores, atol=_TOLERANCE):
            raise _unsuitable(name, "between its last layer and its vocabulary there is more than one linear layer")
    count = int(getattr(network.config, "num_hidden_layers", 0) or 0)
    lists = [found for found, module in base.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    for found in lists:
        behind = _behind(base, found)
        if behind is not None:
            return found, behind
    raise _unsuitable(name, f"it keeps its {count} layers in no list that it runs through once")


def _behind(base: Any, layers: str) -> tuple[str, ...] | None:  # noqa: ANN401 - as above
    """Names of parameters whose modules run after the last layer of a list; None where not each layer runs once, in turn."""
    order: list[str] = []
    listed = {f"{layers}.{number}" for number in range(len(base.get_submodule(layers)))}
    handles = [
        module.register_forward_hook(lambda _, __, ___, name=name: order.append(name))
        for name, module in base.named_modules()
        if name and (name in listed or not name.startswith(f"{layers}."))
    ]
    try:
        with torch.no_grad():
            base(input_ids=_TRIED, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if [name for name in order if name in listed] != [f"{layers}.{number}" for number in range(len(listed))]:
        return None
    last = max(place for place, name in enumerate(order) if name in listed)
    after = [name for name in order[last + 1 :] if name != layers]
    named = base.get_submodule
    return tuple(f"{name}.{own}" for name in after for own, _ in named(name).named_parameters(recurse=False))


def _unsuitable(name: str, why: str) -> BackboneError:
    return BackboneError(
        f"backbone {name!r} cannot write: {why}.",
        expected="a causal model of transformers, as of the GPT-2, Llama, Qwen and SmolLM families.",
        mend="name another with --backbone hf:NAME or file:PATH.",
    )


def _describe(network: Any, source: BackboneSource, layers: str, checksum: str) -> BackboneInfo:  # noqa: ANN401 - as above
    base, width = network.base_model, int(network.get_input_embeddings().weight.shape[1])
    counts = [_size(layer) for layer in base.get_submodule(layers).children()]
    total = _size(network)
    embeddings = _size(network.get_input_embeddings())
    named = [
        (EMBEDDINGS, embeddings),
        *((f"layers.{number}", count) for number, count in enumerate(counts)),
        (OUTPUT, total - embeddings - sum(counts)),
    ]
    return BackboneInfo(
        name=source.name,
        architecture=str(network.config.model_type),
        modality="text",
        licence=source.licence or "not stated",
        source=str(source.weights_path.parent if source.weights_path else source.architecture),
        sha256=tuned_sha256(checksum, source),
        base_sha256=checksum,
        width=width,
        num_parameters=total,
        blocks=tuple(BlockInfo(name=name, width=width, num_parameters=count) for name, count in named),
        base=source.base,
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
