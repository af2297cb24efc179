"""How a picture of any shape becomes a square: sizes, and scaling of no more than what is kept."""

from __future__ import annotations

import numpy as np
from PIL import Image

from headstart.preprocess.decode import DecodedImage
from headstart.preprocess.modes import Color


def size_by_shorter_side(wide: int, high: int, side: int) -> tuple[int, int]:
    """Scale so that the shorter side is `side`; the longer one is rounded down, as torchvision's Resize does.

    Source: torchvision.transforms.functional._compute_resized_output_size.
    """
    return (side, int(side * high / wide)) if wide <= high else (int(side * wide / high), side)


def size_by_longer_side(wide: int, high: int, side: int) -> tuple[int, int]:
    """Scale so that the longer side is `side`; the shorter one is rounded, and at least 1."""
    longer = max(wide, high)
    return max(1, round(side * wide / longer)), max(1, round(side * high / longer))


def resample_middle(decoded: DecodedImage, resized: tuple[int, int], size: int, filter_kind: Image.Resampling) -> np.ndarray:
    """Scale a picture and keep its middle; only what is kept is computed.

    The pixels are those of scaling everything and cropping then, since the filter still reads beyond the part that is kept
    (a level more or less where a value lies between two: the part's edges reach Pillow in single precision). But a picture of
    5000x3 never becomes one of 426666x256 on the way.

    Args:
        decoded: the picture.
        resized: width and height of the whole scaled picture, both at least `size`.
        size: side of the square that is kept, in pixels of the scaled picture.
        filter_kind: Pillow's filter.

    Returns:
        (size, size, 3) uint8.
    """
    # torchvision's center_crop rounds halves to even, as Python does.
    corner = round((resized[0] - size) / 2.0), round((resized[1] - size) / 2.0)
    if filter_kind == Image.Resampling.NEAREST:
        return _pick_nearest(decoded, resized, corner, size)
    left, top, right, bottom = decoded.region
    across, down = (right - left) / resized[0], (bottom - top) / resized[1]
    box = (
        left + corner[0] * across,
        top + corner[1] * down,
        min(left + (corner[0] + size) * across, right),
        min(top + (corner[1] + size) * down, bottom),
    )
    return np.array(decoded.image.resize((size, size), filter_kind, box=box))


def resample_padded(
    decoded: DecodedImage, resized: tuple[int, int], size: int, filter_kind: Image.Resampling, color: Color
) -> np.ndarray:
    """Scale a picture and lay it in the middle of a plain square.

    Args:
        decoded: the picture.
        resized: width and height of the scaled picture, neither above `size`.
        size: side of the square.
        filter_kind: Pillow's filter.
        color: 8-bit red, green, blue of the rest.

    Returns:
        (size, size, 3) uint8.
    """
    canvas = Image.new("RGB", (size, size), color)
    corner = round((size - resized[0]) / 2.0), round((size - resized[1]) / 2.0)
    canvas.paste(decoded.image.resize(resized, filter_kind, box=decoded.region), corner)
    return np.array(canvas)


def _pick_nearest(decoded: DecodedImage, resized: tuple[int, int], corner: tuple[int, int], size: int) -> np.ndarray:
    """Take the pixels that Pillow's nearest filter takes; through a box, in single precision, it would take some neighbours."""
    left, top, right, bottom = decoded.region
    columns = _nearest_positions(left, right, resized[0])[corner[0] : corner[0] + size]
    rows = _nearest_positions(top, bottom, resized[1])[corner[1] : corner[1] + size]
    pixels = np.asarray(decoded.image)
    rows, columns = np.minimum(rows, pixels.shape[0] - 1), np.minimum(columns, pixels.shape[1] - 1)
    return np.ascontiguousarray(pixels[rows[:, None], columns])


def _nearest_positions(start: float, stop: float, count: int) -> np.ndarray:
    # Added up step by step as in ImagingScaleAffine (Pillow, src/libImaging/Geometry.c), so that ties fall the same way.
    step = (stop - start) / count
    steps = np.full(count, step)
    steps[0] = start + step * 0.5
    return np.add.accumulate(steps).astype(np.int64)
