"""Which of Pillow's plug-ins opens the bytes of a picture, and the name of the format where none does."""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from headstart.preprocess.items import UnreadableItemError, UnreadableKind
from headstart.signatures import AVIF_BRANDS, HEIC_BRANDS, brands_of, identify

# What Pillow's plug-ins raise on damaged files, beside OSError: they are parsers, and most do not check every field.
PARSER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# EPS and WMF run other programs or the system's drawing engine; the others only name a format that nothing here can read.
_BEHIND_GIF = 1024
_REFUSED_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})


@dataclass(frozen=True, kw_only=True)
class _OptionalFormat:
    name: str
    plugin: str
    """What its plug-in is registered as."""
    package: str
    module: str


_AVIF = _OptionalFormat(name="AVIF", plugin="AVIF", package="pillow>=11.3", module="pillow_avif")
_HEIC = _OptionalFormat(name="HEIC", plugin="HEIF", package="pillow-heif", module="pillow_heif")
_JPEG_XL = _OptionalFormat(name="JPEG XL", plugin="JXL", package="pillow-jxl-plugin", module="pillow_jxl")

PILLOW_LOCK = threading.RLock()
"""Held while a switch of Pillow that counts for the whole process is changed, for a moment, and set back."""


def open_image(content: bytes, name: str) -> Image.Image:
    """Find the plug-in that knows the bytes, as `Image.open` does, but without its limit of pixels and its warnings.

    Args:
        content: the whole file.
        name: what to call the item in an error.

    Returns:
        The image, its pixels not loaded.

    Raises:
        UnreadableItemError: if the bytes are empty, no picture, or of a format that cannot be read here.
    """
    if not content:
        raise UnreadableItemError(name, "is empty (0 bytes)", kind="empty")
    answers: list[tuple[UnreadableKind, str]] = []
    tried: set[str] = set()
    for load_plugins in (Image.preinit, Image.init, lambda: _load_optional_plugin(content)):
        load_plugins()
        for format_name in [known for known in Image.ID if known not in tried]:
            tried.add(format_name)
            match _try_format(content, format_name):
                case Image.Image() as image:
                    _refuse_cut_off(image, content, name)
                    return image
                case (_, _) as answer:
                    answers.append(answer)
    _refuse_by_name(content, name)
    if content.startswith(b"RIFF") and len(content) < int.from_bytes(content[4:8], "little") + 8:
        raise UnreadableItemError(name, "is cut off: it declares more bytes than it has", kind="truncated")
    kind, reason = answers[0] if answers else ("unreadable", f"is no picture: it starts with {content[:12]!r}")
    raise UnreadableItemError(name, reason, kind=kind)


def _try_format(content: bytes, format_name: str) -> Image.Image | tuple[UnreadableKind, str] | None:
    """Open the bytes as one format: an image, or why not if they look like that format, or None."""
    factory, accept = Image.OPEN[format_name]
    looks_so: bool | str = False
    try:
        looks_so = accept is not None and accept(content[:16])
        if isinstance(looks_so, str):
            return "unsupported", f"is {format_name}, which the Pillow installed here cannot read"
        if accept is not None and not looks_so:
            return None
        if format_name in _REFUSED_FORMATS:
            return ("unsupported", f"is {format_name}, which is not read here; save it as PNG or JPEG") if looks_so else None
        with pillow_limit_lifted():
            return factory(io.BytesIO(content), "")
    except PARSER_ERRORS as problem:
        reason = f"starts like {format_name}, but its header is damaged or cut off ({words_of(problem)})"
        return ("unreadable", reason) if looks_so else None


def _refuse_cut_off(image: Image.Image, content: bytes, name: str) -> None:
    # The decoder of JPEG 2000 fills up what is missing. Inside a codestream its end mark occurs once (ISO/IEC 15444-1, A.4.4).
    if image.format == "JPEG2000" and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\x93") + 2:
        raise _without_end(name)
    # Pillow reads as many frames as there are. Behind the last block, which ends with 0, stands ';' (GIF89a, 27), and behind
    # that a few bytes of some writers.
    if image.format == "GIF" and b"\x00;" not in content[-_BEHIND_GIF:]:
        raise _without_end(name)


def _without_end(name: str) -> UnreadableItemError:
    return UnreadableItemError(name, "is cut off: its end mark is missing", kind="truncated")


@contextlib.contextmanager
def pillow_limit_lifted() -> Iterator[None]:
    """Leave the limit of pixels to the preprocess; Pillow's is one for the whole process, and warns before it refuses."""
    with PILLOW_LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _optional_format(content: bytes) -> _OptionalFormat | None:
    brands = brands_of(content)
    if brands & AVIF_BRANDS:
        return _AVIF
    if brands & HEIC_BRANDS:
        return _HEIC
    found = identify(content)
    return _JPEG_XL if found is not None and found.name == "a JPEG XL picture" else None


def _load_optional_plugin(content: bytes) -> None:
    wanted = _optional_format(content)
    if wanted is None or wanted.plugin in Image.ID:
        return
    with contextlib.suppress(ImportError):
        module = importlib.import_module(wanted.module)
        if wanted is _HEIC:  # the others register themselves
            module.register_heif_opener()


def _refuse_by_name(content: bytes, name: str) -> None:
    """Name the format of what no plug-in could open, where that helps."""
    wanted = _optional_format(content)
    if wanted is not None and wanted.plugin not in Image.ID:
        raise UnreadableItemError(
            name,
            f"is {wanted.name}, which the Pillow installed here cannot read",
            kind="unsupported",
            mend=f'pip install "{wanted.package}", or save the picture as JPEG or PNG.',
        )
    found = identify(content)
    if found is None:
        return
    if found.kind == "video":
        raise UnreadableItemError(
            name,
            f"is a clip ({found.name}), and only pictures are taken here",
            kind="unsupported",
            mend="fit a model on data with clips among them; or take a frame: ffmpeg -i FILE -frames:v 1 FILE.png",
        )
    if found.kind == "audio":
        raise UnreadableItemError(
            name, f"is a sound ({found.name}), no picture", kind="unsupported", mend="take it out of the pictures."
        )
    if found.kind == "document":
        raise UnreadableItemError(
            name, f"is {found.name}, no picture of pixels", kind="unsupported", mend="save it as PNG or JPEG."
        )


def words_of(problem: BaseException) -> str:
    """What an error says, or its type where it says nothing; without a full stop."""
    return str(problem).strip().rstrip(".") or type(problem).__name__
