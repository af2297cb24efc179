"""What is worth knowing of a set of pictures before anything learns from it: pictures without contrast."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from headstart.preprocess.items import UnreadableItemError
from headstart.records import Finding

LEAST_LEVELS = 8
"""Of 256, between the darkest and the lightest pixel of any channel."""
MOST_LOOKED_AT = 100
"""Pictures: they are decoded once more."""


def notice_pictures(items: Mapping[str, object], decode: Callable[[object], np.ndarray]) -> list[Finding]:
    """Look for pictures that are nearly one colour, as those of 16 bits are that use a small part of their range.

    Args:
        items: by id.
        decode: an item to (H, W, 3) uint8.

    Returns:
        A warning, where there are some.
    """
    looked_at = list(items)[:: max(1, -(-len(items) // MOST_LOOKED_AT))]
    flat = [id_ for id_ in looked_at if _is_flat(items[id_], decode)]
    if not flat:
        return []
    return [
        Finding(
            kind="no_contrast",
            severity="warning",
            items=tuple(flat),
            message=f"{len(flat):,} of {len(looked_at):,} pictures looked at have no contrast (fewer than {LEAST_LEVELS} of "
            "256 levels between their darkest and their lightest pixel).",
            mend="scale 16-bit pictures to the whole of their range, all by the same factor; remove blank ones.",
        )
    ]


def _is_flat(item: object, decode: Callable[[object], np.ndarray]) -> bool:
    try:
        pixels = decode(item)
    except UnreadableItemError:  # it vanished since
        return False
    return int(np.ptp(pixels, axis=(0, 1)).max()) < LEAST_LEVELS
