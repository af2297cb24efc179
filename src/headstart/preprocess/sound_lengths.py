"""How long a sound file says it is: one that ends before was cut off, which decoders pass over in silence.

RIFF WAVE and AIFF declare the bytes of their chunks (Multimedia Programming Interface and Data Specifications 1.0; AIFF
1.3), and an MP3 those of its stream where its encoder wrote a Xing or Info frame. A stream that was written before its length
was known declares none, or all that its field can hold.
"""

from __future__ import annotations

import io
from typing import IO

HEAD_BYTES = 1 << 16
"""Of a file, that tell how long it says it is."""
TAIL_BYTES = 1 << 17
"""Of an Ogg file; no page is longer than half of it."""
_PAGE_HEADER = 27
_UNKNOWN_FROM = 0x7FFF_0000
"""Lengths from here on are what writers put who do not know."""
_MOST_CHUNKS = 10_000
_PLAIN_SAMPLES = (1, 3, 0xFFFE)
"""Tags of formats whose samples have one size: integers, floats, and either as the extended format has them."""
_XING_SEARCHED = 4096
_TOLERATED = 0.02
"""Of an MP3's bytes: encoders count their first frame, tags and padding in different ways."""


def declared_bytes(head: bytes) -> int | None:
    """How many bytes a whole file must have.

    Args:
        head: the first `HEAD_BYTES` of a file.

    Returns:
        The least number; None where the file does not say.
    """
    if is_wave(head):
        return end_of_samples(io.BytesIO(head))
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        size = int.from_bytes(head[4:8], "big")
        return 8 + size if 0 < size < _UNKNOWN_FROM else None
    return _end_of_stream(head)


def missing_of_page(tail: bytes) -> int:
    """How many bytes the last page of an Ogg file lacks (RFC 3533, section 6).

    Args:
        tail: the last `TAIL_BYTES` of a file.

    Returns:
        0 where it is whole, or none is found.
    """
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + _PAGE_HEADER:
        return 0 if start < 0 else start + _PAGE_HEADER - len(tail)
    count = tail[start + _PAGE_HEADER - 1]
    lengths = tail[start + _PAGE_HEADER : start + _PAGE_HEADER + count]
    return max(0, start + _PAGE_HEADER + count + sum(lengths) - len(tail))


def is_wave(head: bytes) -> bool:
    """Whether a file is RIFF WAVE."""
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def end_of_samples(stream: IO[bytes]) -> int | None:
    """Where the last whole sample of a RIFF WAVE ends, however much precedes its data chunk.

    Args:
        stream: the file, at any position.

    Returns:
        The least number of bytes of a whole file: the byte that makes the length of a chunk even may be missing, and may be
        counted by mistake. None where the file does not say.
    """
    place, frame = 12, 1
    for _ in range(_MOST_CHUNKS):
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            return None
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            return place + 8 + size - size % frame if 0 < size < _UNKNOWN_FROM else None
        if head[:4] == b"fmt ":
            form = stream.read(16)
            coded = int.from_bytes(form[:2], "little") not in _PLAIN_SAMPLES
            frame = 1 if coded else max(int.from_bytes(form[12:14], "little"), 1)
        place += 8 + size + size % 2
    return None


def _end_of_stream(head: bytes) -> int | None:
    """Where an MP3 ends, by the frame that its encoder put before the sound."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = head[start : start + _XING_SEARCHED]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return None
    for mark in (b"Xing", b"Info"):
        place = frame.find(mark, 4, 64)
        if place > 0:
            flags = int.from_bytes(frame[place + 4 : place + 8], "big")
            field = place + 8 + 4 * (flags & 1)
            size = int.from_bytes(frame[field : field + 4], "big") if flags & 2 else 0
            return start + int(size * (1 - _TOLERATED)) if 0 < size < _UNKNOWN_FROM else None
    return None
