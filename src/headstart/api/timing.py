"""How long each step of a fit takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds by step."""

    started: float = field(default_factory=time.perf_counter)
    _ended: dict[str, float] = field(default_factory=dict)
    _running: tuple[str, float] = ("", 0.0)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; the same name adds up."""
        self._running = name, time.perf_counter()
        yield
        self._ended = self.seconds()
        self._running = "", 0.0

    def seconds(self) -> dict[str, float]:
        """Seconds of each step so far, and their total."""
        name, began = self._running
        now = time.perf_counter()
        so_far = dict(self._ended)
        if name:
            so_far[name] = so_far.get(name, 0.0) + now - began
        return so_far | {"total": now - self.started}
