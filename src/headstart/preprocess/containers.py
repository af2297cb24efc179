"""What the first bytes of a file tell of its container: a video, or a picture in a box that videos come in, too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
HEAD_BYTES = 400
"""Of a file, that tell its container."""
FRAMES_EXPECTED = "a whole clip that FFmpeg reads (MP4, MOV, MKV, WebM, AVI, …), an animated GIF, WebP or PNG, or a picture."
REENCODE = "save it anew: ffmpeg -i FILE -c:v libx264 -pix_fmt yuv420p FILE.mp4; or take it out of the data."


@dataclass(frozen=True, kw_only=True)
class VideoKind:
    """A container of video."""

    name: str
    demuxer: str
    """What FFmpeg calls it."""


_MOV = VideoKind(name="MP4 or QuickTime", demuxer="mov")
_TS = VideoKind(name="an MPEG transport stream", demuxer="mpegts")
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
"""With which a QuickTime file may begin, behind four bytes of length."""
_MAGIC = (
    (b"\x1a\x45\xdf\xa3", VideoKind(name="Matroska or WebM", demuxer="matroska")),
    (b"FLV\x01", VideoKind(name="Flash video", demuxer="flv")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VideoKind(name="Windows Media", demuxer="asf")),
    (b"OggS", VideoKind(name="Ogg", demuxer="ogg")),
    (b"\x00\x00\x01\xba", VideoKind(name="an MPEG program stream", demuxer="mpeg")),
    (b"\x00\x00\x01\xb3", VideoKind(name="MPEG video", demuxer="mpegvideo")),
)
_CODECS = re.compile(rb"stsd.{12}(?P<mov>[ -~]{4})|(?P<matroska>V_[A-Z0-9/_]{2,30})|strh.{4}vids(?P<avi>[ -~]{4})", re.DOTALL)
_SEARCHED_BYTES = 1 << 20
"""Of a file's beginning and of its end, in which a codec's name is looked for."""
_PACKETS = ((188, 0), (192, 4))
"""Bytes from one packet of a transport stream to the next, and where in it the mark stands."""


def brands_of(content: bytes) -> set[bytes]:
    """The brands in the first box of an ISO media file (ISO/IEC 14496-12, 4.3); none if it is no such file."""
    if content[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(content[:4], "big"), 512)
    return {content[start : start + 4] for start in range(8, end, 4)}


def find_video_kind(head: bytes) -> VideoKind | None:
    """Tell the container of a video.

    Args:
        head: the first `HEAD_BYTES` of a file.

    Returns:
        The container; None for pictures and everything else.
    """
    if head[4:8] in _BOXES:
        return None if brands_of(head) & (AVIF_BRANDS | HEIC_BRANDS) else _MOV
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return VideoKind(name="AVI", demuxer="avi")
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    for length, place in _PACKETS:
        if head[place : place + 1] == b"\x47" == head[place + length : place + length + 1]:
            return _TS
    return None


def find_codec(content: bytes | Path) -> str:
    """What a file itself calls the codec of its video, such as 'xyz9'; '' where that is not found."""
    if isinstance(content, Path):
        with content.open("rb") as stream:
            searched = stream.read(_SEARCHED_BYTES)
            stream.seek(max(stream.seek(0, 2) - _SEARCHED_BYTES, 0))
            searched += stream.read()
    else:
        searched = content[:_SEARCHED_BYTES] + content[-_SEARCHED_BYTES:]
    found = _CODECS.search(searched)
    return "" if found is None else next(name for name in found.groups() if name).decode("ascii").strip()
