"""Mel-frequency cepstral coefficients and how they change: a network without weights, in every contest on equal terms.

Davis and Mermelstein 1980 ("Comparison of parametric representations for monosyllabic word recognition"); slopes over 9 frames.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import nn

from headstart.backbones.catalog import BackboneSource
from headstart.backbones.info import BackboneInfo
from headstart.backbones.mel import Spectrogram
from headstart.backbones.mel_tables import cosine_matrix, fourier_kernels, hann, mel_filters
from headstart.backbones.sound_network import SoundNetwork
from headstart.backbones.sounds import SoundBackbone, block_infos
from headstart.preprocess.audio import AudioPreprocess

RATE_HZ, FRAME, HOP, NUM_MELS, NUM_COEFFICIENTS = 16_000, 512, 160, 64, 20
WINDOW, MAX_WINDOWS = 16_000, 60
# Frames on either side that a slope is taken over.
REACH = 4
LEAST_POWER = 1e-10
# 80 decibels, in natural logarithms: what is further below a window's loudest band is noise of the recording, or of rounding.
RANGE = 8 * math.log(10)
NAMES = ("mfcc", "slopes")


class MelFront(nn.Module):
    """Samples (N, W) to the logarithm of the power in 64 mel bands, (N, T, 64)."""

    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(fourier_kernels(hann(FRAME), FRAME), hop=HOP)
        self.register_buffer("filters", torch.from_numpy(mel_filters(NUM_MELS, FRAME, RATE_HZ)).float(), persistent=False)

    def forward(self, samples: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Transform each window."""
        bands = (self.spectrogram(samples) @ self.filters).clamp(min=LEAST_POWER).log()
        return torch.maximum(bands, bands.amax(dim=(1, 2), keepdim=True) - RANGE)


class Cepstrum(nn.Module):
    """Log mel bands (N, T, 64) to 20 coefficients (N, T, 20)."""

    matrix: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix = cosine_matrix(NUM_MELS, NUM_COEFFICIENTS)
        self.register_buffer("matrix", torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, bands: torch.Tensor) -> torch.Tensor:
        """Transform each frame."""
        return bands @ self.matrix


class Slopes(nn.Module):
    """Coefficients (N, T, 20) with their slopes and the slopes of these beside them, (N, T, 60)."""

    kernel: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        # Least squares through the frames around: Furui 1986, "Speaker-independent isolated word recognition".
        steps = np.arange(-REACH, REACH + 1)
        kernel = torch.from_numpy(steps / np.square(steps).sum()).float()
        self.register_buffer("kernel", kernel.repeat(NUM_COEFFICIENTS, 1)[:, None], persistent=False)

    def forward(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Put slopes beside them."""
        level = coefficients.transpose(1, 2)
        slope = self._slope(level)
        return torch.cat([level, slope, self._slope(slope)], dim=1).transpose(1, 2)

    def _slope(self, values: torch.Tensor) -> torch.Tensor:
        around = nn.functional.pad(values, (REACH, REACH), mode="replicate")
        return nn.functional.conv1d(around, self.kernel, groups=NUM_COEFFICIENTS)


def build(source: BackboneSource) -> SoundBackbone:
    """Build the network.

    Args:
        source: as `catalog.locate` gives it.

    Returns:
        The backbone.
    """
    network = SoundNetwork(MelFront(), [Cepstrum(), Slopes()]).eval()
    blocks = block_infos(network, NAMES, WINDOW)
    told = f"{source.architecture} {RATE_HZ} {FRAME} {HOP} {NUM_MELS} {NUM_COEFFICIENTS} {REACH} {LEAST_POWER} {RANGE:.4f}"
    checksum = hashlib.sha256(told.encode()).hexdigest()
    info = BackboneInfo(
        name=source.name,
        architecture=source.architecture,
        modality="audio",
        licence="none needed: it has no weights",
        source="computed, not learned",
        sha256=checksum,
        base_sha256=checksum,
        width=blocks[-1].width,
        num_parameters=0,
        blocks=blocks,
        base=source.base,
    )
    preprocess = AudioPreprocess(rate_hz=RATE_HZ, window=WINDOW, max_windows=MAX_WINDOWS)
    return SoundBackbone(
        info=info, preprocess=preprocess, network=network, why_untraced="it has no weights that could be tuned."
    )
