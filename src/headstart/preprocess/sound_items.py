"""Sound items as samples: opened once, read in stretches, made mono; an hour of sound is never in memory at once."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from headstart.errors import MissingPackageError
from headstart.preprocess.items import UnreadableItemError, UnreadableKind, file_key, item_name, load_small
from headstart.preprocess.sound_lengths import HEAD_BYTES, TAIL_BYTES, declared_bytes, end_of_samples, is_wave, missing_of_page
from headstart.preprocess.waveform import MOST_RATE, Waveform, as_waveform, unsupported_sound
from headstart.signatures import HEAD_BYTES as SIGNATURE_BYTES
from headstart.signatures import identify

if TYPE_CHECKING:
    import soundfile

BLOCK_FRAMES = 1 << 17
"""Frames that are decoded at once."""
MOST_FRAMES = 1 << 40
"""A file that claims more does not know its length, as a stream that was cut off before its header was completed."""
EXPECTED = "a whole sound in a format that libsndfile reads (WAV, FLAC, OGG Vorbis or Opus, MP3, AIFF, AU, CAF, …)."
_CONVERT = "convert it: ffmpeg -i FILE FILE.flac"


class SoundFile:
    """A sound file that is open; stretches of it are decoded as they are asked for.

    A file that does not know its length cannot be moved about in, either: its stretches are picked out while it is decoded from
    beginning to end, which can be done once.
    """

    def __init__(self, opened: soundfile.SoundFile, name: str, num_frames: int | None = None) -> None:
        self._opened = opened
        self._name = name
        self.rate_hz = int(opened.samplerate)
        self.num_channels = int(opened.channels)
        self.channel_peak = 0.0
        """The largest absolute sample of any channel decoded so far; 0 for a sound of one channel."""
        self._seeks = num_frames is None
        self.num_frames = int(opened.frames) if num_frames is None else num_frames

    def stretches(self, wanted: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Decode parts of the sound.

        Args:
            wanted: (start, stop) in frames, by their starts.

        Returns:
            (stop - start,) float32 each, the mean of the channels; shorter where the file ends.

        Raises:
            UnreadableItemError: if the file is damaged there.
        """
        if self._seeks:
            return [self._read(start, stop) for start, stop in wanted]
        found = [np.zeros(max(stop - start, 0), np.float32) for start, stop in wanted]
        for first, block in self._stream():
            for part, (start, stop) in zip(found, wanted, strict=True):
                low, high = max(start, first), min(stop, first + len(block))
                if low < high:
                    part[low - start : high - start] = block[low - first : high - first]
        return found

    def _read(self, start: int, stop: int) -> np.ndarray:
        self._opened.seek(start)
        parts = []
        while start < stop:
            block = self._decode(min(BLOCK_FRAMES, stop - start))
            if not len(block):
                break
            parts.append(block)
            start += len(block)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _stream(self) -> Iterator[tuple[int, np.ndarray]]:
        """The whole sound, block after block, each with the number of its first frame."""
        first = 0
        while len(block := self._decode(BLOCK_FRAMES)):
            yield first, block
            first += len(block)

    def count(self) -> int:
        """Decode the whole sound, and count its frames."""
        return sum(len(block) for _, block in self._stream())

    def _decode(self, count: int) -> np.ndarray:
        block = self._opened.read(count, dtype="float32", always_2d=True)
        if self.num_channels == 1:
            mono = block[:, 0]
        else:
            mono = block.mean(axis=1, dtype=np.float32)
            self.channel_peak = max(self.channel_peak, float(np.abs(block).max(initial=0.0)))
        if not np.isfinite(mono).all():
            raise UnreadableItemError(
                self._name, "holds samples that are no numbers (NaN or infinity)", expected="finite samples.", mend=_CONVERT
            )
        return mono


Sound = Waveform | SoundFile


@contextlib.contextmanager
def open_sound(item: object, *, name: str = "") -> Iterator[Sound]:
    """Open a sound for reading.

    Args:
        item: a path, bytes of a file, a pair (samples, rate in Hz), or {"array", "sampling_rate"}.
        name: what to call the item in an error; by default the item itself.

    Yields:
        The sound, of at least one frame.

    Raises:
        UnreadableItemError: if it is no sound, holds none, or is damaged.
        MissingPackageError: if soundfile is not installed.
    """
    name = name or item_name(item)
    in_memory = as_waveform(item, name)
    if in_memory is not None:
        if not in_memory.num_frames:
            raise _empty(name)
        yield in_memory
        return
    with _open_file(load_small(item, name=name), name) as opened:
        yield opened


@contextlib.contextmanager
def _open_file(content: object, name: str) -> Iterator[SoundFile]:
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise MissingPackageError("soundfile", purpose="reading sounds") from error
    if isinstance(content, bytes) and not content:
        raise UnreadableItemError(name, "is empty (0 bytes)", kind="empty", expected=EXPECTED)
    try:
        _refuse_cut_off(content, name)
        with contextlib.ExitStack() as stack:
            handle = stack.enter_context(soundfile.SoundFile(_source(content)))
            opened = stack.enter_context(_measured(handle, content, name))
            if not opened.num_frames:
                raise _empty(name, content)
            if not 0 < opened.rate_hz <= MOST_RATE:
                raise UnreadableItemError(name, f"claims {opened.rate_hz:,} samples a second", expected=EXPECTED, mend=_CONVERT)
            yield opened
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as problem:
        told = str(getattr(problem, "error_string", "") or problem).strip().rstrip(".")
        kind, reason = _why_not(content, told)
        raise UnreadableItemError(name, reason, kind=kind, expected=EXPECTED, mend=_CONVERT) from problem


def _source(content: object) -> Any:  # noqa: ANN401 - what soundfile opens
    return io.BytesIO(content) if isinstance(content, bytes) else str(content)


@contextlib.contextmanager
def _measured(handle: soundfile.SoundFile, content: object, name: str) -> Iterator[SoundFile]:
    """A file whose length is known: where its header does not tell it, it is counted, and opened once more."""
    import soundfile

    if handle.seekable() and 0 <= handle.frames < MOST_FRAMES:
        yield SoundFile(handle, name)
        return
    # soundfile puts the position right behind every block, where a file can be moved about in; here that fails.
    handle.seekable = lambda: False
    num_frames = SoundFile(handle, name, 0).count()
    with soundfile.SoundFile(_source(content)) as again:
        again.seekable = lambda: False
        yield SoundFile(again, name, num_frames)


def _refuse_cut_off(content: object, name: str) -> None:
    """Say so where a file declares more bytes than it has; decoders read on to where it ends, and take that for the whole."""
    opened: IO[bytes]
    match content:
        case bytes():
            size, opened = len(content), io.BytesIO(content)
        case Path():
            size, opened = content.stat().st_size, content.open("rb")
        case _:
            return
    with opened:
        head = opened.read(HEAD_BYTES)
        declared = declared_bytes(head)
        if is_wave(head):
            declared = end_of_samples(opened)
        if head.startswith(b"OggS"):
            opened.seek(max(0, size - TAIL_BYTES))
            declared = size + missing_of_page(opened.read())
    if declared is not None and size < declared:
        raise UnreadableItemError(
            name,
            f"is cut off: it declares {declared:,} bytes or more, and {size:,} are there",
            kind="truncated",
            expected=EXPECTED,
            mend="copy or record it anew; if what is there is enough, ffmpeg -i FILE FILE.flac makes a whole file of it.",
        )


def _why_not(content: object, told: str) -> tuple[UnreadableKind, str]:
    """Why a file cannot be decoded: it is something else, or damaged, or of no format that is known."""
    start = _first_bytes(content)
    found = identify(start)
    if found is not None and (found.kind == "video" or (found.kind == "audio" and found.name in _WITHOUT_CODEC)):
        words = f"it looks like {found.name}, for which libsndfile has no codec"
        return "unsupported", f"is no sound that can be read ({words}; {told})"
    if found is not None and found.kind == "audio":
        return "unreadable", f"starts like {found.name}, but is damaged or cut off ({told})"
    if found is not None and found.kind != "text":
        return "unreadable", f"is no sound: it looks like {found.name}"
    return "unreadable", f"is no sound that can be read ({told})"


def _first_bytes(content: object) -> bytes:
    if isinstance(content, Path):
        with contextlib.suppress(OSError), content.open("rb") as stream:
            return stream.read(SIGNATURE_BYTES)
    return content[:SIGNATURE_BYTES] if isinstance(content, bytes) else b""


_WITHOUT_CODEC = frozenset({"AAC", "AMR", "MP4 or M4A (AAC, ALAC)"})


def sound_key(item: object, *, name: str = "") -> bytes:
    """Hash what an item holds; a file, its bytes, and a file too large for memory have one key.

    Args:
        item: as for `open_sound`, or what `load_small` made of it.
        name: what to call the item in an error.

    Returns:
        The 32 bytes of a SHA-256.

    Raises:
        UnreadableItemError: if it cannot be read, or is no sound.
    """
    name = name or item_name(item)
    in_memory = as_waveform(item, name)
    if in_memory is not None:
        head = f"sound {in_memory.rate_hz} ".encode()
        return hashlib.sha256(head + np.ascontiguousarray(in_memory.samples).tobytes()).digest()
    content = load_small(item, name=name)
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    if not isinstance(content, Path):
        raise unsupported_sound(item, name)
    return file_key(content, name=name)


def _empty(name: str, content: object = b"") -> UnreadableItemError:
    if isinstance(content, bytes) and content.startswith(b"OggS"):
        # libsndfile says so of a stream whose end it does not find, too.
        return UnreadableItemError(
            name, "is OGG of which no frame can be decoded: damaged, cut off or empty", expected=EXPECTED
        )
    return UnreadableItemError(name, "holds no sound (0 frames)", kind="empty", expected="a sound of at least one frame.")
