"""Animated pictures: GIF, WebP and PNG of more than one frame, read by Pillow as the pictures they are."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import BinaryIO

from PIL import GifImagePlugin, Image, PngImagePlugin

from headstart.preprocess.decode import check_size, load_pixels
from headstart.preprocess.formats import PARSER_ERRORS, open_image, pillow_limit_lifted
from headstart.preprocess.modes import Color, image_to_rgb
from headstart.preprocess.timeline import spread

_WEBP_ANIMATION = 0x02
"""The bit in the flags of a VP8X chunk that says so (RFC 9649, 2.7.1)."""


def is_animated(stream: BinaryIO, head: bytes) -> bool:
    """Whether a file is a picture of more than one frame; nothing is decoded.

    Args:
        stream: the file, at any position; not closed.
        head: its first 32 bytes or more.

    Returns:
        False for all but GIF, WebP and PNG: what else Pillow reads several of are pages, or the same picture in several sizes.
    """
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return bool(head[20] & _WEBP_ANIMATION)
    plugin = {b"GIF8": GifImagePlugin.GifImageFile, b"\x89PNG": PngImagePlugin.PngImageFile}.get(head[:4])
    if plugin is None:
        return False
    stream.seek(0)
    with contextlib.suppress(*PARSER_ERRORS), pillow_limit_lifted():
        return bool(plugin(stream).is_animated)  # type: ignore[attr-defined]
    return False  # damaged: reading it says how


def read_animation(content: bytes, count: int, *, background: Color, max_pixels: int, name: str) -> Iterator[Image.Image]:
    """Decode frames spread evenly over an animated picture, by their number.

    Args:
        content: the file.
        count: F, frames; at least 1.
        background: what shows through where a frame is transparent.
        max_pixels: a picture that declares more is refused before it is decoded.
        name: what to call the item in an error.

    Yields:
        At least one and at most F pictures of mode RGB, in their order.

    Raises:
        UnreadableItemError: if a frame is cut off or damaged.
    """
    image = open_image(content, name)
    check_size(image, max_pixels, name)
    total = _count_frames(content)
    for place in spread(total, count):
        load_pixels(image, name, frame=place)
        yield image_to_rgb(image, background=background, name=name)


def _count_frames(content: bytes) -> int:
    """Counted on a picture of its own, since looking for the end moves on."""
    with contextlib.suppress(*PARSER_ERRORS), pillow_limit_lifted(), Image.open(io.BytesIO(content)) as image:
        return int(getattr(image, "n_frames", 1))
    return 1
