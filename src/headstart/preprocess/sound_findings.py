"""What is worth knowing of a set of sounds before anything learns from it: silence, clipping, and how long they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.sound_items import open_sound
from headstart.records import Finding

LOOKED_AT_SECONDS = 20.0
"""Of each sound, from its beginning."""
SILENT_DBFS = -70.0
"""Below this peak there is nothing to hear: 16 bits end at -96."""
CANCELLED = 0.1
"""Of the loudest channel's peak: where the mean of the channels stays below it, the channels cancel each other."""
FULL_SCALE = 0.999
CLIPPED_SHARE = 1e-3
"""Of the samples at full scale, from where on a sound counts as clipped."""
SHORT_SECONDS = 0.1
"""A shorter sound is a click: less than a syllable, or than a low note takes to be one."""


@dataclass(frozen=True, kw_only=True)
class _Heard:
    seconds: float
    peak: float
    """Of the mean of the channels, which is what is read."""
    cancels: bool
    """Whether the channels cancel each other, as those of opposite phase do."""
    clipped: float
    """Share of the samples at full scale."""


def notice_sounds(items: Mapping[str, object], *, most_seconds: float, fitting: str) -> list[Finding]:
    """Listen to some sounds.

    Args:
        items: by id.
        most_seconds: that are read of one without a gap.
        fitting: what becomes of longer ones, 'spread' or 'head'.

    Returns:
        Warnings of silent ones, of ones whose channels cancel each other, of clipped and very short ones, and a note of
        long ones.
    """
    heard = {id_: listened for id_, item in items.items() if (listened := _listen(item)) is not None}
    quietest = 10 ** (SILENT_DBFS / 20)
    silent = [id_ for id_, found in heard.items() if found.peak < quietest and not found.cancels]
    cancelled = [id_ for id_, found in heard.items() if found.cancels]
    clipped = [id_ for id_, found in heard.items() if found.clipped > CLIPPED_SHARE]
    short = [id_ for id_, found in heard.items() if found.seconds < SHORT_SECONDS]
    longer = [id_ for id_, found in heard.items() if found.seconds > most_seconds]
    read = "windows evenly over the whole are read" if fitting == "spread" else "their beginning is read"
    return [
        *_tell(
            "silence", silent, heard, f"silent (no sample above {SILENT_DBFS:g} dBFS)", "record them again, or remove them."
        ),
        *_tell(
            "opposite_phase",
            cancelled,
            heard,
            "of channels that cancel each other (opposite phase); their mean, which is read, is silent or nearly so",
            "invert one channel (ffmpeg -i FILE -af 'pan=stereo|c0=c0|c1=-1*c1' OUT.wav), or keep one channel only.",
        ),
        *_tell(
            "clipping",
            clipped,
            heard,
            f"clipped (more than {CLIPPED_SHARE:.1%} of the samples at full scale)",
            "record them again with less gain; if one class is clipped and another is not, a model may learn just that.",
        ),
        *_tell(
            "very_short",
            short,
            heard,
            f"shorter than {SHORT_SECONDS:g} seconds",
            "check that they are whole; silence stands behind them, up to the length of a window.",
        ),
        *_tell("long_sounds", longer, heard, f"longer than {most_seconds:.3g} seconds: {read}", "nothing.", severe=False),
    ]


def _tell(
    kind: str, ids: list[str], heard: Mapping[str, _Heard], told: str, mend: str, *, severe: bool = True
) -> list[Finding]:
    if not ids:
        return []
    return [
        Finding(
            kind=kind,
            severity="warning" if severe else "info",
            items=tuple(ids),
            message=f"{len(ids):,} of {len(heard):,} sounds looked at are {told}.",
            mend=mend,
        )
    ]


def _listen(item: object) -> _Heard | None:
    try:
        with open_sound(item) as sound:
            (samples,) = sound.stretches([(0, min(sound.num_frames, round(LOOKED_AT_SECONDS * sound.rate_hz)))])
            seconds, channel_peak = sound.num_frames / sound.rate_hz, sound.channel_peak
    except UnreadableItemError:  # it vanished since
        return None
    loud = np.abs(samples)
    peak = float(loud.max(initial=0.0))
    cancels = channel_peak >= 10 ** (SILENT_DBFS / 20) and peak < CANCELLED * channel_peak
    return _Heard(seconds=seconds, peak=peak, cancels=cancels, clipped=float((loud >= FULL_SCALE).mean()))
