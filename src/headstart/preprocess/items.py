"""Items as bytes: read once, named in messages, and known by their content."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from headstart.errors import DataError

UnreadableKind = Literal["unreadable", "truncated", "empty", "zero_size", "bomb", "unsupported"]

MAX_FILE_BYTES = 1 << 30
"""A larger file is no single item that could be decoded in memory."""

IN_MEMORY_BYTES = 8 << 20
"""A larger file of what lasts, a sound or a clip, is read where it lies."""

ORIENTATION_TAG = 0x0112
"""The EXIF tag that says how the camera was held (CIPA DC-008, 4.6.4)."""


class UnreadableItemError(DataError):
    """One item cannot be decoded; nothing is ever put in its place.

    Args:
        name: the item, as a user would name it.
        reason: what is wrong with it, one clause without a full stop.
        kind: the sort of trouble, for lists and counts.
        expected: what would have been right.
        mend: what to do about it.
    """

    def __init__(
        self,
        name: str,
        reason: str,
        *,
        kind: UnreadableKind = "unreadable",
        expected: str = "a whole picture in a format that Pillow reads (JPEG, PNG, WebP, GIF, TIFF, BMP, …).",
        mend: str = "replace the item, or take it out of the data.",
    ) -> None:
        """Word the three parts of the message."""
        super().__init__(f"{name}: {reason}.", expected=expected, mend=mend)
        self.name = name
        self.reason = reason
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value, for processes that hand the error on."""
        return _rebuild, (self.name, self.reason, self.kind, self.expected, self.mend)


def _rebuild(name: str, reason: str, kind: UnreadableKind, expected: str, mend: str) -> UnreadableItemError:
    return UnreadableItemError(name, reason, kind=kind, expected=expected, mend=mend)


def item_name(item: object) -> str:
    """Name an item in a message: a path by itself, everything else by its kind and size."""
    match item:
        case str() | Path():
            return str(item)
        case bytes() | bytearray() | memoryview():
            return f"an item of {len(item)} bytes"
        case np.ndarray():
            return f"an array of shape {item.shape} and type {item.dtype}"
        case Image.Image():
            return f"an image of mode {item.mode} and size {item.width}x{item.height}"
        case _:
            return f"an object of type {type(item).__name__}"


def load_bytes(item: object, *, name: str = "") -> object:
    """Read a file once, so that hashing and decoding share the read; whatever is in memory already is given back as it is.

    Args:
        item: a path (`Path` or str), bytes, a numpy array or a PIL image.
        name: what to call the item in an error; by default the item itself.

    Returns:
        bytes for a path or bytes-like item, else `item`.

    Raises:
        UnreadableItemError: if the path names no regular file that can be read, or more than 1 GiB.
    """
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    if not isinstance(item, str | Path):
        return item
    name = name or item_name(item)
    try:
        # Opened without blocking: a named pipe in a data folder must not stop the run for good.
        handle = os.open(item, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:  # noqa: PTH123 - a handle has no path
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                reason = "is a folder" if stat.S_ISDIR(status.st_mode) else "is no regular file"
                raise UnreadableItemError(name, reason, mend="name the files, not the folder or device.")
            if status.st_size > MAX_FILE_BYTES:
                raise UnreadableItemError(
                    name,
                    f"has {status.st_size:,} bytes",
                    kind="bomb",
                    expected=f"at most {MAX_FILE_BYTES:,} bytes in one item.",
                )
            return file.read()
    except FileNotFoundError as problem:
        raise UnreadableItemError(name, "there is no such file", mend="correct the path, or put the file back.") from problem
    except IsADirectoryError as problem:
        raise UnreadableItemError(name, "is a folder", mend="name the files in it.") from problem
    except PermissionError as problem:
        raise UnreadableItemError(name, "may not be read (permission denied)", mend=f"chmod +r {name}") from problem
    except OSError as problem:  # its own words have the whole path
        raise UnreadableItemError(name, f"cannot be read ({problem.strerror or problem})") from problem
    except ValueError as problem:
        raise UnreadableItemError(name, f"cannot be read ({problem})") from problem


def load_small(item: object, *, name: str = "") -> object:
    """Read a small file once; a large one stays the path it is.

    Args:
        item: a path, or anything else.
        name: what to call the item in an error.

    Returns:
        bytes of a small file, the `Path` of a large one, and else as `load_bytes`.

    Raises:
        UnreadableItemError: if the path names no file that can be read.
    """
    if isinstance(item, str | Path):
        path = Path(item)
        try:
            if path.is_file() and IN_MEMORY_BYTES < path.stat().st_size:
                return path
        except (OSError, ValueError):  # reading it says what is wrong
            pass
    return load_bytes(item, name=name)


def file_key(path: Path, *, name: str = "") -> bytes:
    """Hash a file where it lies, with the key that its bytes have.

    Args:
        path: of the file.
        name: what to call it in an error.

    Returns:
        The 32 bytes of a SHA-256.

    Raises:
        UnreadableItemError: if it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as problem:
        raise UnreadableItemError(name or str(path), f"cannot be read ({problem.strerror or problem})") from problem


def content_key(item: object, *, name: str = "") -> bytes:
    """Hash what an item holds: a renamed file keeps its key, a changed one gets another.

    A file and its bytes have one key. An array, or a PIL image, of the same picture has another key than its file.

    Args:
        item: a path (`Path` or str), bytes, a numpy array or a PIL image.
        name: what to call the item in an error; by default the item itself.

    Returns:
        The 32 bytes of a SHA-256.

    Raises:
        UnreadableItemError: if the item cannot be read, or is of another type.
    """
    content = load_bytes(item, name=name)
    match content:
        case bytes():
            return hashlib.sha256(content).digest()
        case np.ndarray() if content.dtype.kind in "biuf":
            head = f"array {content.dtype.str} {content.shape} ".encode()
            return _digest(head, np.ascontiguousarray(content).data.cast("B") if content.size else b"")
        case Image.Image():
            return _image_key(content, name or item_name(item))
        case _:
            raise unsupported_item(item, name=name)


def unsupported_item(item: object, *, name: str = "") -> UnreadableItemError:
    """Make the error for an object that is no item at all."""
    return UnreadableItemError(
        name or item_name(item),
        "is nothing that an image can be read from" if not name else f"is {item_name(item)}, which no image can be read from",
        kind="unsupported",
        expected="a path, bytes, a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a PIL image.",
        mend="convert it to one of these first.",
    )


def _image_key(image: Image.Image, name: str) -> bytes:
    try:
        pixels = image.tobytes()
        # A palette image is its palette too, and a turned one its EXIF mark.
        palette = image.palette.tobytes() if image.palette is not None else b""
        turned = image.getexif().get(ORIENTATION_TAG)
    except (OSError, SyntaxError, ValueError) as problem:
        raise UnreadableItemError(name, f"cannot be read ({problem})") from problem
    head = f"image {image.mode} {image.size} {turned} {image.info.get('transparency')!r} {len(palette)} ".encode()
    return _digest(head, palette, pixels)


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()
