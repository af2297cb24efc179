"""Frames of a video file, spread over its length and decoded no more than need be, through PyAV.

A file is read twice. First its packets, without decoding any: that tells when each frame is shown, which are key frames, and
whether the file is whole. Then, of each of so many equal parts of its length, one frame is decoded: the key frame nearest the
middle of the part where it has one, which costs one frame; else the first reference frame from the middle on. Frames that no
other refers to are not decoded on the way. A frame at a time is in memory.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from headstart.errors import MissingPackageError
from headstart.preprocess.containers import FRAMES_EXPECTED, REENCODE, VideoKind, find_codec
from headstart.preprocess.decode import DecodedImage
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.modes import Color, image_to_rgb
from headstart.preprocess.timeline import Timeline, place_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    import av
    from av.container import InputContainer
    from av.video.reformatter import Interpolation
    from av.video.stream import VideoStream

    LeastSize = Callable[[int, int], tuple[int, int]]

LEAST_SHARE, LEAST_SECONDS = 0.9, 1.0
"""A video that ends before this share of the length it declares was cut off; if that is the whole file's, so long before."""
MANY_FRAMES = 16
"""In a part, from which on frames that no other refers to are passed over."""


def video_seconds(content: bytes | Path, kind: VideoKind, *, name: str) -> float:
    """How long a video is, from its first frame to the end of its last.

    Args:
        content: the file, or its path.
        kind: its container.
        name: what to call it in an error.

    Raises:
        UnreadableItemError: if it cannot be read.
        MissingPackageError: if PyAV is not installed.
    """
    with _opened(content, kind, name) as (container, stream):
        return _read_timeline(container, stream, name).seconds


def read_frames(
    content: bytes | Path,
    kind: VideoKind,
    count_for: Callable[[float], int],
    *,
    background: Color,
    max_pixels: int,
    least_size: LeastSize | None,
    name: str,
) -> Iterator[DecodedImage]:
    """Decode frames spread over a video.

    Args:
        content: the file, or its path.
        kind: its container.
        count_for: how many frames, F, of a video of so many seconds.
        background: what shows through where a frame is transparent.
        max_pixels: a larger frame is refused before it is decoded.
        least_size: tells, from the full width and height, what is needed; a frame is then given at 1/2, 1/4 … of its size as
            long as that is no smaller.
        name: what to call the item in an error.

    Yields:
        At least one and at most F frames, upright, in their order.

    Raises:
        UnreadableItemError: if the video holds no frame, is cut off or damaged, or its codec is missing.
        MissingPackageError: if PyAV is not installed.
    """
    with _opened(content, kind, name) as (container, stream):
        _check_size(stream, max_pixels, name)
        timeline = _read_timeline(container, stream, name)
    wanted = place_frames(timeline, count_for(timeline.seconds))
    sparse = len(timeline.shown) >= MANY_FRAMES * len(wanted)
    with _opened(content, kind, name) as (container, stream):
        stream.codec_context.skip_frame = "NONREF" if sparse else "DEFAULT"
        for frame in _frames_at(container, stream, timeline, wanted):
            if frame.is_corrupt:
                raise UnreadableItemError(name, "is damaged inside: a frame of it cannot be decoded", expected=FRAMES_EXPECTED)
            yield _upright(frame, stream, background, least_size, name)


@contextmanager
def _opened(content: bytes | Path, kind: VideoKind, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video, with FFmpeg's complaints in our words."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingPackageError("av", purpose="reading clips") from error
    try:
        # Through a file object, and as the one format it is: no name in it can make FFmpeg open another file or address.
        with _stream_of(content) as source, _open_container(source, kind) as container:
            yield container, _find_video(container, content, name)
    except av.FFmpegError as problem:
        told = f"is {kind.name}, but cut off or damaged inside ({problem.strerror})"
        raise UnreadableItemError(name, told, kind="truncated", expected=FRAMES_EXPECTED, mend=REENCODE) from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableItemError(name, f"cannot be read ({problem})", expected=FRAMES_EXPECTED) from problem


def _open_container(source: io.BytesIO | io.BufferedReader, kind: VideoKind) -> InputContainer:
    import av

    # Titles and other remarks may be in any encoding; nothing here reads them.
    return av.open(source, "r", format=kind.demuxer, metadata_errors="replace")


def _stream_of(content: bytes | Path) -> io.BytesIO | io.BufferedReader:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _find_video(container: InputContainer, content: bytes | Path, name: str) -> VideoStream:
    from av.stream import Disposition

    # The cover of a song is a stream of one picture.
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        others = ", ".join(sorted({stream.type for stream in container.streams if stream.type != "video"})) or "nothing"
        raise UnreadableItemError(
            name,
            f"holds no moving pictures, only {others}",
            kind="empty",
            expected=FRAMES_EXPECTED,
            mend="take it out of the data.",
        )
    stream = videos[0]
    if stream.codec_context is None:
        codec = find_codec(content)
        raise UnreadableItemError(
            name,
            f"is coded as {codec or 'something'}, for which the FFmpeg of the av installed here has no decoder",
            kind="unsupported",
            expected=FRAMES_EXPECTED,
            mend=REENCODE,
        )
    stream.codec_context.thread_count = 1  # as many items are decoded side by side as there are cores
    return stream


def _check_size(stream: VideoStream, max_pixels: int, name: str) -> None:
    wide, high = stream.codec_context.width, stream.codec_context.height
    if wide * high > max_pixels:
        raise UnreadableItemError(
            name,
            f"declares frames of {wide}x{high} = {wide * high:,} pixels",
            kind="bomb",
            expected=f"at most {max_pixels:,} pixels (max_pixels of the preprocess).",
            mend="make the clip smaller, or take it out of the data.",
        )


def _read_timeline(container: InputContainer, stream: VideoStream, name: str) -> Timeline:
    """Go through all packets: of the video alone where it declares a length of its own, else of all that is in the file."""
    length = stream.duration or 0 if stream.frames else 0
    of_its_own = bool(length)
    shown, keys = [], []
    ends: dict[int, int] = {}  # of each stream, in its ticks: fractions would take longer than all the rest
    for packet in container.demux(*([stream] if of_its_own else [])):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:  # what ends a stream
            continue
        ends[packet.stream_index] = max(ends.get(packet.stream_index, 0), time + (packet.duration or 0))
        if packet.stream_index != stream.index:
            continue
        shown.append(time)
        if packet.is_keyframe:
            keys.append(time)
    tick_seconds = float(stream.time_base or 1)
    declared = length * tick_seconds if of_its_own else (container.duration or 0) / 1e6
    end_seconds = max((float(end * (container.streams[number].time_base or 0)) for number, end in ends.items()), default=0.0)
    found = end_seconds - (min(shown, default=0) * tick_seconds if of_its_own else (container.start_time or 0) / 1e6)
    if found < LEAST_SHARE * declared and (of_its_own or found < declared - LEAST_SECONDS):
        told = f"is cut off: it declares {declared:.1f} seconds, and {max(found, 0):.1f} are there"
        raise UnreadableItemError(name, told, kind="truncated", expected=FRAMES_EXPECTED, mend=REENCODE)
    if not shown or not keys:
        told = "holds no frame" if not shown else "holds no frame that can be decoded by itself"
        raise UnreadableItemError(name, told, kind="empty", expected=FRAMES_EXPECTED)
    return Timeline(shown=tuple(sorted(shown)), keys=tuple(sorted(keys)), tick_seconds=tick_seconds)


def _frames_at(
    container: InputContainer, stream: VideoStream, timeline: Timeline, wanted: tuple[int, ...]
) -> Iterator[av.VideoFrame]:
    """The first frame from each of some ascending moments on; the last there is, where none follows."""
    frames = container.decode(stream)
    here = timeline.keys[0]
    last: Any = None
    for moment in wanted:
        key = timeline.keys[max(bisect_right(timeline.keys, moment) - 1, 0)]
        found = _decode_key(container, stream, key) if key == moment else None
        if found is not None:
            here = key - 1  # what follows it is passed by: whoever wants that must come back
        elif key <= here and last is not None and last.pts >= moment:
            continue
        else:
            if key > here:
                container.seek(key, stream=stream)
                frames = container.decode(stream)
            found = _first_from(frames, moment)
            if found is None:  # the end
                return
            here = found.pts
        last = found
        yield found


def _first_from(frames: Iterator[av.VideoFrame], moment: int) -> Any:  # noqa: ANN401 - a frame whose time is known
    """The first of some frames from a moment on; the last one where none is, None where there is none at all."""
    last = None
    for frame in frames:
        if frame.pts is None:
            continue
        last = frame
        if frame.pts >= moment:
            break
    return last


def _decode_key(container: InputContainer, stream: VideoStream, key: int) -> av.VideoFrame | None:
    """Decode one key frame and nothing else: the decoder is told that no more will come, or it would wait for later frames."""
    container.seek(key, stream=stream)
    for packet in container.demux(stream):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or time > key:
            return None
        if time == key and packet.is_keyframe:
            frames = [*packet.decode(), *stream.codec_context.decode(None)]
            stream.codec_context.flush_buffers()
            return frames[-1] if frames else None
    return None


@cache
def _scaling() -> Interpolation:
    """FFmpeg's mean over areas, rounded: left to itself it takes short cuts, and levels come out too low by one or two."""
    from av.video.reformatter import Interpolation

    return Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def _upright(
    frame: av.VideoFrame, stream: VideoStream, background: Color, least_size: LeastSize | None, name: str
) -> DecodedImage:
    wide, high = frame.width, frame.height
    aspect = float(stream.sample_aspect_ratio or 1)
    full = max(1, round(wide * aspect)), high
    turned = round(frame.rotation / 90) % 4
    if turned % 2:
        full = full[::-1]
    if least_size is not None:
        needed = least_size(*full)
        across, down = needed[::-1] if turned % 2 else needed
        while wide >= 2 * across and high >= 2 * down and wide % 2 == 0 and high % 2 == 0:
            wide, high = wide // 2, high // 2
    transparent = any(component.is_alpha for component in frame.format.components)
    kind = "rgba" if transparent else "rgb24"
    scaled = frame.reformat(width=wide, height=high, format=kind, interpolation=_scaling(), threads=1)
    image = image_to_rgb(Image.fromarray(scaled.to_ndarray()), background=background, name=name)
    turn = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}.get(turned)
    image = image if turn is None else image.transpose(turn)
    return DecodedImage(image=image, full_size=full, region=(0, 0, *image.size))
