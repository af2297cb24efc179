"""Every kind of pixel becomes 8-bit RGB, by rule and never by guessing from the values.

| pixels | rule |
|---|---|
| 1, L, RGB, YCbCr, HSV, LAB, CMYK, P, RGBX | Pillow's own conversion; embedded colour profiles are ignored |
| LA, PA, RGBA, La, RGBa, and any mode with a transparent colour | laid on the background |
| 16 bits (I;16 and its byte orders, uint16 arrays) | value / 257, rounded |
| I (32-bit integers) | as 16 bits: how older versions of Pillow open a 16-bit PNG; values outside [0, 65535] are refused |
| F, float arrays | value * 255, rounded; values outside [0, 1] and NaN are refused |
| uint8 and bool arrays | as they are; True is white |

Colour with 16 bits a channel in a PNG or TIFF is cut to its upper 8 bits by Pillow when it reads the file.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from headstart.preprocess.items import UnreadableItemError

Color = tuple[int, int, int]
CHANNELS = frozenset({1, 3, 4})
"""How many the arrays of pixels may have: grey, RGB, RGB and opacity."""


def image_to_rgb(image: Image.Image, *, background: Color, name: str) -> Image.Image:
    """Convert a loaded PIL image of any mode to RGB.

    Args:
        image: fully loaded; not modified.
        background: what shows through where the image is transparent.
        name: what to call the item in an error.

    Returns:
        An image of mode RGB and the same size; `image` itself if it is opaque RGB already.

    Raises:
        UnreadableItemError: if the pixels are of a kind, or in a range, that the rules refuse.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_gray_levels(image, name)).convert("RGB")
    if image.has_transparency_data:
        return _lay_on(image.convert("RGBA"), background)
    if image.mode == "RGB":
        return image
    try:
        return image.convert("RGB")
    except (ValueError, ImportError) as problem:
        raise UnreadableItemError(
            name, f"has pixels of mode {image.mode}, unknown here ({problem})", kind="unsupported"
        ) from problem


def array_to_rgb(array: np.ndarray, *, background: Color, name: str) -> Image.Image:
    """Make an RGB image of an array of pixels.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8, uint16, bool, or floating point in [0, 1]; not modified.
        background: what shows through where the fourth channel is below its maximum.
        name: what to call the item in an error.

    Returns:
        An image of mode RGB.

    Raises:
        UnreadableItemError: if shape, type or range is another, or the array is empty.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in {2, 3} or channels not in CHANNELS:
        raise UnreadableItemError(
            name,
            f"has the shape {array.shape}, where a picture has (height, width, 3) in uint8",
            kind="unsupported",
            expected="(H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last.",
            mend="array.transpose(1, 2, 0) if the channels come first.",
        )
    if 0 in array.shape:
        raise UnreadableItemError(name, f"has no pixels: its shape is {array.shape}", kind="zero_size")
    levels = array_to_levels(array, name=name)
    if channels == 4:
        return _lay_on(Image.fromarray(np.ascontiguousarray(levels)), background)
    levels = np.repeat(levels.reshape(*array.shape[:2], 1), 3, axis=2) if channels == 1 else levels
    return Image.fromarray(np.ascontiguousarray(levels))


def array_to_levels(array: np.ndarray, *, name: str) -> np.ndarray:
    """Bring the values of an array to 8 bits.

    Args:
        array: any shape with at least one value; uint8, uint16, bool, or floating point in [0, 1].
        name: what to call the item in an error.

    Returns:
        The same shape, uint8.

    Raises:
        UnreadableItemError: if the type is another, or a value is outside its range.
    """
    match array.dtype.kind, array.dtype.itemsize:
        case "u", 1:
            return array
        case "b", _:
            return array.astype(np.uint8) * np.uint8(255)
        case "u", 2:
            return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
        case "f", _:
            return _levels_of_fractions(array, name)
        case _:
            raise UnreadableItemError(
                name,
                f"has values of type {array.dtype}",
                kind="unsupported",
                expected="uint8 in [0, 255], uint16 in [0, 65535], bool, or floating point in [0, 1].",
                mend="array.astype(numpy.uint8) if its values are in [0, 255].",
            )


def _levels_of_fractions(array: np.ndarray, name: str) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # so that NaN, which compares false, is refused
        span = "NaN" if np.isnan(low) or np.isnan(high) else f"values from {low:g} to {high:g}"
        raise UnreadableItemError(
            name,
            f"has {span} as floating point",
            kind="unsupported",
            expected="floating point values in [0, 1], none of them NaN.",
            mend="divide by the largest value the data can have (255, say) and replace NaN.",
        )
    return np.rint(array.astype(np.float64) * 255.0).astype(np.uint8)


def _gray_levels(image: Image.Image, name: str) -> np.ndarray:
    values = np.asarray(image)
    if image.mode == "F":
        return _levels_of_fractions(values, name)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UnreadableItemError(
            name,
            f"has integers from {low} to {high}",
            kind="unsupported",
            expected="integers of 16 bits, in [0, 65535].",
            mend="scale them to that range, or save the picture with 8 bits.",
        )
    return array_to_levels(values.astype(np.uint16), name=name)


def _lay_on(image: Image.Image, background: Color) -> Image.Image:
    ground = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(ground, image).convert("RGB")
