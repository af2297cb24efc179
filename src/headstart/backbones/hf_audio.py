"""Sound encoders built with transformers: wav2vec 2.0 and its kin, HuBERT, Whisper's encoder, AST.

Each is taken apart into what makes its first hidden state, its layers, and a last normalisation, and put together again as a
row of blocks; that the row gives what the whole gives is tried when it is built. What a feature extractor of transformers does
to samples is done by layers, so that the compiled network needs none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from headstart import runtime
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.changes import apply_changes, tensors_sha256
from headstart.backbones.info import BackboneInfo
from headstart.backbones.sound_fronts import FilterbankFront, SampleFront, WhisperFront
from headstart.backbones.sound_network import SoundNetwork
from headstart.backbones.sounds import SoundBackbone, block_infos
from headstart.backbones.source import check_base, tuned_sha256
from headstart.errors import BackboneError
from headstart.preprocess.audio import AudioPreprocess

# Seconds in a window of a network that takes any length, and how much is read of one sound.
WINDOW_SECONDS, MOST_SECONDS = 4.0, 40.0
RANDOM_SEED = 0
# The row's outputs against the network's own, of its largest number.
SAME = 1e-4
_NORMS = ("layernorm", "layer_norm", "norm", "final_layer_norm")


class Beginning(nn.Module):
    """All of an encoder that comes before its first layer."""

    def __init__(self, network: nn.Module, layers: str, length: int) -> None:
        """Copy a network without its layers.

        Args:
            network: not changed.
            layers: the name of its list of layers.
            length: of the tuple that a layer gives; 0 where it gives a tensor.
        """
        super().__init__()
        self.network = copy.deepcopy(network)
        self.kept = _Keeper(length)
        owner, _, name = layers.rpartition(".")
        setattr(self.network.get_submodule(owner), name, nn.ModuleList([self.kept]))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """What would enter the first layer."""
        self.network(given)
        return self.kept.seen[0]


class _Keeper(nn.Module):
    """Stands where the layers were, and keeps what enters."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.seen: list[torch.Tensor] = []

    def forward(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as the layer
        hidden = given[0] if given else named["hidden_states"]
        self.seen = [hidden]
        return (hidden, *[None] * (self.length - 1)) if self.length else hidden


class Layer(nn.Module):
    """One layer, called as its encoder calls it; the last one with the normalisation behind it."""

    def __init__(self, layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any], norm: nn.Module | None) -> None:
        super().__init__()
        self.layer = layer
        self.norm = norm
        self.given = given[1:]
        self.named = {name: value for name, value in named.items() if name != "hidden_states"}

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Run the layer: (N, T, H) to (N, T, H)."""
        found = self.layer(hidden, *self.given, **self.named)
        hidden = found[0] if isinstance(found, tuple) else found
        return hidden if self.norm is None else self.norm(hidden)


class Whole(nn.Module):
    """An encoder that cannot be taken apart: samples or bands to its last hidden state."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Run the encoder."""
        return self.network(given).last_hidden_state


def build(source: BackboneSource) -> SoundBackbone:
    """Build an encoder, load its weights and the settings of its feature extractor, freeze it and find its layers.

    Args:
        source: as `catalog.locate` gives it.

    Returns:
        The backbone.

    Raises:
        BackboneError: if weights or settings cannot be had, or it is no encoder of sounds.
    """
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = source.weights_path.parent if source.weights_path else source.architecture
    extractor = _load(source, lambda: transformers.AutoFeatureExtractor.from_pretrained(folder, **_how(folder)))
    encoder = _load_encoder(source, folder)
    encoder.requires_grad_(False).eval()
    front, window, most = _front_of(extractor, source.name)
    names, blocks, why = _in_a_row(encoder, front, window, source.name)
    network = SoundNetwork(front, blocks, masked=not isinstance(front, FilterbankFront)).eval()
    checksum = source.sha256 if source.kind == "file" else tensors_sha256(network)
    check_base(source, checksum)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    network.requires_grad_(False)
    infos = block_infos(network, names, window)
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="audio",
        licence=source.licence or "not stated",
        source=f"untrained: random weights of seed {RANDOM_SEED}" if source.kind == "random" else str(folder),
        sha256=tuned_sha256(checksum, source),
        base_sha256=checksum,
        width=infos[-1].width,
        num_parameters=sum(block.num_parameters for block in infos),
        blocks=infos,
        base=source.base,
    )
    preprocess = AudioPreprocess(rate_hz=extractor.sampling_rate, window=window, max_windows=most)
    return SoundBackbone(info=info, preprocess=preprocess, network=network, why_untraced=why, mostly_linear=True)


def _how(folder: Path | str) -> dict[str, Any]:
    """Options of every loading: no code of a checkpoint is run, and what lies here is not looked for elsewhere."""
    return {"local_files_only": runtime.offline() or isinstance(folder, Path), "trust_remote_code": False}


def _load(source: BackboneSource, load: Callable[[], Any]) -> Any:  # noqa: ANN401 - anything of transformers
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackboneError(
            f"backbone {source.name!r} cannot be loaded by transformers: {told[:300]}",
            expected="a sound encoder of transformers with weights, config.json and preprocessor_config.json.",
            mend="check the name; --offline uses only what was downloaded before.",
        ) from error


def _load_encoder(source: BackboneSource, folder: Path | str) -> nn.Module:
    """The network without any head or decoder; with random weights, if its source says so."""

    def load() -> nn.Module:
        if source.kind != "random":
            return transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, **_how(folder))
        config = transformers.AutoConfig.from_pretrained(folder, **_how(folder))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return transformers.AutoModel.from_config(config, dtype=torch.float32)

    network = _load(source, load)
    if getattr(network.config, "is_encoder_decoder", False):
        network = network.get_encoder()
    if getattr(network.config, "apply_spec_augment", False):
        network.config.apply_spec_augment = False  # views are made of the samples, where a training wants them
    return network


def _front_of(extractor: Any, name: str) -> tuple[nn.Module, int, int]:  # noqa: ANN401 - of transformers
    """What a feature extractor does, as a layer; W; and how many windows are read of one sound."""
    rate = int(extractor.sampling_rate)
    match type(extractor).__name__:
        case "WhisperFeatureExtractor":
            front: nn.Module = WhisperFront(extractor)
            window = int(extractor.n_samples)
        case "ASTFeatureExtractor":
            front = FilterbankFront(extractor)
            assert isinstance(front, FilterbankFront), "made above"
            window = front.frame + (front.num_frames - 1) * front.hop
        case "Wav2Vec2FeatureExtractor":
            front = SampleFront(normalised=bool(extractor.do_normalize))
            window = round(WINDOW_SECONDS * rate)
        case other:
            raise BackboneError(
                f"backbone {name!r} prepares sounds by {other}, which is not known here.",
                expected="Wav2Vec2FeatureExtractor, WhisperFeatureExtractor or ASTFeatureExtractor.",
                mend="choose another backbone: wav2vec 2.0, HuBERT, WavLM, Whisper, AST.",
            )
    return front, window, max(2, round(2 * MOST_SECONDS * rate / window) - 1)


def _in_a_row(encoder: nn.Module, front: nn.Module, window: int, name: str) -> tuple[tuple[str, ...], list[nn.Module], str]:
    """Take an encoder apart: names of the blocks, the blocks, and why there is but one, where there is."""
    samples = 0.05 * torch.sin(torch.arange(window) / 7.0)[None] + 0.01 * torch.cos(torch.arange(window) ** 1.3)[None]
    try:
        with torch.no_grad():
            given = front(samples, torch.ones_like(samples, dtype=torch.bool))
            expected = encoder(given).last_hidden_state
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise BackboneError(
            f"backbone {name!r} is no encoder of sounds: {type(encoder).__name__} cannot run on them alone.",
            expected="an encoder such as wav2vec 2.0, HuBERT, WavLM, Whisper or AST.",
            mend="choose another backbone.",
        ) from error
    count = int(getattr(encoder.config, "num_hidden_layers", 0) or 0)
    lists = [name for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    for found in lists:
        blocks = _try_list(encoder, found, given, expected)
        if blocks:
            return ("embeddings", *(f"layers.{number}" for number in range(count))), blocks, ""
    why = f"{type(encoder).__name__} keeps its {count} layers in no list that it runs through once, each alone."
    return ("encoder",), [Whole(encoder)], why


def _try_list(encoder: nn.Module, layers: str, given: torch.Tensor, expected: torch.Tensor) -> list[nn.Module]:
    """The row of blocks around a list of layers; none where it gives something else than the encoder."""
    listed = list(encoder.get_submodule(layers).children())
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    lengths: list[int] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args, named: calls.append((args, named)), with_kwargs=True)
        for layer in listed
    ]
    handles.append(
        listed[0].register_forward_hook(lambda _, __, out: lengths.append(len(out) if isinstance(out, tuple) else 0))
    )
    try:
        with torch.no_grad():
            encoder(given)
    finally:
        for handle in handles:
            handle.remove()
    if len(calls) != len(listed):
        return []
    owner = encoder.get_submodule(layers.rpartition(".")[0])
    norms = [owner.get_submodule(norm) for norm in _NORMS if norm in dict(owner.named_children())]
    for norm in (None, *norms):
        ends = [None] * (len(listed) - 1) + [norm]
        row: list[nn.Module] = [Beginning(encoder, layers, lengths[0])]
        row += [Layer(layer, *call, end) for layer, call, end in zip(listed, calls, ends, strict=True)]
        if _gives(row, given, expected):
            return row
    return []


def _gives(row: list[nn.Module], given: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether blocks in a row give what is expected; of two inputs, so that no size of a batch is baked in."""
    try:
        with torch.no_grad():
            state = torch.cat([given, 0.5 * given])
            for block in row:
                state = block(state)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False
    same = state[:1].shape == expected.shape
    return same and float((state[:1] - expected).abs().max()) <= SAME * float(expected.abs().max())
