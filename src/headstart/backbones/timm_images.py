"""Image backbones built with timm: the one file that knows it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import timm
import torch
from safetensors.torch import load_file
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from torch import nn

from headstart import runtime
from headstart.backbones.backbone import Backbone
from headstart.backbones.bundled import BUNDLED
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.changes import apply_changes, tensors_sha256
from headstart.backbones.cutting import Frozen
from headstart.backbones.flow import channel_axes
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.backbones.source import check_base, tuned_sha256
from headstart.backbones.tracing import Trace, trace
from headstart.errors import BackboneError
from headstart.preprocess.image import ImagePreprocess

# An untrained twin must be the same network every time it is opened.
RANDOM_SEED = 0


def build(source: BackboneSource, *, image_size: int | None) -> Backbone:
    """Build a network, load its weights, freeze it and find its blocks.

    Args:
        source: as `catalog.locate` gives it.
        image_size: side in pixels of the square input, or None for the weights' own.

    Returns:
        The backbone.

    Raises:
        BackboneError: if the architecture is unknown, the weights cannot be had or do not fit, or the size cannot work.
    """
    network, settings, checksum = _network(source, image_size)
    check_base(source, checksum)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    frozen = Frozen(network.eval())
    preprocess = _preprocess(settings, image_size)
    side = preprocess.image_size
    traced, why = _trace(network, side, source)
    with torch.no_grad():
        width = frozen(torch.zeros(1, 3, side, side)).shape[-1]
    total = sum(parameter.numel() for parameter in network.parameters())
    blocks = (
        tuple(
            BlockInfo(name=block.name, width=block.shape[axis], num_parameters=block.num_parameters)
            for block, axis in zip(traced.blocks, channel_axes([block.shape for block in traced.blocks]), strict=True)
        )
        if traced
        else (BlockInfo(name="network", width=width, num_parameters=total),)
    )
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="image",
        licence=str(settings.get("license") or "not stated"),
        source=source.origin(_origin(source, settings)),
        sha256=tuned_sha256(checksum, source),
        base_sha256=checksum,
        width=width,
        num_parameters=total,
        blocks=blocks,
        base=source.base,
    )
    return Backbone(info=info, preprocess=preprocess, network=frozen, traced=traced, why_untraced=why)


def _network(source: BackboneSource, image_size: int | None) -> tuple[nn.Module, dict[str, Any], str]:
    if not source.architecture:
        raise BackboneError(
            f"backbone {source.name!r} names no architecture.",
            expected="weights, and the name of timm's architecture that they are for.",
            mend=f"add it behind a #, as in --backbone {source.name}#resnet50.",
        )
    if not timm.is_model(source.architecture):
        near = difflib.get_close_matches(source.architecture.split(".")[0], timm.list_models(), n=3)
        raise BackboneError(
            f"backbone {source.name!r}: timm {timm.__version__} knows no architecture {source.architecture!r}.",
            expected=f"an architecture of timm; nearest: {', '.join(near) or 'none'}.",
            mend="check the spelling" + (f", as in {source.name.replace(source.architecture, near[0])!r}." if near else "."),
        )
    size: dict[str, Any] = {"img_size": image_size} if _takes_size(source.architecture) and image_size else {}
    match source.kind:
        case "timm":
            network = _download(source, size)
        case "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(RANDOM_SEED)
                network = timm.create_model(source.architecture, pretrained=False, num_classes=0, **size)
        case _:
            network = _load(source, size)
    settings: dict[str, Any] = dict(network.pretrained_cfg)  # type: ignore[arg-type]
    checksum = source.sha256 if source.kind in {"bundled", "file"} else tensors_sha256(network)
    return network.requires_grad_(False), settings, checksum


def _takes_size(architecture: str) -> bool:
    """Transformers with a fixed number of positions must be told the size; convolutional networks take any."""
    known = _published(architecture)
    return bool(known and known.fixed_input_size)


def _published(architecture: str) -> timm.models.PretrainedCfg | None:
    """What timm knows of the weights that a name with a tag means, or without one the default ones."""
    try:
        return timm.get_pretrained_cfg(architecture)
    except RuntimeError as error:
        family, _, tag = architecture.partition(".")
        known = [name.partition(".")[2] for name in timm.list_pretrained(f"{family}.*")]
        raise BackboneError(
            f"timm {timm.__version__} knows {family}, but no weights of it tagged {tag!r}.",
            expected=f"one of the tags {', '.join(known) or '(none)'}.",
            mend=f"leave the tag out for the default weights: {family}.",
        ) from error


def _download(source: BackboneSource, size: dict[str, Any]) -> nn.Module:
    published = _published(source.architecture)
    # A few older weights lie at a plain address, which torch fetches by itself.
    address = str(published.url) if published and published.url and not published.hf_hub_id else None
    kept_at = Path(torch.hub.get_dir(), "checkpoints", address.rsplit("/", 1)[-1]) if address else None
    try:
        if kept_at and runtime.offline() and not kept_at.is_file():
            raise FileNotFoundError(kept_at)
        with _hub_offline_if_asked():
            return timm.create_model(source.architecture, pretrained=True, num_classes=0, **size)
    except (OSError, RuntimeError, ValueError) as error:
        told = "offline is set" if runtime.offline() else _first_line(error)
        if kept_at:
            expected, mend = f"the file {kept_at}, or a network that reaches {address}.", f"put {address} at {kept_at}."
        else:
            repo = (published.hf_hub_id if published else None) or source.architecture
            expected = f"the files of {repo} in the Hugging Face cache, or a network that reaches the hub."
            mend = f"put config.json and model.safetensors of {repo} in a folder, and use --backbone file:FOLDER."
        raise BackboneError(f"the weights of {source.name!r} cannot be had ({told}).", expected=expected, mend=mend) from error


@contextmanager
def _hub_offline_if_asked() -> Iterator[None]:
    """The hub's library reads its own switch once, when it is first imported, which may have been long before."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = before or runtime.offline()
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _load(source: BackboneSource, size: dict[str, Any]) -> nn.Module:
    state = _read_state(source)
    network = timm.create_model(source.architecture, pretrained=False, **size)
    names = network.state_dict()
    if source.kind == "bundled":
        state = dict(zip(names, state.values(), strict=True))
    classifier = tuple(f"{part}." for part in _classifier_names(network))
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(classifier)}
    wanted = {name: tensor for name, tensor in names.items() if not name.startswith(classifier)}
    wrong = [name for name in wanted if name not in kept or kept[name].shape != wanted[name].shape]
    wrong += [name for name in kept if name not in wanted]
    if wrong:
        raise BackboneError(
            f"the weights of {source.name!r} do not fit {source.architecture}: {len(wrong)} tensors, first {wrong[0]!r}.",
            expected=f"{len(wanted)} tensors named and shaped as timm's {source.architecture}.",
            mend="name the right architecture: file:PATH#ARCH.",
        )
    network.load_state_dict(kept, strict=False)
    network.reset_classifier(0)  # type: ignore[operator]
    return network


def _classifier_names(network: nn.Module) -> tuple[str, ...]:
    names = network.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    return (names,) if isinstance(names, str) else tuple(names)


def _read_state(source: BackboneSource) -> dict[str, torch.Tensor]:
    path = source.weights_path
    assert path is not None, "bundled and file sources have one"
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the unpickler met
        raise BackboneError(
            f"the weights in {path} cannot be read: {_first_line(error)}",
            expected="tensors by name, in a .safetensors file or one that torch.load reads with weights_only=True.",
            mend="save the state_dict alone, best as .safetensors; files that run code on loading are refused.",
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in state.items()):
        raise BackboneError(
            f"the weights in {path} are no tensors by name.",
            expected="a state_dict: a tensor for each name, and nothing else.",
            mend="save network.state_dict() alone, best as .safetensors.",
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _first_line(error: Exception) -> str:
    told = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {told[0][:200]}"


def _trace(network: nn.Module, side: int, source: BackboneSource) -> tuple[Trace | None, str]:
    try:
        return trace(
            network,
            lambda size: torch.zeros(size, 3, side, side),
            leaf_types=get_notrace_modules(),
            leaf_functions=get_notrace_functions(),
        ), ""
    except Exception as error:  # noqa: BLE001 - a network that cannot be traced may raise anything, and still works whole
        return (
            None,
            f"torch.fx cannot trace {source.architecture} ({_first_line(error)}).",
        )


def _preprocess(settings: dict[str, Any], image_size: int | None) -> ImagePreprocess:
    red, green, blue = (float(value) for value in settings["mean"])
    mean = (red, green, blue)
    return ImagePreprocess(
        image_size=image_size or int(settings["input_size"][-1]),
        geometry="crop",
        interpolation=settings.get("interpolation") or "bicubic",
        crop_fraction=float(settings.get("crop_pct") or 0.875),
        mean=mean,
        std=settings["std"],
        pad_color=(round(255 * red), round(255 * green), round(255 * blue)),
    )


def _origin(source: BackboneSource, settings: dict[str, Any]) -> str:
    match source.kind:
        case "bundled":
            return f"package {BUNDLED[source.base or source.name].package}"
        case "random":
            return f"untrained, seed {RANDOM_SEED}"
        case "file":
            return str(source.weights_path)
        case _:
            return f"huggingface.co/{settings.get('hf_hub_id') or source.architecture}"
