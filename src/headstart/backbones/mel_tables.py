"""The constant matrices of spectrograms: Fourier kernels, mel filters, cosine transform; numpy alone."""

from __future__ import annotations

import numpy as np


def fourier_kernels(window: np.ndarray, length: int, *, emphasis: float = 0.0, centred: bool = False) -> np.ndarray:
    """Kernels that give a frame's Fourier transform.

    Args:
        window: (L,) what a frame's samples are weighted by.
        length: of the transform, at least L; the frame is filled up with zeros behind.
        emphasis: c of x[t] - c x[t - 1], the first sample being its own predecessor.
        centred: whether the frame's mean is taken out first.

    Returns:
        (2 F, L) float64, F = length // 2 + 1.
    """
    size = len(window)
    angles = 2 * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(size)) / length
    kernels = np.concatenate([np.cos(angles), -np.sin(angles)]) * window
    if emphasis:
        difference = np.eye(size) - emphasis * np.eye(size, k=-1)
        difference[0, 0] -= emphasis
        kernels = kernels @ difference
    if centred:
        kernels = kernels @ (np.eye(size) - 1.0 / size)
    return kernels


def hann(length: int) -> np.ndarray:
    """The periodic Hann window, (L,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def mel_filters(num_mels: int, length: int, rate_hz: int) -> np.ndarray:
    """Triangles of equal area on Slaney's mel scale, from 0 to half the rate.

    Args:
        num_mels: M.
        length: of the Fourier transform.
        rate_hz: of the samples.

    Returns:
        (F, M) float64, F = length // 2 + 1.

    Source: Slaney 1998, "Auditory Toolbox" (Interval Research, technical report 1998-010), `mfcc.m`: linear up to 1 kHz with
    200/3 Hz a mel, logarithmic above it, 27 mels for a factor of 6.4.
    """
    frequencies = np.linspace(0, rate_hz / 2, length // 2 + 1)
    edges = _mel_to_hz(np.linspace(0, _hz_to_mel(rate_hz / 2), num_mels + 2))
    rising = (frequencies[:, None] - edges[None, :-2]) / np.diff(edges)[:-1]
    falling = (edges[None, 2:] - frequencies[:, None]) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rising, falling)) * 2.0 / (edges[2:] - edges[:-2])


_LINEAR_HZ, _FIRST_LOG_HZ = 200 / 3, 1_000.0
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(frequency: float) -> float:
    if frequency < _FIRST_LOG_HZ:
        return frequency / _LINEAR_HZ
    return _FIRST_LOG_HZ / _LINEAR_HZ + float(np.log(frequency / _FIRST_LOG_HZ)) / _LOG_STEP


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    first = _FIRST_LOG_HZ / _LINEAR_HZ
    return np.where(mels < first, mels * _LINEAR_HZ, _FIRST_LOG_HZ * np.exp(_LOG_STEP * (np.maximum(mels, first) - first)))


def cosine_matrix(num_mels: int, num_kept: int) -> np.ndarray:
    """The first coefficients of the orthonormal discrete cosine transform, (M, num_kept) float64."""
    places = np.arange(num_mels)[:, None] + 0.5
    matrix = np.sqrt(2.0 / num_mels) * np.cos(np.pi / num_mels * places * np.arange(num_kept)[None])
    matrix[:, 0] /= np.sqrt(2.0)
    return matrix
