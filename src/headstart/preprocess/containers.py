"""What the first bytes of a file tell of its container: a video, or a picture in a box that videos come in, too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headstart.signatures import identify

FRAMES_EXPECTED = "a whole clip that FFmpeg reads (MP4, MOV, MKV, WebM, AVI, …), an animated GIF, WebP or PNG, or a picture."
REENCODE = "save it anew: ffmpeg -i FILE -c:v libx264 -pix_fmt yuv420p FILE.mp4; or take it out of the data."


@dataclass(frozen=True, kw_only=True)
class VideoKind:
    """A container of video."""

    name: str
    demuxer: str
    """What FFmpeg calls it."""


_CODECS = re.compile(rb"stsd.{12}(?P<mov>[ -~]{4})|(?P<matroska>V_[A-Z0-9/_]{2,30})|strh.{4}vids(?P<avi>[ -~]{4})", re.DOTALL)
_SEARCHED_BYTES = 1 << 20
"""Of a file's beginning and of its end, in which a codec's name is looked for."""


def find_video_kind(head: bytes) -> VideoKind | None:
    """Identify the container of a video.

    Args:
        head: the first `HEAD_BYTES` of a file.

    Returns:
        The container; None for pictures, sounds and everything else.
    """
    found = identify(head)
    return VideoKind(name=found.name, demuxer=found.demuxer) if found is not None and found.kind == "video" else None


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
