"""States of one length, however long each batch is: the frozen part runs on short batches, and its output is padded behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from headstart.features.prefix import STATE, Prefix
from headstart.inference import ordered_map
from headstart.preprocess.audio import SIZE_OF_WINDOW
from headstart.preprocess.recipe import Preprocess
from headstart.records import Sample
from headstart.runtime import num_cores

# Lengths that differ by less share a store.
STEP = 16


class PaddedPrefix:
    """A compiled prefix of texts or sounds whose state has a fixed number of rows: behind an item's end they are 0."""

    def __init__(self, prefix: Prefix, length: int) -> None:
        """Fix the length.

        Args:
            prefix: ends at a cut.
            length: rows of the state; no batch is longer.
        """
        channels = prefix.spec.state_shape[1]
        shift = length * channels - prefix.spec.columns(STATE).stop
        state, *others = prefix.spec.layout
        moved = (replace(state, width=length * channels), *(replace(part, start=part.start + shift) for part in others))
        self.spec = replace(prefix.spec, layout=moved, state_shape=(length, channels))
        self.num_workers, self.batch_size, self.precision = prefix.num_workers, prefix.batch_size, prefix.precision
        self.model_path = prefix.model_path
        self._prefix = prefix

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Run the prefix: tokens (B, L) or windows (B, L, W) to (B, `spec.width`) float32."""
        found = self._prefix(batch)
        used, wanted = batch.shape[1] * self.spec.state_shape[1], self.spec.columns(STATE).stop
        between = np.zeros((len(batch), wanted - used), np.float32)
        return np.concatenate([found[:, :used], between, found[:, used:]], axis=1)


def longest_length(preprocess: Preprocess, samples: Iterable[Sample], most: int) -> int:
    """The least length that holds all of some texts, in steps.

    Args:
        preprocess: from text to tokens.
        samples: that can be read.
        most: tokens that the network reads at once; longer texts take multiples of it.

    Returns:
        Tokens.
    """
    lengths = ordered_map(lambda sample: len(preprocess.prepare(sample.item, name=sample.id)), samples, num_workers=num_cores())
    longest = max(lengths, default=1)
    return min(-(-longest // STEP) * STEP, most) if longest <= most else -(-longest // most) * most


def most_windows(preprocess: Preprocess, samples: Iterable[Sample]) -> int:
    """The number of windows that holds all of some sounds.

    Args:
        preprocess: from sound to windows.
        samples: that can be read.
    """
    sizes = ordered_map(lambda sample: preprocess.size(sample.item), samples, num_workers=num_cores())
    return max(sizes, default=SIZE_OF_WINDOW) // SIZE_OF_WINDOW
