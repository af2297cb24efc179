"""What the feature extractors of transformers do to samples, as layers: a compiled network then needs none of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from headstart.backbones.mel import Spectrogram
from headstart.backbones.mel_tables import fourier_kernels


class SampleFront(nn.Module):
    """Samples as they are, or with mean 0 and variance 1 where there are some, as Wav2Vec2FeatureExtractor makes them."""

    def __init__(self, *, normalised: bool) -> None:
        super().__init__()
        self.normalised = normalised

    def forward(self, samples: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        """Normalise each window (N, W) by itself."""
        if not self.normalised:
            return samples
        weights = here.to(samples.dtype)
        count = weights.sum(1, keepdim=True).clamp(min=1)
        mean = (samples * weights).sum(1, keepdim=True) / count
        variance = (((samples - mean) * weights) ** 2).sum(1, keepdim=True) / count
        return (samples - mean) * weights / (variance + 1e-7).sqrt()


class WhisperFront(nn.Module):
    """Log mel bands (N, M, T) as WhisperFeatureExtractor makes them: at most 8 powers of ten below the loudest."""

    filters: torch.Tensor

    def __init__(self, extractor: Any) -> None:  # noqa: ANN401 - of transformers
        super().__init__()
        length, hop = extractor.n_fft, extractor.hop_length
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
        kernels = fourier_kernels(window, length)
        self.spectrogram = Spectrogram(kernels, hop=hop, pad=length // 2, pad_mode="reflect")
        self.register_buffer("filters", torch.tensor(np.asarray(extractor.mel_filters)).float(), persistent=False)

    def forward(self, samples: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Transform each window."""
        bands = (self.spectrogram(samples)[:, :-1] @ self.filters).clamp(min=1e-10).log10()
        loudest = bands.amax(dim=(1, 2), keepdim=True)
        return ((torch.maximum(bands, loudest - 8.0) + 4.0) / 4.0).transpose(1, 2)


class FilterbankFront(nn.Module):
    """Log mel bands (N, T, M) as ASTFeatureExtractor makes them: frames behind a sound's end are 0 before all are shifted."""

    filters: torch.Tensor

    def __init__(self, extractor: Any) -> None:  # noqa: ANN401 - of transformers
        super().__init__()
        rate = extractor.sampling_rate
        self.frame, self.hop = rate * 25 // 1000, rate * 10 // 1000
        length = 1 << (self.frame - 1).bit_length()
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frame) / (self.frame - 1))
        self.spectrogram = Spectrogram(fourier_kernels(window, length, emphasis=0.97, centred=True), hop=self.hop)
        filters = transformers.audio_utils.mel_filter_bank(
            num_frequency_bins=length // 2 + 1,
            num_mel_filters=extractor.num_mel_bins,
            min_frequency=20,
            max_frequency=rate // 2,
            sampling_rate=rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        self.register_buffer("filters", torch.tensor(filters).float(), persistent=False)
        self.num_frames = extractor.max_length
        self.mean = float(extractor.mean) if extractor.do_normalize else 0.0
        self.scale = 2 * float(extractor.std) if extractor.do_normalize else 1.0

    def forward(self, samples: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        """Transform each window."""
        bands = (self.spectrogram(samples) @ self.filters).clamp(min=1.192092955078125e-07).log()
        # A frame is there if its last sample is.
        heard = here[:, self.frame - 1 :: self.hop][:, : bands.shape[1], None]
        bands = torch.where(heard, bands, torch.zeros_like(bands))[:, : self.num_frames]
        bands = nn.functional.pad(bands, (0, 0, 0, self.num_frames - bands.shape[1]))
        return (bands - self.mean) / self.scale
