"""Which modality files and values are of, told by their suffixes and types without decoding anything."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import Any

import numpy as np

from headstart.data.rows import name_some
from headstart.errors import DataError
from headstart.records import Modality
from headstart.signatures import identify

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .webp .bmp .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .heic .heif .avif".split()
)
CLIP_SUFFIXES = frozenset(".mp4 .m4v .mov .qt .mkv .webm .avi .mpg .mpeg .mts .m2ts .wmv .asf .flv .ogv .3gp .3g2".split())
"""Of videos, which are images, too: several of them, one after the other."""
TEXT_SUFFIXES = frozenset(".txt .text .md .rst .eml .html .htm".split())
AUDIO_SUFFIXES = frozenset(".wav .flac .ogg .oga .opus .mp3 .m4a .aac .aif .aiff .au".split())

SIDE_NAMES = frozenset("readme license licence notice copying changelog credits attribution classes labels notes".split())
"""Text files of these names say something about a data set; they are not items beside images or sounds."""

MAX_STRAY_SHARE = 0.1
"""Up to this share of files of other modalities are strays and skipped; above it the data counts as mixed."""


def modality_of_name(name: str) -> Modality | None:
    """The modality a file name's suffix stands for, or None."""
    suffix = PurePath(name).suffix.casefold()
    if suffix in IMAGE_SUFFIXES | CLIP_SUFFIXES:
        return "image"
    if suffix in TEXT_SUFFIXES:
        return "text"
    return "audio" if suffix in AUDIO_SUFFIXES else None


def modality_of_value(value: Any) -> Modality | None:  # noqa: ANN401 - an item is of any type
    """The modality of an item in memory: PIL images, encoded bytes, arrays (H, W[, C]) or (F, H, W, C), waveforms (T,).

    A waveform may stand with its rate: (samples, rate), or {"array", "sampling_rate"}.

    Returns:
        None for plain strings, which may be a path or a text, and for types that are no items.
    """
    if isinstance(value, PurePath):
        return modality_of_name(value.name)
    if _is_waveform(value):
        return "audio"
    if isinstance(value, bytes):
        found = identify(value)
        return "audio" if found is not None and found.kind == "audio" else "image"
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return "audio" if value.ndim == 1 else "image" if value.ndim in (2, 3, 4) else None
    is_pil = any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)
    return "image" if is_pil else None


def _is_waveform(value: Any) -> bool:  # noqa: ANN401 - an item is of any type
    """Whether a value is samples with their rate: a pair, or as Hugging Face's datasets have it."""
    if isinstance(value, dict):
        return {"array", "sampling_rate"} <= value.keys()
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], np.ndarray) and np.ndim(value[1]) == 0


def choose_modality(names: list[str], requested: str, *, where: str) -> Modality:
    """Choose the modality of a set of files: what was asked for, else the majority by suffix.

    Args:
        names: the file names or paths.
        requested: auto, or the modality the user named.
        where: the folder or table, for messages.

    Raises:
        DataError: if no file is of the requested or of any modality, or the set is mixed (more than a tenth are of
            another modality than the majority's).
    """
    counts = Counter(kind for name in names if (kind := modality_of_name(name)) is not None)
    if requested != "auto":
        if counts[requested] == 0:  # type: ignore[index]
            raise DataError(
                f"no {requested} file in {where}: found {_tell_suffixes(names)}.",
                expected=f"files with one of the suffixes {' '.join(sorted(_SUFFIXES[requested]))}.",
                mend=f"point at {requested} files; or, to fit, leave --modality out, or name the modality the files are of.",
            )
        return requested  # type: ignore[return-value]
    if counts["image"] or counts["audio"]:
        sides = sum(modality_of_name(name) == "text" and PurePath(name).stem.casefold() in SIDE_NAMES for name in names)
        counts["text"] -= sides
    if not counts.total():
        raise DataError(
            f"no image, clip, text or audio file in {where}: found {_tell_suffixes(names)}.",
            expected="files with a usual suffix, such as .jpg .png .webp, .mp4 .webm, .txt .md, .wav .flac .mp3.",
            mend="convert the files to one of these formats, or point at the folder that holds them.",
        )
    (majority, number), *_ = counts.most_common()
    if counts.total() - number > MAX_STRAY_SHARE * counts.total():
        told = ", ".join(_tell_kind(kind, count, names) for kind, count in counts.most_common() if count)
        mend = f"pass --modality {majority} to use only those files, or move the others away."
        if counts["audio"] and _count_videos(names):
            mend += " A video that holds nothing but sound is made a sound by ffmpeg -i FILE FILE.flac"
        raise DataError(
            f"{where} mixes files of different kinds: {told}, by their suffixes.",
            expected="items of one modality: all images (pictures or clips), all texts, or all sounds.",
            mend=mend,
        )
    return majority


def _tell_kind(kind: Modality, count: int, names: list[str]) -> str:
    """Count the files of a kind, and how many of the images are videos by name; what these hold is not looked at."""
    videos = _count_videos(names) if kind == "image" else 0
    return f"{count:,} video" if videos == count else f"{count:,} {kind}" + (f" ({videos:,} of them video)" if videos else "")


def _count_videos(names: list[str]) -> int:
    return sum(PurePath(name).suffix.casefold() in CLIP_SUFFIXES for name in names)


def _tell_suffixes(names: list[str]) -> str:
    counts = Counter(PurePath(name).suffix.casefold() or "no suffix" for name in names)
    return name_some([f"{count:,} × {suffix}" for suffix, count in counts.most_common()]) or "no files at all"


_SUFFIXES = {"image": IMAGE_SUFFIXES | CLIP_SUFFIXES, "text": TEXT_SUFFIXES, "audio": AUDIO_SUFFIXES}
