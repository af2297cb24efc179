"""What kind of file bytes are, by their beginning: the one table of signatures that every reader asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SignatureKind = Literal["image", "audio", "video", "text", "archive", "table", "document"]

HEAD_BYTES = 1024
"""Of a file, that identify it: six packets of a transport stream, or the first pages of an Ogg file."""

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_SOUND_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P "})


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The format that a file begins like."""

    kind: SignatureKind
    name: str
    demuxer: str = ""
    """What FFmpeg calls a container of video."""


def _of(kind: SignatureKind, name: str, demuxer: str = "") -> Signature:
    return Signature(kind=kind, name=name, demuxer=demuxer)


_AAC = _of("audio", "AAC")
_MP3 = _of("audio", "MP3")
_M4A = _of("audio", "MP4 or M4A (AAC, ALAC)")
_MOV = _of("video", "MP4 or QuickTime", "mov")
_TS = _of("video", "an MPEG transport stream", "mpegts")
_TEXT = _of("text", "a text")
_SIGNATURES: tuple[tuple[bytes, Signature], ...] = (
    (b"\x89PNG\r\n\x1a\n", _of("image", "a PNG picture")),
    (b"\xff\xd8\xff", _of("image", "a JPEG picture")),
    (b"GIF87a", _of("image", "a GIF picture")),
    (b"GIF89a", _of("image", "a GIF picture")),
    (b"II*\x00", _of("image", "a TIFF picture")),
    (b"MM\x00*", _of("image", "a TIFF picture")),
    (b"\x00\x00\x00\x0cjP  \r\n", _of("image", "a JPEG 2000 picture")),
    (b"\xff\x4f\xff\x51", _of("image", "a JPEG 2000 picture")),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", _of("image", "a JPEG XL picture")),
    (b"\xff\x0a", _of("image", "a JPEG XL picture")),
    (b"fLaC", _of("audio", "FLAC")),
    (b"ID3", _MP3),
    (b"#!AMR", _of("audio", "AMR")),
    (b".snd", _of("audio", "AU")),
    (b"caff", _of("audio", "CAF")),
    (b"\x1a\x45\xdf\xa3", _of("video", "Matroska or WebM", "matroska")),
    (b"FLV\x01", _of("video", "Flash video", "flv")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _of("video", "Windows Media", "asf")),
    (b"\x00\x00\x01\xba", _of("video", "an MPEG program stream", "mpeg")),
    (b"\x00\x00\x01\xb3", _of("video", "MPEG video", "mpegvideo")),
    (b"PK\x03\x04", _of("archive", "a zip archive")),
    (b"PK\x05\x06", _of("archive", "a zip archive")),
    (b"\x1f\x8b\x08", _of("archive", "a gzip archive")),
    (b"BZh", _of("archive", "a bzip2 archive")),
    (b"\xfd7zXZ\x00", _of("archive", "an xz archive")),
    (b"7z\xbc\xaf\x27\x1c", _of("archive", "a 7z archive")),
    (b"Rar!\x1a\x07", _of("archive", "a RAR archive")),
    (b"PAR1", _of("table", "a Parquet table")),
    (b"%PDF", _of("document", "a PDF")),
    (b"\xef\xbb\xbf", _TEXT),
    (b"\xff\xfe", _TEXT),  # the mark of UTF-16, which would be a frame of MPEG audio layer I, too
    (b"\xfe\xff", _TEXT),
)
_FORMS: dict[tuple[bytes, bytes], Signature] = {
    (b"RIFF", b"WAVE"): _of("audio", "WAV"),
    (b"RF64", b"WAVE"): _of("audio", "WAV"),
    (b"RIFF", b"AVI "): _of("video", "AVI", "avi"),
    (b"RIFF", b"WEBP"): _of("image", "a WebP picture"),
    (b"FORM", b"AIFF"): _of("audio", "AIFF"),
    (b"FORM", b"AIFC"): _of("audio", "AIFF"),
}
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
"""With which a QuickTime file may begin, behind four bytes of length."""
_OGG_VIDEO = (b"\x80theora", b"BBCD\x00", b"\x01video", b"\x4fVP80")
_PACKETS = ((188, 0), (192, 4), (204, 0))
"""Bytes from one packet of a transport stream to the next, and where in it the sync byte is."""
_LEAST_PACKETS = 3
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def identify(head: bytes) -> Signature | None:
    """Identify a file by its first bytes; exact signatures come before those that other files may have by chance.

    Args:
        head: the first `HEAD_BYTES` of a file, or all of it.

    Returns:
        What it begins like; None for an empty file and what is not known.
    """
    head = head[:HEAD_BYTES]
    for magic, signature in _SIGNATURES:
        if head.startswith(magic):
            return signature
    form = _FORMS.get((head[:4], head[8:12]))
    if form is not None:
        return form
    return _box(head) or _ogg(head) or _mpeg_audio(head) or _transport_stream(head) or _bitmap(head) or _tar_or_text(head)


def brands_of(content: bytes) -> set[bytes]:
    """The brands in the first box of an ISO media file (ISO/IEC 14496-12, 4.3); none if it is no such file."""
    if content[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(content[:4], "big"), 512)
    return {content[start : start + 4] for start in range(8, end, 4)}


def _box(head: bytes) -> Signature | None:
    if head[4:8] not in _BOXES:
        return None
    brands = brands_of(head)
    if brands & AVIF_BRANDS:
        return _of("image", "an AVIF picture")
    if brands & HEIC_BRANDS:
        return _of("image", "a HEIC picture")
    return _M4A if head[4:8] == b"ftyp" and head[8:12] in _SOUND_BRANDS else _MOV


def _ogg(head: bytes) -> Signature | None:
    """The pages that begin an Ogg file have the header of each codec (RFC 3533, 4): a sound unless one is of video."""
    if not head.startswith(b"OggS"):
        return None
    return _of("video", "Ogg", "ogg") if any(mark in head for mark in _OGG_VIDEO) else _of("audio", "OGG")


def _mpeg_audio(head: bytes) -> Signature | None:
    """A frame header of MPEG audio (ISO/IEC 11172-3, 2.4.1.3) or of ADTS (ISO/IEC 13818-7, 6.2), without reserved values."""
    if len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    third = head[2] if len(head) > 2 else 0x90
    if layer == 0:
        return _AAC if version & 2 and head[1] & 0xF0 == 0xF0 and third >> 2 & 0xF < 13 else None
    return _MP3 if version != 1 and third >> 4 != 0xF and third >> 2 & 3 != 3 else None


def _transport_stream(head: bytes) -> Signature | None:
    """Every packet begins with a sync byte: one alone, or two, occur by chance."""
    for length, place in _PACKETS:
        marks = head[place::length]
        if len(marks) >= _LEAST_PACKETS and set(marks) == {0x47}:
            return _TS
    return None


def _bitmap(head: bytes) -> Signature | None:
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return _of("image", "a BMP picture")
    return None


def _tar_or_text(head: bytes) -> Signature | None:
    if head[257:262] == b"ustar":
        return _of("archive", "a tar archive")
    if not head.strip() or not _CONTROLS.isdisjoint(head):
        return None
    start = head.lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return _of("document", "an SVG drawing")
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return _TEXT if len(head) == HEAD_BYTES and error.start >= HEAD_BYTES - 3 else None
    return _TEXT
