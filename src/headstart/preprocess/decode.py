"""One picture out of whatever holds it: the first frame, upright, RGB, whole or refused.

Embedded colour profiles (ICC) and gamma marks are ignored, as everywhere in training: networks saw pictures read so.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin

from headstart.preprocess.formats import PARSER_ERRORS, PILLOW_LOCK, open_image, pillow_limit_lifted, words_of
from headstart.preprocess.items import ORIENTATION_TAG, UnreadableItemError, item_name, load_bytes, unsupported_item
from headstart.preprocess.modes import Color, array_to_rgb, image_to_rgb

Region = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, not always whole ones."""

LARGE_PIXELS, MOST_PIXELS_A_BYTE = 20_000_000, 1_000
"""A larger picture with more pixels a byte shows one colour, and is made to fill the memory."""
MOST_SCANS = 200
"""Of a JPEG: each is as much work as the whole picture."""

_TRUNCATION_WORDS = ("truncated", "broken data stream", "unexpected end", "not enough", "incomplete", "buffer overrun", "eof")
# EXIF orientation -> (axes swapped, then flipped left-right, then flipped top-bottom) of the upright picture, and the call.
_TURNS: dict[int, tuple[bool, bool, bool, Image.Transpose]] = {
    2: (False, True, False, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (False, True, True, Image.Transpose.ROTATE_180),
    4: (False, False, True, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (True, False, False, Image.Transpose.TRANSPOSE),
    6: (True, True, False, Image.Transpose.ROTATE_270),
    7: (True, True, True, Image.Transpose.TRANSVERSE),
    8: (True, False, True, Image.Transpose.ROTATE_90),
}


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """An upright RGB picture, perhaps smaller than it was saved."""

    image: Image.Image
    """Mode RGB."""
    full_size: tuple[int, int]
    """Width and height of the upright picture as it was saved."""
    region: Region
    """The part of `image` that shows the full picture: all of it, but for the rounding up of a scaled JPEG."""


def decode_image(
    item: object,
    *,
    background: Color = (255, 255, 255),
    max_pixels: int = 200_000_000,
    least_size: Callable[[int, int], tuple[int, int]] | None = None,
    name: str = "",
) -> DecodedImage:
    """Decode one item.

    Args:
        item: a path (`Path` or str), bytes, a numpy array, or a PIL image, none of them modified (a PIL image still lazily
            open is loaded). Arrays: see `headstart.preprocess.modes`.
        background: what shows through where the picture is transparent.
        max_pixels: a file that declares more is refused before it is decoded.
        least_size: tells, from the full width and height, the width and height that are needed; a JPEG, from a file or bytes,
            is then decoded at 1/2, 1/4 or 1/8 if that is still no smaller.
        name: what to call the item in an error; by default the item itself.

    Returns:
        The picture.

    Raises:
        UnreadableItemError: if there is no whole picture in the item; `kind` says why.
    """
    name = name or item_name(item)
    content = load_bytes(item, name=name)
    try:
        return _decode(content, background, max_pixels, least_size, name)
    except Warning:
        # Only where warnings are turned into errors: a remark on a file's metadata is no reason to refuse its picture.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(content, background, max_pixels, least_size, name)


def _decode(
    content: object, background: Color, max_pixels: int, least_size: Callable[[int, int], tuple[int, int]] | None, name: str
) -> DecodedImage:
    shown: tuple[float, float] | None = None
    match content:
        case np.ndarray():
            image = array_to_rgb(content, background=background, name=name)
            return DecodedImage(image=image, full_size=image.size, region=(0, 0, *image.size))
        case bytes():
            image = open_image(content, name)
        case Image.Image():
            image = content
        case _:
            raise unsupported_item(content, name="" if name == item_name(content) else name)
    check_size(image, max_pixels, name)
    if isinstance(content, bytes):
        _refuse_bombs(image, content, name)
    full_size = image.size
    if isinstance(content, bytes) and isinstance(image, JpegImagePlugin.JpegImageFile) and least_size is not None:
        shown = _choose_jpeg_scale(image, least_size)
    load_pixels(image, name)
    if shown is None:
        full_size = shown = image.size  # loading a TIFF may have turned it
    return _turn_upright(image_to_rgb(image, background=background, name=name), _orientation(image), full_size, shown)


def _choose_jpeg_scale(image: Image.Image, least_size: Callable[[int, int], tuple[int, int]]) -> tuple[float, float] | None:
    """Have a JPEG decoded smaller if that is enough; gives the width and height, in its pixels, that show the picture."""
    wide, high = image.size
    needed = least_size(high, wide)[::-1] if _orientation(image) >= 5 else least_size(wide, high)
    drafted = image.draft("", needed)
    return None if drafted is None else (drafted[1][2], drafted[1][3])


def load_pixels(image: Image.Image, name: str, *, frame: int | None = None) -> None:
    """Have the pixels of an open picture decoded, all or none.

    Args:
        image: open.
        name: what to call the item in an error.
        frame: the number of a frame to go to first, from 0.

    Raises:
        UnreadableItemError: if they are cut off or damaged.
    """
    try:
        with contextlib.ExitStack() as switches:
            if ImageFile.LOAD_TRUNCATED_IMAGES:
                switches.enter_context(_whole_pictures_only())
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                switches.enter_context(pillow_limit_lifted())
            if frame is not None:
                image.seek(frame)
            image.load()
    except Image.DecompressionBombError as problem:
        raise UnreadableItemError(name, f"holds more pixels than it declares ({problem})", kind="bomb") from problem
    except PARSER_ERRORS as problem:
        words = words_of(problem)
        if isinstance(problem, EOFError) or any(word in words.lower() for word in _TRUNCATION_WORDS):
            raise UnreadableItemError(name, f"is cut off, or damaged inside ({words})", kind="truncated") from problem
        raise UnreadableItemError(name, f"is damaged inside ({words})") from problem


def check_size(image: Image.Image, max_pixels: int, name: str) -> None:
    """Refuse an open picture that declares no pixels, or too many.

    Raises:
        UnreadableItemError: if it does.
    """
    wide, high = image.size
    if wide < 1 or high < 1:
        raise UnreadableItemError(name, f"has no pixels: its size is {wide}x{high}", kind="zero_size")
    if wide * high > max_pixels:
        raise UnreadableItemError(
            name,
            f"declares {wide}x{high} = {wide * high:,} pixels",
            kind="bomb",
            expected=f"at most {max_pixels:,} pixels (max_pixels of the preprocess).",
            mend="make the picture smaller, or take it out of the data.",
        )


def _refuse_bombs(image: Image.Image, content: bytes, name: str) -> None:
    """Refuse an open file that would take far more memory or time than a file of its size does."""
    pixels = image.width * image.height
    # Black and white compresses further: a blank page of a fax.
    if pixels > LARGE_PIXELS and pixels > MOST_PIXELS_A_BYTE * len(content) and image.mode != "1":
        raise UnreadableItemError(
            name,
            f"declares {image.width}x{image.height} = {pixels:,} pixels in {len(content):,} bytes",
            kind="bomb",
            expected=f"at most {MOST_PIXELS_A_BYTE:,} pixels a byte in a picture of more than {LARGE_PIXELS:,}.",
        )
    # A marker never occurs within the data of a scan, where 0 follows 255 (ITU T.81, B.1.1.5).
    scans = content.count(b"\xff\xda") if isinstance(image, JpegImagePlugin.JpegImageFile) else 0
    if scans > MOST_SCANS:
        raise UnreadableItemError(
            name, f"is a JPEG of {scans:,} scans", kind="bomb", expected=f"at most {MOST_SCANS}; programs write about 10."
        )


def _turn_upright(image: Image.Image, orientation: int, full_size: tuple[int, int], shown: tuple[float, float]) -> DecodedImage:
    if orientation not in _TURNS:
        return DecodedImage(image=image, full_size=full_size, region=(0, 0, *shown))
    swapped, left_right, top_bottom, turn = _TURNS[orientation]
    upright = image.transpose(turn)
    if swapped:
        full_size, shown = full_size[::-1], shown[::-1]
    # What a scaled JPEG has beyond the picture (its size is rounded up) turns with it.
    left = upright.width - shown[0] if left_right else 0.0
    top = upright.height - shown[1] if top_bottom else 0.0
    return DecodedImage(image=upright, full_size=full_size, region=(left, top, left + shown[0], top + shown[1]))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except PARSER_ERRORS:  # damaged metadata, which say nothing
        return 1
    return value if isinstance(value, int) else 1


@contextlib.contextmanager
def _whole_pictures_only() -> Iterator[None]:
    """Undo, while a picture is loaded, a switch some libraries set for the whole process: gray for what is cut off."""
    with PILLOW_LOCK:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
