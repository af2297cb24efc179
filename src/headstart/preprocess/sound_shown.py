"""What a page shows of a sound: some seconds to hear, and a picture of their waveform."""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
from PIL import Image

from headstart.preprocess.sound_items import open_sound
from headstart.preprocess.windows import resample

SHOWN_SECONDS = 4.0
SHOWN_HZ = 8_000
"""Enough to know a sound again, in 64 kB."""
WIDE, HIGH = 240, 64
_INK, _PAPER = (47, 127, 193), (255, 255, 255)
_LEAST_PEAK = 1e-3


def show_sound(item: object) -> dict[str, str]:
    """Make what a page shows of a sound.

    Args:
        item: as for `open_sound`.

    Returns:
        `sound`, the first seconds as a WAV file, and `thumbnail`, their waveform as a PNG: data URIs both.

    Raises:
        UnreadableItemError: if it cannot be read.
    """
    with open_sound(item) as sound:
        stop = min(sound.num_frames, round(SHOWN_SECONDS * sound.rate_hz))
        samples = resample(sound.stretches([(0, stop)])[0], sound.rate_hz, min(SHOWN_HZ, sound.rate_hz))
        rate_hz = min(SHOWN_HZ, sound.rate_hz)
    return {
        "sound": "data:audio/wav;base64," + base64.b64encode(as_wave_file(samples, rate_hz)).decode("ascii"),
        "thumbnail": "data:image/png;base64," + base64.b64encode(_draw(samples)).decode("ascii"),
    }


def as_wave_file(samples: np.ndarray, rate_hz: int) -> bytes:
    """Write samples (T,) float32 as a mono WAV file of 16 bits; what is beyond full scale is clipped."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes())
    return stream.getvalue()


def _draw(samples: np.ndarray) -> bytes:
    """The waveform, as loud as it can be drawn: one column for each stretch, from its lowest to its highest sample."""
    pixels = np.full((HIGH, WIDE, 3), _PAPER, np.uint8)
    scale = max(float(np.abs(samples).max(initial=0.0)), _LEAST_PEAK)
    edges = np.linspace(0, len(samples), WIDE + 1).astype(int)
    for column, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        part = samples[start : max(stop, start + 1)]
        low, high = (float(part.min()), float(part.max())) if len(part) else (0.0, 0.0)
        top, bottom = (round((1 - value / scale) / 2 * (HIGH - 1)) for value in (high, low))
        pixels[top : bottom + 1, column] = _INK
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
