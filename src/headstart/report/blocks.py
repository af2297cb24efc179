"""The backbone's blocks as page, card and terminal show them: which were frozen, which were trained, and where the cut is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.report.words import show

MOST_APART = 4
"""Trained blocks side by side up to which a short table gives each its own line."""
_CHANGED = {"trained", "adapted"}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block, or several side by side that were treated alike."""

    first: str
    last: str
    num_parameters: int | None
    """None where that is not known."""
    state: str
    """'frozen', 'trained', 'adapted' (low-rank changes), 'no weights', or '' where that is not known."""
    width: str = ""
    """Channels of its output."""
    at_cut: bool = False
    """Whether it is the last frozen one, and the cut is behind it."""

    @property
    def name(self) -> str:
        """Such as "blocks.4", or "stem … blocks.4" for several."""
        return self.first if self.first == self.last else f"{self.first} … {self.last}"

    @property
    def parameters(self) -> str:
        """How many it has, in full; "" where that is not known."""
        return "" if self.num_parameters is None else f"{self.num_parameters:,}"


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The blocks of a backbone."""

    rows: tuple[Block, ...]
    told: str
    """Such as "0.7 M of 3.4 M parameters trained"; "" where that is not known."""

    @property
    def trained(self) -> bool:
        """Whether any was trained."""
        return any(row.state in _CHANGED for row in self.rows)


def list_blocks(report: dict[str, Any]) -> Blocks | None:
    """The backbone's blocks, frozen or trained.

    Args:
        report: what report.json holds.

    Returns:
        The blocks; None where they are not known.
    """
    found = (report.get("backbone") or {}).get("blocks") or []
    if not found:
        return None
    tuning = report.get("tuning") or {}
    strategy = tuning.get("kept") or report["summary"].get("strategy")
    rows = tuple(_describe_block(block, strategy=strategy, cut=tuning.get("cut")) for block in found)
    return Blocks(rows=rows, told=_describe_parameters(rows))


def join_alike(blocks: Blocks) -> list[Block]:
    """Blocks for a short table: frozen ones side by side in one row, and so trained ones where they are many.

    Args:
        blocks: of the backbone.

    Returns:
        Blocks with weights, in order.
    """
    joined: list[Block] = []
    weighty = [row for row in blocks.rows if row.num_parameters != 0]
    for state, found in itertools.groupby(weighty, key=lambda row: row.state):
        rows = list(found)
        apart = state in _CHANGED and len(rows) <= MOST_APART
        joined += rows if apart else [_join(rows)]
    return joined


def write_count(count: int) -> str:
    """Say how many parameters.

    Args:
        count: at least 0.

    Returns:
        Such as "1.3 G", "3.4 M", or in full below 100,000, such as "12,345".
    """
    if count < 100_000:
        return f"{count:,}"
    size, letter = (1e9, "G") if count >= 1e9 else (1e6, "M")
    return f"{count / size:.1f}\N{NO-BREAK SPACE}{letter}"


def _describe_block(block: dict[str, Any], *, strategy: object, cut: object) -> Block:
    # The first artifacts know a block's parameters by another name.
    count = block.get("parameters", block.get("num_parameters"))
    known = isinstance(count, int)
    name = show(block.get("name", ""))
    match block.get("frozen"):
        case _ if count == 0 and known:
            state = "no weights"
        case True:
            state = "frozen"
        case False:
            state = "adapted" if strategy == "lora" else "trained"
        case _:
            state = ""
    return Block(
        first=name,
        last=name,
        num_parameters=count if known else None,
        state=state,
        width=show(block["width"]) if "width" in block else "",
        at_cut=cut is not None and block.get("name") == cut,
    )


def _join(rows: Sequence[Block]) -> Block:
    return Block(first=rows[0].first, last=rows[-1].last, num_parameters=_count(rows), state=rows[0].state)


def _count(rows: Sequence[Block]) -> int | None:
    """The parameters of several blocks, None where one's are not known."""
    counts = [row.num_parameters for row in rows if row.num_parameters is not None]
    return sum(counts) if len(counts) == len(rows) else None


def _describe_parameters(rows: Sequence[Block]) -> str:
    total, states = _count(rows), {row.state for row in rows}
    if total is None or "" in states:
        return ""
    told = f"{write_count(total)} parameters"
    if "adapted" in states:
        return f"low-rank changes to a network of {told}"
    trained = _count([row for row in rows if row.state == "trained"]) or 0
    if trained == total:
        return f"all {told} trained"
    return f"{write_count(trained)} of {told} trained" if trained else f"all {told} frozen"
