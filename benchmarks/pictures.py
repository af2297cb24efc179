"""Synthetic JPEGs in any number: cloudy pictures with the spectrum of photographs, made quickly and reproducibly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

# Of the many pictures so many are distinct to the eye; the others are copies with another comment, and so another content.
NUM_DISTINCT = 100
QUALITY = 80
# Of the noise's strength from one octave to the next; makes files of about the size of photographs.
DECAY = 0.75
_START_OF_IMAGE = b"\xff\xd8"
_COMMENT = b"\xff\xfe"


def draw(seed: int, width: int, height: int) -> Image.Image:
    """A picture whose detail falls off with its frequency, as a photograph's does: noise of every octave, ever fainter."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    side, strength = 2, 0.5
    while side < max(width, height):
        small = generator.integers(0, 256, (max(1, round(side * height / width)), side, 3), dtype=np.uint8)
        large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        total += np.float32(strength) * (np.asarray(large) - np.float32(128))
        side, strength = side * 2, strength * DECAY
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


def encode(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def with_comment(jpeg: bytes, text: str) -> bytes:
    """The same picture with a comment in it: other bytes, other hash, the same pixels."""
    comment = text.encode("ascii")
    return _START_OF_IMAGE + _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def write_pictures(folder: Path, count: int, *, width: int, height: int) -> list[Path]:
    """Write so many JPEGs, 00000.jpg and on, no two of the same content; those that are there stay.

    Returns:
        Their paths, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    drawn: dict[int, bytes] = {}
    for number in missing:
        seed = number % NUM_DISTINCT
        if seed not in drawn:
            drawn[seed] = encode(draw(seed, width, height))
        paths[number].write_bytes(with_comment(drawn[seed], f"picture {number}"))
    return paths
