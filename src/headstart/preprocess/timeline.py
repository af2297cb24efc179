"""Which frames stand for a clip: one in each of so many equal parts of its length."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When the frames of a video are shown, in ticks of its own."""

    shown: tuple[int, ...]
    """Ascending, at least one."""
    keys: tuple[int, ...]
    """Those of them that can be decoded by themselves."""
    tick_seconds: float

    @property
    def length(self) -> int:
        """Ticks from the first frame to the end of the last."""
        gaps = max(len(self.shown) - 1, 1)
        span = self.shown[-1] - self.shown[0]
        return span + max(1, round(span / gaps))

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return self.length * self.tick_seconds


def place_frames(timeline: Timeline, count: int) -> tuple[int, ...]:
    """Say which moments to decode: one in each of so many equal parts.

    Args:
        timeline: of the video.
        count: F, parts; at least 1.

    Returns:
        At most F ascending ticks: of a key frame where the part has one, else its middle; every frame, where there are no more.
    """
    if len(timeline.shown) <= count:
        return timeline.shown
    start, length = timeline.shown[0], timeline.length
    edges = [start + length * part / count for part in range(count + 1)]
    wanted = []
    for low, high in pairwise(edges):
        middle = (low + high) / 2
        keys = [key for key in timeline.keys if low <= key < high]
        wanted.append(min(keys, key=lambda key: abs(key - middle)) if keys else int(middle))
    return tuple(wanted)


def spread(total: int, count: int) -> list[int]:
    """The middles of so many equal parts of some frames, or all frames where there are no more.

    Args:
        total: frames.
        count: parts, at least 1.

    Returns:
        Numbers of frames, from 0, ascending.
    """
    return [int((part + 0.5) * total / count) for part in range(count)] if total > count else list(range(total))
