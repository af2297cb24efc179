"""Make clips of the pictures that `stamps.py` writes: a view that wanders over a picture and comes nearer or goes away.

Every clip is of one picture: some seconds long, 25 frames a second, 640x360, by x264 with its own settings where FFmpeg has
it, else as MPEG-4. The camera moves, on a way of the clip's own, over the picture on a cloudy ground of its own, and the edge
of the view may cut the picture off.

Usage: python benchmarks/data/clips.py STAMPS OUT [--per-class 10] [--seconds 10]
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from PIL import Image

WIDE, HIGH, RATE = 640, 360, 25
SIDE = 900
"""Of the square scene that the view wanders over, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    paths = write_clips(options.stamps, options.out, per_class=options.per_class, seconds=options.seconds)
    print(f"{len(paths)} clips under {options.out}")


def write_clips(
    stamps: Path, out: Path, *, per_class: int, seconds: float, settings: dict[str, str] | None = None
) -> list[Path]:
    """Write a clip of each of the first pictures of every class, into a folder per class; those that are there stay.

    Args:
        stamps: a folder per class.
        out: where the clips go.
        per_class: pictures of each class.
        seconds: of each clip.
        settings: of the encoder, beside its own.

    Returns:
        Their paths, in order.
    """
    pairs = []
    for label in sorted(path for path in stamps.iterdir() if path.is_dir()):
        (out / label.name).mkdir(parents=True, exist_ok=True)
        pairs += [(path, out / label.name / f"{path.stem}.mp4") for path in sorted(label.glob("*.jpg"))[:per_class]]
    missing = [(picture, target, seconds, settings or {}) for picture, target in pairs if not target.exists()]
    # Spawned, not forked: whoever calls may have threads of FFmpeg's or ONNX Runtime's.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(write_clip, *words) for words in missing]:
            done.result()
    return [target for _, target in pairs]


def write_clip(picture: Path, target: Path, seconds: float, settings: dict[str, str]) -> None:
    """Write one clip; it appears under its name when it is whole."""
    partial = target.with_suffix(".partial.mp4")
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(partial), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=settings)
        stream.width, stream.height, stream.pix_fmt = WIDE, HIGH, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames_of(picture, round(seconds * RATE)):
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))
    partial.rename(target)


def frames_of(picture: Path, count: int) -> Iterator[Image.Image]:
    """The frames of a clip: a window of 16:9 on a scene, on a smooth way of its own."""
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(picture.name.encode()).digest()[:8], "big"))
    scene = _scene(picture, random)
    steps = np.linspace(0, 1, count)
    turns, phases = random.uniform(0.4, 1.5, 3), random.uniform(0, 2 * np.pi, 3)
    across, down, near = (np.sin(2 * np.pi * turn * steps + phase) for turn, phase in zip(turns, phases, strict=True))
    for x, y, z in zip(across, down, near, strict=True):
        wide = SIDE * (0.72 + 0.23 * z)
        high = wide * HIGH / WIDE
        left, top = (SIDE - wide) / 2 * (1 + 0.8 * x), (SIDE - high) / 2 * (1 + 0.6 * y)
        yield scene.resize((WIDE, HIGH), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high))


def _scene(picture: Path, random: np.random.Generator) -> Image.Image:
    """The picture in the middle of a cloudy ground; its white, which stands for what was transparent, becomes the ground."""
    coarse = Image.fromarray(random.integers(90, 230, (5, 5, 3), dtype=np.uint8))
    ground = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    stamp = Image.open(picture).convert("RGB")
    scale = 0.7 * SIDE / max(stamp.size)
    stamp = stamp.resize((round(stamp.width * scale), round(stamp.height * scale)), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    canvas.paste(stamp, ((SIDE - stamp.width) // 2, (SIDE - stamp.height) // 2))
    pixels = np.asarray(canvas, np.float32)
    noise = random.normal(0, 3, (SIDE, SIDE, 1))
    return Image.fromarray((ground * (pixels / 255) + noise).clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
