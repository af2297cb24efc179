"""The items of a table that need no labels: what a model is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.data.columns import choose_item_column, find_items
from headstart.data.tables import read_table
from headstart.records import Modality


def items_of_table(
    path: Path,
    modality: Modality,
    *,
    column: str | None = None,
    root: Path | None = None,
    encoding: str | None = None,
) -> list[tuple[str, Any]]:
    """Read a column of items; relative paths in it start at the table's folder.

    Args:
        path: a file with one of TABLE_SUFFIXES.
        modality: what the items are.
        column: which column holds them; None for the one with a usual name, or the only one.
        root: where relative paths start; None for the table's folder.
        encoding: of a text table; None for UTF-8.

    Returns:
        (name, item) pairs, a row each: a text is its own name, and a path is. A blank cell is an empty text named by its place.

    Raises:
        DataError: if the table cannot be read, has no such column, or holds nothing of this modality.
    """
    where = f"the table {str(path)!r}"
    chosen: list[str] = []

    def choose(names: Sequence[str]) -> list[str]:
        chosen.append(choose_item_column(names, column, where=where))
        return chosen

    table = read_table(path, choose, encoding=encoding)
    items = find_items(table.columns[chosen[0]], chosen[0], modality, folder=root or path.parent, where=where)
    named = zip(table.places, items, strict=True)
    return [(f"{path.name}, {place}", "") if item is None else (str(item), item) for place, item in named]
