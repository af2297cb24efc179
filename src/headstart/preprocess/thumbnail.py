"""Small pictures that can stand inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image

from headstart.preprocess.decode import decode_image

GAP = 2
"""Between the frames on a sheet, in pixels."""


def thumbnail_data_uri(item: object, size: int = 96) -> str:
    """Make a small picture that can stand inside a page.

    Args:
        item: as for `ImagePreprocess.decode`.
        size: the longer side in pixels, at least 1; smaller pictures are not enlarged.

    Returns:
        A JPEG as "data:image/jpeg;base64,…".

    Raises:
        UnreadableItemError: if there is no whole picture in the item.
    """

    def fitted(wide: int, high: int) -> tuple[int, int]:
        ratio = min(1.0, size / max(wide, high))
        return max(1, round(wide * ratio)), max(1, round(high * ratio))

    decoded = decode_image(item, least_size=fitted)
    small = decoded.image.resize(fitted(*decoded.full_size), Image.Resampling.BICUBIC, box=decoded.region)
    return _as_data_uri(small)


def sheet_data_uri(frames: Sequence[Image.Image], size: int = 96) -> str:
    """Put small pictures of frames side by side, two in a row.

    Args:
        frames: one or more of mode RGB; not modified.
        size: the longer side of each in pixels, at least 1.

    Returns:
        A JPEG as "data:image/jpeg;base64,…".
    """
    small = []
    for frame in frames:
        small.append(frame.copy())
        small[-1].thumbnail((size, size), Image.Resampling.BICUBIC)
    columns = min(2, len(small))
    wide, high = (max(side) for side in zip(*(picture.size for picture in small), strict=True))
    rows = -(-len(small) // columns)
    sheet = Image.new("RGB", (columns * (wide + GAP) - GAP, rows * (high + GAP) - GAP), "white")
    for number, picture in enumerate(small):
        sheet.paste(picture, (number % columns * (wide + GAP), number // columns * (high + GAP)))
    return _as_data_uri(sheet)


def _as_data_uri(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
