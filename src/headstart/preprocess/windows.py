"""Where windows lie in a sound, and cutting them out at the network's rate, however long the sound is."""

from __future__ import annotations

import math

import numpy as np

from headstart.errors import MissingPackageError
from headstart.preprocess.sound_items import Sound

MARGIN_SECONDS = 0.03
"""Read beside a window that is resampled alone: more than the resampler's filter is long."""


def place_windows(length: int, window: int, most: int, *, spread: bool) -> list[int]:
    """Say where windows begin: each overlaps the next by about half, the first begins the sound and the last ends it.

    Args:
        length: of the sound, in samples.
        window: W, samples in a window.
        most: windows at most.
        spread: what becomes of longer sounds: windows evenly over the whole, or the first ones.

    Returns:
        Starts in samples, at least one.
    """
    if length <= window:
        return [0]
    step = window // 2
    wanted = 1 + math.ceil((length - window) / step)
    if wanted > most and not spread:
        return [number * step for number in range(most)]
    count = min(wanted, most)
    return [round(place) for place in np.linspace(0, length - window, count).tolist()]


def cut_windows(sound: Sound, rate_hz: int, window: int, most: int, *, spread: bool) -> np.ndarray:
    """Cut a sound into windows at another rate; what is read of a long one does not grow with its length.

    Args:
        sound: open.
        rate_hz: of the windows.
        window: W, samples in a window.
        most: windows at most.
        spread: as for `place_windows`.

    Returns:
        (K, W) float32; NaN behind the end of a sound that is shorter than a window.
    """
    ratio = rate_hz / sound.rate_hz
    length = max(1, round(sound.num_frames * ratio))
    starts = place_windows(length, window, most, spread=spread)
    windows = np.full((len(starts), window), np.nan, np.float32)
    if len(starts) == 1 or max(np.diff(starts)) <= window:  # one stretch without gaps
        stretch = (0, starts[-1] + window)
        found = _resampled(sound, [stretch], rate_hz)[0]
        for row, start in enumerate(starts):
            part = found[start : start + window]
            windows[row, : len(part)] = part
        return windows
    for row, part in enumerate(_resampled(sound, [(start, start + window) for start in starts], rate_hz)):
        windows[row, : len(part)] = part
    return windows


def _resampled(sound: Sound, wanted: list[tuple[int, int]], rate_hz: int) -> list[np.ndarray]:
    """Stretches of a sound at a rate, each (start, stop) counted at that rate."""
    if sound.rate_hz == rate_hz:
        return sound.stretches(wanted)
    ratio = sound.rate_hz / rate_hz
    margin = math.ceil(MARGIN_SECONDS * sound.rate_hz)
    read = [
        (max(0, math.floor(start * ratio) - margin), min(sound.num_frames, math.ceil(stop * ratio) + margin))
        for start, stop in wanted
    ]
    found = []
    for (first, _), (start, stop), samples in zip(read, wanted, sound.stretches(read), strict=True):
        ours = resample(samples, sound.rate_hz, rate_hz)
        before = start - round(first / ratio)
        found.append(ours[before : before + stop - start])
    return found


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Bring samples to another rate by soxr, quality HQ.

    Args:
        samples: (T,) float32.
        from_hz: their rate.
        to_hz: the other.

    Returns:
        (about T · to / from,) float32.

    Raises:
        MissingPackageError: if soxr is not installed.
    """
    if from_hz == to_hz:
        return samples
    try:
        import soxr
    except ModuleNotFoundError as error:
        raise MissingPackageError("soxr", purpose="bringing sounds to another rate") from error
    return soxr.resample(np.ascontiguousarray(samples, np.float32), from_hz, to_hz, quality="HQ")
