"""Near copies among sounds, told by how their bands rise and fall: re-encoded, louder, at another rate, but the same recording.

Features of a backbone tell what a sound is like, not which recording it is: all hisses are alike to them. So a sound is a
picture of 24 bands by 48 moments, from which the mean of each band and of each moment is taken away: what is left is how this
one recording goes, and of a steady sound next to nothing is left. Two speakers saying one short word can look alike even so;
so the waves of each such pair are compared, too: those of one recording coincide at some delay.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.sound_items import open_sound
from headstart.preprocess.windows import resample

LEAST_ALIKE = 0.92
"""Cosine of two such pictures, from which on they may be of one recording."""
LEAST_CORRELATED = 0.8
"""Correlation of two waves at their best delay, from which on they are of one recording.

Of ten words and phrases by eight synthetic voices each, two voices reach at most 0.68; a recording coded anew as MP3, Vorbis
or Opus, at another rate or level, or with a tenth of noise, reaches at least 0.91.
"""
COMPARED_SECONDS = 6.0
MOST_LONGER, STEADY = 0.02, 0.02
"""How much longer one copy may be than the other; and the least share of a picture's variance that its means leave."""
NUM_BANDS, NUM_MOMENTS = 24, 48
RATE_HZ, FRAME, SECONDS = 8_000, 512, 20.0
DEPTH = 6.0
"""Powers of ten below the loudest, where a picture ends."""
BLOCK = 1_000
_NUM_SPECTRA = 200


def find_copies(items: Sequence[object]) -> list[tuple[int, int]]:
    """Pairs of sounds, by position, that are of one recording.

    Args:
        items: N sounds that can be read; the first 20 seconds of each are looked at.

    Returns:
        Pairs (i, j), i < j, that join all of one recording, though not every pair of them.
    """
    found = [_picture(item) for item in items]
    seconds = np.array([length for length, _ in found])
    pictures = np.stack([picture for _, picture in found]) if found else np.empty((0, NUM_BANDS * NUM_MOMENTS), np.float32)
    pairs, group = [], np.arange(len(items))
    spectrum = lru_cache(_NUM_SPECTRA)(lambda place: _spectrum(items[place]))
    for start in range(0, len(pictures), BLOCK):
        cosines = pictures[start : start + BLOCK] @ pictures[start:].T
        for one, other in (np.argwhere(cosines >= LEAST_ALIKE) + start).tolist():
            short, long = sorted((seconds[one], seconds[other]))
            if one >= other or group[one] == group[other] or long > short * (1 + MOST_LONGER) + FRAME / RATE_HZ:
                continue
            if _coincide(spectrum(one), spectrum(other)):
                pairs.append((one, other))
                group[group == group[other]] = group[one]
    return pairs


def _spectrum(item: object) -> np.ndarray:
    """The spectrum of the first seconds of a sound whose wave has length 1, long enough to be delayed by all of them."""
    num_samples = int(COMPARED_SECONDS * RATE_HZ)
    wave = np.zeros(num_samples, np.float32)
    with contextlib.suppress(UnreadableItemError), open_sound(item) as sound:  # it vanished since
        (samples,) = sound.stretches([(0, min(sound.num_frames, math.ceil(COMPARED_SECONDS * sound.rate_hz)))])
        samples = resample(samples, sound.rate_hz, RATE_HZ)[:num_samples]
        wave[: len(samples)] = samples - samples.mean()
    return np.fft.rfft(wave / max(float(np.linalg.norm(wave)), 1e-12), 2 * num_samples).astype(np.complex64)


def _coincide(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two waves, by their spectra, coincide at some delay; turned upside down, too."""
    return bool(np.abs(np.fft.irfft(one * other.conj())).max() >= LEAST_CORRELATED)


def _picture(item: object) -> tuple[float, np.ndarray]:
    """Seconds of a sound, and its picture as a vector of length 1; of length 0 where it is steady, silent, or gone."""
    nothing = np.zeros(NUM_BANDS * NUM_MOMENTS, np.float32)
    try:
        with open_sound(item) as sound:
            seconds = sound.num_frames / sound.rate_hz
            (samples,) = sound.stretches([(0, min(sound.num_frames, math.ceil(SECONDS * sound.rate_hz)))])
            samples = resample(samples, sound.rate_hz, RATE_HZ)
    except UnreadableItemError:  # it vanished since
        return 0.0, nothing
    if len(samples) < 4 * FRAME:
        return seconds, nothing
    hop = max(1, (len(samples) - FRAME) // (2 * NUM_MOMENTS))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::hop][: 2 * NUM_MOMENTS]
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME))) ** 2
    power = power[: len(power) // 2 * 2].reshape(-1, 2, power.shape[1]).mean(1)
    edges = np.unique(np.geomspace(5, FRAME // 2, NUM_BANDS + 1).round().astype(int))
    bands = np.stack([power[:, low:high].mean(1) for low, high in zip(edges[:-1], edges[1:], strict=True)])
    if not bands.max() > 0:
        return seconds, nothing
    level = np.log10(np.maximum(bands, bands.max() * 10**-DEPTH))
    rest = level - level.mean(1, keepdims=True) - level.mean(0, keepdims=True) + level.mean()
    vector = np.zeros(NUM_BANDS * NUM_MOMENTS, np.float32)
    vector[: rest.size] = rest.ravel()
    length = float(np.linalg.norm(vector))
    return seconds, vector / length if length**2 > STEADY * level.var() * level.size else nothing
