"""How many items go through a network together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

# Of the sizes that `preprocess.size` tells, in one call: two or three texts of 256 tokens, which then stay in the processor's
# cache (MiniLM-L6, one core: 13 such texts a second by one or two, 11 by 8, 10 by 24).
MOST_TOGETHER = 3_000


def in_batches(items: Iterable[Item], most: int, size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """At most so many items at a time, and of long ones fewer: a batch is as long as its longest item times their number.

    Args:
        items: taken as there is room.
        most: items in a batch.
        size: of an item, as `preprocess.size` tells it.

    Yields:
        Batches of at least one item, in the items' order.
    """
    few: list[Item] = []
    longest = 0
    for item in items:
        length = size(item)
        if few and max(longest, length) * (len(few) + 1) > MOST_TOGETHER:
            yield few
            few, longest = [], 0
        few.append(item)
        longest = max(longest, length)
        if len(few) == most:
            yield few
            few, longest = [], 0
    if few:
        yield few
