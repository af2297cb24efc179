"""Clips for tests: made in a moment by PyAV, of a view that wanders over a picture."""

import io

import av
import numpy as np
from PIL import Image

RATE = 10
SIZE = (96, 72)


def wander(picture, count, *, seed=0, size=SIZE):
    """So many frames of a view that moves over a picture."""
    wide, high = picture.size
    random = np.random.default_rng(seed)
    phases, turns = random.uniform(0, 2 * np.pi, 2), random.uniform(0.3, 0.8, 2)
    for step in np.linspace(0, 1, count):
        x, y = (0.15 * (1 + np.sin(2 * np.pi * turn * step + phase)) for turn, phase in zip(turns, phases, strict=True))
        box = (x * wide, y * high, (x + 0.7) * wide, (y + 0.7) * high)
        yield picture.resize(size, Image.Resampling.BILINEAR, box=box)


def counting(count, *, size=(48, 32)):
    """So many gray frames, whose level is four times their number: what is read back says which frame it was."""
    for number in range(count):
        yield Image.new("RGB", size, (4 * number,) * 3)


def write_clip(path, frames, *, codec="libx264", rate=RATE, rotation=None, sound=False, **settings):
    """Write frames as a video; `path` may be a stream, with its format among the settings."""
    container_format = settings.pop("format", None)
    target = path if container_format else str(path)
    frames = list(frames)
    with av.open(target, "w", format=container_format) as container:
        options = {"qp": "1", "preset": "ultrafast"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=options | settings)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        heard = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
        if heard is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16_000
            container.mux(heard.encode(silence))
            container.mux(heard.encode(None))
    return path


def clip_bytes(frames, container_format="mp4", **settings):
    """The file that frames make."""
    stream = io.BytesIO()
    write_clip(stream, frames, format=container_format, **settings)
    return stream.getvalue()


def write_sound(path):
    """An MP4 that holds a second of silence and nothing to see."""
    with av.open(str(path), "w") as container:
        heard = container.add_stream("aac", rate=16_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        container.mux(heard.encode(silence))
        container.mux(heard.encode(None))
    return path
