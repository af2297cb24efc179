"""Iterative stratification: items of several labels each, dealt so that every part has its share of every label.

The method is that of Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data" (section 3.2): the
label with the fewest items left is dealt first, each of its items to the part that still lacks most of it. Rare labels are
placed while there is still room, and no label has to make up for what others took. Here units of several items (groups) are
dealt as a whole, and a unit has a count of items for each label. At the end units are moved and exchanged
where that brings the parts closer to their shares and sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_WORK = 10_000_000
"""Units times units times labels that are compared for exchanges at the end: a tenth of a second."""
MOST_PASSES = 5
LEAST_GAIN = 1e-9
NOWHERE = -1
LEAST_SEEN = 0.25
"""Of the items of a class: what must be outside a fold for the items of the class in the fold to be tested."""


@dataclass(frozen=True, kw_only=True)
class LabelledUnits:
    """U units with their labels: the labels of a unit, and how many of its items have each."""

    strata: Sequence[np.ndarray]
    """U times (S,) int64: the labels of the unit's items, each once. Items without any label have one of their own."""
    counts: Sequence[np.ndarray]
    """U times (S,) int64 ≥ 1: the unit's items with each of these labels."""
    sizes: np.ndarray
    """(U,) int64: the items of each unit."""
    num_strata: int

    def totals(self) -> np.ndarray:
        """(num_strata,) float64: the items with each label."""
        totals = np.zeros(self.num_strata)
        for strata, counts in zip(self.strata, self.counts, strict=True):
            totals[strata] += counts
        return totals


def stratify(
    units: LabelledUnits, wanted: np.ndarray, generator: np.random.Generator, *, fixed: np.ndarray | None = None
) -> np.ndarray:
    """Deal units to parts so that each part has about the number of items of every label that it wants.

    Args:
        units: to deal.
        wanted: (P, num_strata) items of each label that each part wants.
        generator: of the order in which units are dealt, and of ties.
        fixed: (U,) the part of units that have one already, -1 for all others.

    Returns:
        (U,) int64 in [0, P).
    """
    parts = np.full(len(units.sizes), NOWHERE) if fixed is None else fixed.astype(np.int64)
    shares = wanted.sum(axis=1) / max(wanted.sum(), 1e-300)
    lacking, room = wanted.astype(np.float64), shares * units.sizes.sum()
    for unit in np.flatnonzero(parts != NOWHERE).tolist():
        lacking[parts[unit], units.strata[unit]] -= units.counts[unit]
        room[parts[unit]] -= units.sizes[unit]
    left = units.totals()
    for unit in np.flatnonzero(parts != NOWHERE).tolist():
        left[units.strata[unit]] -= units.counts[unit]
    order = generator.permutation(len(parts))
    order = order[np.argsort(-units.sizes[order], kind="stable")]  # large groups first, while every part has room for them
    holders: list[list[int]] = [[] for _ in range(units.num_strata)]
    for unit in order.tolist():
        for stratum in units.strata[unit].tolist():
            holders[stratum].append(unit)
    while (left > 0).any():
        rarest = int(np.where(left > 0, left, np.inf).argmin())
        for unit in holders[rarest]:
            if parts[unit] != NOWHERE:
                continue
            part = _neediest(lacking[:, rarest], room)
            parts[unit] = part
            lacking[part, units.strata[unit]] -= units.counts[unit]
            room[part] -= units.sizes[unit]
            left[units.strata[unit]] -= units.counts[unit]
        left[rarest] = 0
    _exchange(units, parts, lacking, room, np.flatnonzero(np.full(len(parts), True) if fixed is None else fixed == NOWHERE))
    return parts


def _neediest(lacking: np.ndarray, room: np.ndarray) -> int:
    """The part that lacks most of a label; among equals, the one with most room."""
    most = np.flatnonzero(lacking >= lacking.max() - 1e-9)
    return int(most[room[most].argmax()])


def _exchange(units: LabelledUnits, parts: np.ndarray, lacking: np.ndarray, room: np.ndarray, movable: np.ndarray) -> None:
    """Move units, and exchange pairs of them, while that lowers the squared shortfall of the parts, in place.

    The shortfall of each label, and that of a part's size, is divided by how many items there are in all, as in a chi-squared
    statistic.
    """
    tries = MOST_WORK // max(1, len(movable) * (units.num_strata + 1))
    if tries < MOST_PASSES:
        return
    scale = 1 / np.sqrt(np.maximum(np.append(units.totals(), units.sizes.sum()), 1.0))
    table = np.zeros((len(movable), len(scale)))
    for row, unit in enumerate(movable.tolist()):
        table[row, units.strata[unit]] = units.counts[unit]
    table[:, -1] = units.sizes[movable]
    table *= scale
    short = np.column_stack([lacking, room]) * scale
    # Behind the units, one of nothing in each part: to exchange a unit for nothing is to move it.
    table = np.concatenate([table, np.zeros((len(short), len(scale)))])
    held = np.append(parts[movable], np.arange(len(short)))
    unchanged = 0
    for number in range(min(tries, MOST_PASSES * len(movable))):
        row = number % len(movable)
        own = held[row]
        moved = table - table[row]
        # |a - m|² + |b + m|² - |a|² - |b|² = 2 (|m|² - m (a - b)), for a part that lacks a and gains m from one that lacks b.
        change = ((moved - short[own] + short[held]) * moved).sum(axis=1)
        change[held == own] = 0
        best = int(change.argmin())
        unchanged += 1
        if change[best] < -LEAST_GAIN:
            unchanged, other = 0, held[best]
            short[own] -= moved[best]
            short[other] += moved[best]
            held[row] = other
            if best < len(movable):
                held[best] = own
        if unchanged == len(movable):
            break
    parts[movable] = held[: len(movable)]
