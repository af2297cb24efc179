"""Clips through a network of pictures: every frame goes through it as a picture, and each clip's features are averaged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from headstart.features.fusion import FusedPrefix
from headstart.features.prefix import Prefix
from headstart.preprocess.recipe import Preprocess, suit

WHY_NOT_TUNED = "there are clips among the items, and a network is not tuned on clips"


class ClipPrefix:
    """A compiled prefix of pictures that takes clips; the network is the same, compiled once for both."""

    def __init__(self, prefix: Prefix, preprocess: Preprocess) -> None:
        """Put clips in front of a network.

        Args:
            prefix: of pictures.
            preprocess: from clip to frames.
        """
        self.spec = replace(prefix.spec, preprocess=preprocess)
        self.num_workers, self.batch_size, self.precision = prefix.num_workers, prefix.batch_size, prefix.precision
        self.model_path = prefix.model_path
        """The network of pictures'."""
        self._prefix = prefix

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Run the prefix: frames (B, F, 3, S, S), NaN where there is none, to (B, `spec.width`) float32, means over frames."""
        here = ~np.isnan(batch[:, :, 0, 0, 0])
        rows = np.nonzero(here)[0]
        frames = batch[here]
        total = np.zeros((len(batch), self.spec.width), np.float32)
        for start in range(0, len(frames), self.batch_size):
            few = slice(start, start + self.batch_size)
            np.add.at(total, rows[few], self._prefix(frames[few]))
        return total / here.sum(1, keepdims=True, dtype=np.float32)


def suit_prefix(prefix: Prefix, items: Iterable[object]) -> Prefix:
    """The prefix that some items need.

    Args:
        prefix: as `compile_prefix(...).wait()` gives it.
        items: that will go through it.

    Returns:
        The same, or where there is a clip among pictures, one that takes clips.
    """
    if isinstance(prefix, FusedPrefix):
        several = list(items)
        parts = [suit_prefix(part, several) for part in prefix.parts]
        return prefix if all(new is old for new, old in zip(parts, prefix.parts, strict=True)) else FusedPrefix(parts)
    suited = suit(prefix.spec.preprocess, items)
    return prefix if suited is prefix.spec.preprocess else ClipPrefix(prefix, suited)


def why_not_tuned(prefix: Prefix) -> str:
    """Why a network is not tuned on what goes through a prefix; '' where it may be."""
    return WHY_NOT_TUNED if isinstance(prefix, ClipPrefix) else ""
