"""Clips as frames, whatever holds them: a video, an animated picture, an array; a still picture is a clip of one frame."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.preprocess.animation import is_animated, read_animation
from headstart.preprocess.containers import VideoKind, find_video_kind
from headstart.preprocess.decode import DecodedImage, decode_image
from headstart.preprocess.items import UnreadableItemError, item_name, load_bytes, load_small
from headstart.preprocess.modes import CHANNELS, Color
from headstart.preprocess.timeline import spread
from headstart.preprocess.video import read_frames
from headstart.signatures import HEAD_BYTES

ClipKind = VideoKind | Literal["animation", "array"]


def find_clip_kind(item: object) -> ClipKind | None:
    """Tell what sort of clip an item is by its first bytes; nothing is decoded.

    Args:
        item: a path (`Path` or str), bytes, or an array.

    Returns:
        A video's container, 'animation' for a picture of several frames, 'array' for frames (F, H, W, C); None for still
        pictures, and for what is none or cannot be read.
    """
    if isinstance(item, np.ndarray):
        return "array" if item.ndim == 4 else None
    # Reading what cannot be opened says what is wrong.
    with contextlib.suppress(OSError, ValueError):
        if isinstance(item, bytes):
            return _kind_of(io.BytesIO(item))
        if isinstance(item, str | Path) and Path(item).is_file():
            with Path(item).open("rb") as stream:
                return _kind_of(stream)
    return None


def _kind_of(stream: io.BytesIO | io.BufferedReader) -> ClipKind | None:
    head = stream.read(HEAD_BYTES)
    kind = find_video_kind(head)
    if kind is not None:
        return kind
    return "animation" if is_animated(stream, head) else None


def read_clip(
    item: object,
    count_for: Callable[[float], int],
    *,
    background: Color,
    max_pixels: int,
    least_size: Callable[[int, int], tuple[int, int]] | None,
    name: str = "",
) -> Iterator[DecodedImage]:
    """Decode frames spread over a clip, one after the other.

    Args:
        item: a path, bytes, an array of frames (F, H, W, C), or a still picture as `decode_image` takes it.
        count_for: how many frames, of a clip of so many seconds; of 0 where it has no clock of its own.
        background: what shows through where a frame is transparent.
        max_pixels: a larger frame is refused before it is decoded.
        least_size: as for `decode_image`.
        name: what to call the item in an error; by default the item itself.

    Yields:
        At least one frame, upright.

    Raises:
        UnreadableItemError: if there is no whole clip or picture in the item.
        MissingPackageError: if the item is a video, and PyAV is not installed.
    """
    name = name or item_name(item)
    content = load_small(item, name=name)
    if isinstance(content, np.ndarray):
        _refuse_other_shapes(content, name)
    kind = find_clip_kind(content)
    how = {"background": background, "max_pixels": max_pixels, "name": name}
    if isinstance(kind, VideoKind) and isinstance(content, bytes | Path):
        found = read_frames(content, kind, count_for, least_size=least_size, **how)  # type: ignore[arg-type]
    elif kind == "animation":
        images = read_animation(_as_bytes(content, name), count_for(0.0), **how)  # type: ignore[arg-type]
        found = (DecodedImage(image=image, full_size=image.size, region=(0, 0, *image.size)) for image in images)
    else:
        several = _frames_of(content, count_for(0.0), name) if isinstance(content, np.ndarray) and kind else [content]
        found = (decode_image(each, least_size=least_size, **how) for each in several)  # type: ignore[arg-type]
    is_empty = True
    for frame in found:
        is_empty = False
        yield frame
    if is_empty:
        raise UnreadableItemError(name, "holds no frame that can be decoded", kind="empty")


def _refuse_other_shapes(array: np.ndarray, name: str) -> None:
    """Tell the shape of a clip here: that of one of its frames, or of a picture, would not help."""
    if array.ndim == 2 or (array.ndim in {3, 4} and array.shape[-1] in CHANNELS):
        return
    raise UnreadableItemError(
        name,
        f"has the shape {array.shape}, where a clip has (frames, height, width, 3) in uint8",
        kind="unsupported",
        expected="(frames, height, width, channels), or of a picture (height, width) or (height, width, channels), with 1, 3 "
        "or 4 channels; uint8, uint16, bool, or floating point in [0, 1].",
        mend="array.transpose(0, 2, 3, 1) if the channels come behind the frames.",
    )


def _as_bytes(content: object, name: str) -> bytes:
    found = load_bytes(content, name=name)
    assert isinstance(found, bytes), "an animated picture is a file"
    return found


def _frames_of(frames: np.ndarray, count: int, name: str) -> list[np.ndarray]:
    """Frames (F, H, W, C) spread evenly over all, by their number."""
    total = len(frames)
    if not total:
        raise UnreadableItemError(name, f"holds no frame: its shape is {frames.shape}", kind="empty")
    return [frames[place] for place in spread(total, count)]
