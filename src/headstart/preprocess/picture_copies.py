"""Whether two pictures whose features all but coincide show the same pixels: saved anew, cropped, brightened, mirrored.

Features of two letters, or of a green and a red flag, can be as close as those of a picture and its copy. So each pair is
compared as pictures of 16 x 16 pixels, in which text and grain are gone and shapes and colours are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from headstart.inference import ordered_map
from headstart.preprocess.decode import decode_image
from headstart.preprocess.items import UnreadableItemError
from headstart.runtime import num_cores

PairComparison = Callable[[np.ndarray], np.ndarray]
"""Given pairs of positions (P, 2), says which are copies of each other: (P,) bool."""

LEAST_ALIKE = 0.85
"""Cosine of two such pictures, or of one and the other's mirror image, from which on they may be copies."""
MOST_APART = 1.0
"""Deviations of a picture by which the colours of two may differ anywhere, over squares of 2 x 2 of the 16 x 16 pixels.

Both were chosen on 643 stamps: of 120, a copy is found for 99 % saved anew as JPEG of quality 50 or brightened by a tenth, all
mirrored, 98 % with 5 % cropped away or halved in size, and 96 % turned by 2 degrees. Of 86 pairs of stamps with a cosine of
features of 0.85 or more 31 are left: sides of one die, coins of one front, letters and their mirror images. Two playing cards
that differ by one pip are 2.5 apart.
"""
SIDE = 16
DECODED_SIDE = 64
"""A JPEG is decoded no smaller than this."""
FLAT = 2.0
"""Deviation of levels below which a picture has nothing to compare but its colour, which may differ by four times as much."""
CHUNK = 5_000


class PictureComparison:
    """Compares pairs of some pictures by their pixels; each is decoded once, when a pair of it is first asked for.

    Args:
        items: N pictures.
    """

    def __init__(self, items: Sequence[object]) -> None:
        self._items = items
        self._rows = np.full(len(items), -1)
        self._shown = np.zeros((0, SIDE, SIDE, 3), np.float32)
        self._gone = np.zeros(0, bool)

    def __call__(self, pairs: np.ndarray) -> np.ndarray:
        """Say which pairs are copies of each other.

        Args:
            pairs: (P, 2) int64 positions of pictures.

        Returns:
            (P,) bool; True where one of the two cannot be read any more.
        """
        self._read(np.unique(pairs))
        rows = self._rows[pairs]
        chunks = [self._compare(rows[start : start + CHUNK].T) for start in range(0, len(rows), CHUNK)]
        return np.concatenate(chunks) if chunks else np.zeros(0, bool)

    def _read(self, places: np.ndarray) -> None:
        new = places[self._rows[places] < 0]
        if not len(new):
            return
        found = list(ordered_map(lambda place: _show(self._items[place]), new.tolist(), num_workers=num_cores()))
        nothing = np.zeros((SIDE, SIDE, 3), np.float32)
        self._rows[new] = len(self._gone) + np.arange(len(new))
        self._shown = np.concatenate([self._shown, np.stack([nothing if picture is None else picture for picture in found])])
        self._gone = np.append(self._gone, [picture is None for picture in found])

    def _compare(self, rows: np.ndarray) -> np.ndarray:
        """Compare the pictures of two rows (2, P)."""
        one, other = (self._shown[each] for each in rows)
        colours = [each.mean(axis=(1, 2), keepdims=True) for each in (one, other)]
        one, other = one - colours[0], other - colours[1]
        spreads = [np.sqrt(np.einsum("phwc,phwc->p", each, each) / each[0].size) for each in (one, other)]
        one, other = (
            each / np.maximum(spread, 1e-6)[:, None, None, None] for each, spread in zip((one, other), spreads, strict=True)
        )
        alike = _show_the_same(one, other) | _show_the_same(one, other[:, :, ::-1])
        flat = [spread < FLAT for spread in spreads]
        plain = np.abs(colours[0] - colours[1]).max(axis=(1, 2, 3)) <= 4 * FLAT
        same = np.where(flat[0] | flat[1], flat[0] & flat[1] & plain, alike)
        return same | self._gone[rows[0]] | self._gone[rows[1]]


def _show_the_same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compare pictures (P, 16, 16, 3) with mean 0 and deviation 1: over all of their pixels, and everywhere."""
    cosines = np.einsum("phwc,phwc->p", one, other) / one[0].size
    apart = one - other
    apart = (apart[:, 1:, 1:] + apart[:, :-1, 1:] + apart[:, 1:, :-1] + apart[:, :-1, :-1]) / 4
    same: np.ndarray = (cosines >= LEAST_ALIKE) & (np.square(apart).mean(axis=3).max(axis=(1, 2)) <= MOST_APART**2)
    return same


def _show(item: object) -> np.ndarray | None:
    """The levels of a picture of 16 x 16 pixels, (16, 16, 3) float32; None where it cannot be read."""
    try:
        decoded = decode_image(item, least_size=lambda wide, high: (min(wide, DECODED_SIDE), min(high, DECODED_SIDE)))
    except UnreadableItemError:  # it vanished since
        return None
    small = decoded.image.resize((SIDE, SIDE), Image.Resampling.BOX, box=decoded.region)
    return np.asarray(small, np.float32)
