"""Spectrograms as layers: each frame's Fourier transform is one convolution with fixed kernels, which every runtime has.

Whatever a checkpoint does to a frame before it (window, offset taken out, pre-emphasis) is linear, and folded into the kernels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Spectrogram(nn.Module):
    """From samples (N, W) to powers of T frames in F frequencies, (N, T, F)."""

    kernels: torch.Tensor

    def __init__(self, kernels: np.ndarray, *, hop: int, pad: int = 0, pad_mode: str = "constant") -> None:
        """Take kernels.

        Args:
            kernels: (2 F, L), as `fourier_kernels` makes them: real parts, then imaginary ones.
            hop: samples from frame to frame.
            pad: samples put before and behind.
            pad_mode: 'constant' (zeros) or 'reflect'.
        """
        super().__init__()
        self.register_buffer("kernels", torch.from_numpy(kernels.astype(np.float32))[:, None], persistent=False)
        self.hop, self.pad, self.pad_mode = hop, pad, pad_mode

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Transform each frame."""
        padded = samples[:, None]
        if self.pad:
            padded = nn.functional.pad(padded, (self.pad, self.pad), mode=self.pad_mode)
        found = nn.functional.conv1d(padded, self.kernels, stride=self.hop)
        real, imaginary = found.chunk(2, dim=1)
        return (real * real + imaginary * imaginary).transpose(1, 2)
