"""Small pictures that can stand inside a page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from headstart.preprocess.decode import decode_image


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
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
