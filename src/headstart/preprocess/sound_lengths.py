"""How long a sound file says it is: one that ends before was cut off, which decoders pass over in silence.

RIFF WAVE and AIFF declare the bytes of their chunks (Multimedia Programming Interface and Data Specifications 1.0; AIFF
1.3), and an MP3 those of its stream where its encoder wrote a Xing or Info frame. A stream that was written before its length
was known declares none, or all that its field can hold.
"""

from __future__ import annotations

HEAD_BYTES = 1 << 16
"""Of a file, that tell how long it says it is."""
TAIL_BYTES = 1 << 17
"""Of an Ogg file; no page is longer than half of it."""
_PAGE_HEADER = 27
_UNKNOWN_FROM = 0x7FFF_0000
"""Lengths from here on are what writers put who do not know."""
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
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _end_of_chunk(head, b"data")
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


def _end_of_chunk(head: bytes, wanted: bytes) -> int | None:
    """Where a chunk of a RIFF file ends; the byte that makes its length even may be missing."""
    place = 12
    while place + 8 <= len(head):
        size = int.from_bytes(head[place + 4 : place + 8], "little")
        if head[place : place + 4] == wanted:
            return place + 8 + size if 0 < size < _UNKNOWN_FROM else None
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
