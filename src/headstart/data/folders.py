"""Listing folders: what is ignored, how links are followed, how loops of links end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from headstart.errors import DataError

IGNORED_FOLDERS = frozenset(
    {
        "__macosx",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "#recycle",
        "#snapshot",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "network trash folder",
        "__pycache__",
    }
)
"""What systems and network drives keep in a folder, in lower case."""
IGNORED_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"}) | IGNORED_FOLDERS
"""What file managers leave behind, in lower case; names that begin with a dot are ignored as well."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is never looked at."""
    return name.startswith(".") or name.casefold() in IGNORED_NAMES


def ignored_folders(folder: Path) -> list[str]:
    """The names of the sub-folders that are never looked at, sorted."""
    return sorted(path.name for path in folder.iterdir() if is_ignored(path.name) and path.is_dir())


def visible_entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the sub-folders and the files of a folder, each sorted by name, without the ignored ones.

    Links are followed, but for links to folders that hold the link itself: they would show the same items again, under
    other labels. A link that leads nowhere is listed as a file.

    Raises:
        DataError: if the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            listed = sorted((entry.name, _is_folder(entry)) for entry in entries if _is_seen(entry, folder))
    except OSError as error:
        raise DataError(
            f"the folder {str(folder)!r} cannot be read: {error.strerror}.",
            expected="folders that this user may list.",
            mend=f"give yourself the right to read it: chmod u+rx {str(folder)!r}",
        ) from error
    folders = [folder / name for name, is_folder in listed if is_folder]
    return folders, [folder / name for name, is_folder in listed if not is_folder]


def _is_seen(entry: os.DirEntry[str], folder: Path) -> bool:
    if is_ignored(entry.name):
        return False
    if not entry.is_symlink():
        return True
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):  # leads nowhere, or round and round
        return not _leads_round(entry)
    return not (target.is_dir() and folder.resolve().is_relative_to(target))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads_round(entry: os.DirEntry[str]) -> bool:
    try:
        Path(entry.path).stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def files_below(folder: Path) -> list[Path]:
    """List every visible file at any depth below a folder, in a steady order.

    Each real folder is entered once, so loops of links end.

    Raises:
        DataError: if a folder cannot be read.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        folders, files = visible_entries(current)
        found += files
        waiting += reversed(folders)
    return found


def step_into(folder: Path) -> Path:
    """Follow a folder that holds nothing but one folder down to the first that holds more.

    A folder whose only sub-folder has no sub-folders is itself returned: that one sub-folder is a class.
    """
    while True:
        folders, files = visible_entries(folder)
        if files or len(folders) != 1:
            return folder
        inner_folders, inner_files = visible_entries(folders[0])
        if not inner_folders and (len(inner_files) != 1):
            return folder
        folder = folders[0]
