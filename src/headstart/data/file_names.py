"""Cells that name files without their suffix, or below another folder: `disc_0001` for `disc_0001.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.data.folders import visible_entries
from headstart.data.modality import modality_of_name
from headstart.data.rows import name_some
from headstart.errors import DataError
from headstart.records import Finding

MOST_NAMED = 0.5
"""From this share of the texts of a column on that name files, the column holds names of files."""

_NUM_TRIED = 200
_MAX_NAME = 255
_MAX_FOLDERS = 50


def name_files(items: Sequence[Any], folder: Path) -> list[Any] | None:
    """Find the files that the texts of a column name, with or without their suffix.

    Args:
        items: cells of the column.
        folder: where relative paths start.

    Returns:
        The items with every text as a path that starts where it did, those that were found with their suffix; None where most
        texts name no file.
    """
    strings = [item for item in items if isinstance(item, str)]
    listing = _Listing(folder)
    some = strings[:: max(1, len(strings) // _NUM_TRIED)]
    if sum(modality_of_name(text.strip()) is not None for text in some if _is_name(text)) > MOST_NAMED * len(some):
        return None  # whole names are found as they are
    found = sum(listing.find(text) is not None for text in some)
    if not some or found < MOST_NAMED * len(some):
        return None
    return [listing.complete(item) if isinstance(item, str) else item for item in items]


def tell_names_of_files(items: Sequence[Any], folder: Path) -> list[Finding]:
    """Say where texts, which name no file from here, are the names of files in a folder beside the table.

    Args:
        items: cells of the column, taken for texts.
        folder: where relative paths start.
    """
    strings = [item for item in items if isinstance(item, str)][:_NUM_TRIED]
    if not strings or not all(_is_name(text) for text in strings[:20]):
        return []
    try:
        folders = visible_entries(folder)[0][:_MAX_FOLDERS]
    except DataError:
        return []
    for inner in folders:
        listing = _Listing(inner)
        found = [text for text in strings if listing.find(text) is not None]
        if len(found) >= MOST_NAMED * len(strings):
            return [
                Finding(
                    kind="names_of_files",
                    severity="warning",
                    items=(),
                    message=f"the items look like names of files in {inner.name!r}: {name_some(found, 3)}. They are read as "
                    "they are written.",
                    mend=f"pass --item-root with the path of {inner.name!r}, the folder that they start at.",
                )
            ]
    return []


def _is_name(text: str) -> bool:
    return 0 < len(text.strip()) <= _MAX_NAME and "\n" not in text and "\0" not in text


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


class _Listing:
    """The files of folders by their names without suffix, listed once each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[Path, dict[str, Path]] = {}

    def find(self, text: str) -> Path | None:
        """The file of a known kind that a text names, as it is or with a suffix."""
        name = text.strip()
        if not _is_name(name) or name.endswith(("/", "\\")):
            return None
        path = self.root / _slashes(name)
        if path.parent not in self.folders:
            self.folders[path.parent] = self._list(path.parent)
        return self.folders[path.parent].get(path.name)

    def complete(self, text: str) -> Path:
        """The path that a text is, still relative where it was, with the suffix of the file that was found."""
        found = self.find(text)
        return Path(text.strip()) if found is None else Path(_slashes(text.strip())).with_name(found.name)

    def _list(self, folder: Path) -> dict[str, Path]:
        try:
            files = [file for file in visible_entries(folder)[1] if modality_of_name(file.name) is not None]
        except (DataError, OSError, ValueError):
            return {}
        return {file.stem: file for file in reversed(files)} | {file.name: file for file in files}
