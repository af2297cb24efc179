"""Sounds that are in memory already: samples with their rate, in any of the usual shapes and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.preprocess.items import MAX_FILE_BYTES, UnreadableItemError, item_name

MOST_PEAK = 8.0
"""Of samples whose full scale is 1: mixing and resampling overshoot by less; samples in other units, by far more."""
MOST_RATE = 768_000
"""Hz; more is a damaged header."""


@dataclass(frozen=True, kw_only=True)
class Waveform:
    """A sound in memory, mono."""

    samples: np.ndarray
    """(T,) float32, full scale is 1."""
    rate_hz: int
    channel_peak: float = 0.0
    """The largest absolute sample of any channel, before the channels were mixed; 0 for a sound of one channel."""

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.samples)

    def stretches(self, wanted: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Parts of it: (start, stop) in frames; shorter where the sound ends."""
        return [self.samples[start:stop] for start, stop in wanted]


def as_waveform(item: object, name: str) -> Waveform | None:
    """A sound in memory, its channels mixed; None for paths and bytes.

    Args:
        item: anything.
        name: what to call it in an error.

    Raises:
        UnreadableItemError: if it is an array without its rate, of a shape or type that no sound has, or no item at all.
    """
    samples, rate = item, None
    if isinstance(item, Mapping) and {"array", "sampling_rate"} <= item.keys():
        samples, rate = item["array"], item["sampling_rate"]
    elif isinstance(item, tuple) and len(item) == 2:
        samples, rate = item
    if isinstance(item, str | Path | bytes | bytearray | memoryview):
        return None
    if not isinstance(samples, np.ndarray | list):
        swapped = _is_rate(samples) and isinstance(rate, np.ndarray | list)
        raise unsupported_sound(item, name, "has the rate before the samples" if swapped else "")
    if not _is_rate(rate):
        lacking = rate is None and samples is item
        raise unsupported_sound(item, name, "" if lacking else f"has the rate {rate!r}, which is no number above 0 in Hz")
    array = np.asarray(samples)
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2):
        raise unsupported_sound(item, name, f"has samples of shape {array.shape} and type {array.dtype}")
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # channels first
    channels = _full_scale(array).reshape(len(array), -1) if array.size else np.zeros((0, 1), np.float32)
    mono = channels.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise UnreadableItemError(name, "holds samples that are no numbers (NaN or infinity)", expected="finite samples.")
    if array.size * array.itemsize > MAX_FILE_BYTES:
        raise UnreadableItemError(name, f"has {array.size:,} samples", kind="bomb", expected="at most 1 GiB in one item.")
    peak = float(np.abs(channels).max(initial=0.0)) if channels.shape[1] > 1 else 0.0
    return Waveform(samples=mono, rate_hz=int(float(str(rate))), channel_peak=peak)


def check_full_scale(windows: np.ndarray, item: object, name: str) -> None:
    """Refuse samples far beyond full scale, whatever they were read from: they are in other units.

    Args:
        windows: samples, full scale is 1; NaN where there is none.
        item: that they are from.
        name: what to call it in an error; by default the item itself.

    Raises:
        UnreadableItemError: if one is beyond `MOST_PEAK`.
    """
    peak = float(np.fmax.reduce(np.abs(windows), axis=None, initial=0.0))
    if peak > MOST_PEAK:
        raise UnreadableItemError(
            name or item_name(item),
            f"has samples up to {peak:,.4g}, where full scale is 1",
            kind="unsupported",
            expected="floating point samples in [-1, 1], or whole numbers of the type's own range.",
            mend="divide 16-bit samples by 32768 before they become floating point, or leave them int16.",
        )


def _is_rate(rate: object) -> bool:
    return isinstance(rate, int | float | np.integer | np.floating) and 0 < float(rate) <= MOST_RATE


def _full_scale(array: np.ndarray) -> np.ndarray:
    """Samples with full scale 1: whole numbers are divided by the largest of their type."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype == np.int64:  # as a list of 16-bit samples becomes
        return (array / 32768.0).astype(np.float32)
    half = 2.0 ** (8 * array.itemsize - 1)
    return ((array.astype(np.float64) - (half if array.dtype.kind == "u" else 0.0)) / half).astype(np.float32)


def unsupported_sound(item: object, name: str, why: str = "") -> UnreadableItemError:
    """Make the error for an object that is no sound; `why` says what is wrong with it where more is known than what it is."""
    lacking = ", without its rate" if isinstance(item, np.ndarray) else ""
    return UnreadableItemError(
        name,
        why or f"is {item_name(item)}{lacking}, which no sound can be read from",
        kind="unsupported",
        expected="a path, bytes of a file, (samples, rate in Hz), or {'array': samples, 'sampling_rate': rate}; samples are "
        "(T,), (T, channels) or (channels, T).",
        mend="pass the samples and behind them their rate: (samples, 16000).",
    )
