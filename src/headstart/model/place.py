"""Where a saved model goes, and what may be deleted there: only what a manifest or a marker shows that Headstart wrote.

Every folder that Headstart removes or replaces is removed here. A saved model lists its files in headstart.json; a folder that
a fit works in lists them in a marker file. Anything else is the user's: it stays, and the error names it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import ArtifactError, SettingError
from headstart.model.manifest import MANIFEST, Manifest
from headstart.runtime import as_utf8

MARKER = ".headstart-work.json"
"""In a folder that Headstart works in, or has replaced: which of its files are Headstart's own."""
STAGE = "saving"
"""Folder in a working folder where files are written whose names are not known before."""
_REPLACED = ".headstart-replaced-"
_NOTE = "Headstart works in this folder and removes the files named here. Keep nothing of your own in it."
# What a file manager leaves in any folder that it shows.
_OF_THE_SYSTEM = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", ".directory"})
_MOST_NAMED = 3
# Of a file's name, on nearly all file systems.
_MOST_BYTES = 255


@dataclass(frozen=True, kw_only=True)
class _Owned:
    """What of a folder is Headstart's own."""

    files: frozenset[str]
    """Names relative to the folder, with / between their parts."""
    folders: frozenset[str] = frozenset()
    """Folders that are Headstart's with all that is in them."""


# The folder of a model


def check_replaceable(target: Path, *, overwrite: bool = False) -> None:
    """Refuse to write over anything but nothing, an empty folder, or, if asked to, a saved model and nothing else.

    Args:
        target: where a model's folder shall be.
        overwrite: whether a saved model may be replaced.

    Raises:
        ArtifactError: if something is there that must stay, or the path cannot name a folder.
    """
    check_name(target)
    try:
        _check_there(target, overwrite)
    except OSError as error:
        raise cannot_write(target, error) from error


def check_name(target: Path, suffix: str = "") -> None:
    """Refuse a path that cannot be a folder of its own.

    Args:
        target: where a model's folder shall be.
        suffix: that is put behind the name while the model is made.

    Raises:
        ArtifactError: if the path has no name, or one that no file system takes.
    """
    if target.name in {"", ".."}:
        raise ArtifactError(
            f"{str(target)!r} is no name for a saved model.",
            expected="the path of a folder with a name of its own, as in flowers.hs.",
            mend="choose another path for --out.",
        )
    if "\0" in str(target):
        raise ArtifactError(
            f"{str(target)!r} is no name for a saved model: it contains the character \\0.",
            expected="the path of a folder, as in flowers.hs.",
            mend="choose another path for --out.",
        )
    size, most = len(os.fsencode(target.name)), _MOST_BYTES - len(suffix)
    if size > most:
        raise ArtifactError(
            f"the name of {target} has {size} bytes.",
            expected=f"a name of at most {most} bytes.",
            mend="choose a shorter name for --out.",
        )


def _is_there(path: Path) -> bool:
    """Whether anything has this name, a link that leads nowhere among it; OSError or ValueError for one that cannot be."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _check_there(target: Path, overwrite: bool) -> None:
    if not _is_there(target) or (not target.is_symlink() and target.is_dir() and not any(target.iterdir())):
        return
    owned = _listed(target) if target.is_dir() else None
    if owned is None:
        raise ArtifactError(
            f"{target} exists and is not a saved model.",
            expected="a path where nothing is, or, with --overwrite, a saved model to replace.",
            mend="choose another path for --out, or remove what is there.",
        )
    if not overwrite:
        raise ArtifactError(
            f"{target} is a saved model already.",
            expected="a path where nothing is.",
            mend="--overwrite (in Python overwrite=True) to replace it, or choose another path.",
        )
    if not target.is_symlink():
        _refuse_foreign(target, _foreign(target, owned))


def _refuse_foreign(folder: Path, foreign: list[str]) -> None:
    if not foreign:
        return
    named = ", ".join(map(repr, foreign[:_MOST_NAMED]))
    more = f" and {len(foreign) - _MOST_NAMED} more" if len(foreign) > _MOST_NAMED else ""
    raise ArtifactError(
        f"{folder} contains {named}{more}, which Headstart did not write, so it is not deleted.",
        expected="a folder with nothing in it but what Headstart wrote.",
        mend="move your own files elsewhere, or choose another path for --out.",
    )


def move_into_place(work: Path, target: Path, *, overwrite: bool = False) -> None:
    """Make a finished folder appear under its name in one step; an older model there goes away only then.

    Args:
        work: a whole model, beside its place.
        target: its place.
        overwrite: whether a saved model there is replaced.

    Raises:
        ArtifactError: if something else came to be there meanwhile; it stays, and so does `work`.
        OSError: if the folder cannot be moved.
    """
    check_replaceable(target, overwrite=overwrite)
    work.chmod(0o755)
    old = None
    if target.is_symlink():
        target.unlink()  # the model it leads to stays where it is
    elif target.is_dir() and any(target.iterdir()):
        old = _set_aside(target)
    try:
        work.rename(target)
    except BaseException:
        if old is not None and not _is_there(target):
            old.rename(target)
            _unmark(target)
        raise
    _unmark(target)
    if old is not None:
        _remove(old, _listed(old))


def _set_aside(target: Path) -> Path:
    """Rename a model that is being replaced; the marker says of what, should this process end before it is removed."""
    _write_marker(target, {"replaced": target.name})
    old = target.with_name(_REPLACED + os.urandom(6).hex())
    target.rename(old)
    return old


def recover(target: Path) -> None:
    """Finish what a process that was killed while it replaced a model could not.

    Args:
        target: the model's place; where nothing is there, the older model is put back.
    """
    with suppress(OSError):
        for old in sorted(target.parent.glob(f"{_REPLACED}*")):
            if _read_marker(old).get("replaced") != target.name or old.is_symlink():
                continue
            if _is_there(target):
                _remove(old, _listed(old))
            else:
                old.rename(target)
                _unmark(target)


def copy_model(folder: Path, manifest: Manifest, target: Path, *, overwrite: bool) -> None:
    """Copy a saved model: the files that it lists, and nothing else.

    Args:
        folder: of the model.
        manifest: as it was read when the model was opened.
        target: of the copy.
        overwrite: whether a saved model there is replaced.

    Raises:
        ArtifactError: if something else is at the target, a file of the model is a link or was changed, or the disk is full.
    """
    check_replaceable(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        work = Path(tempfile.mkdtemp(prefix=".headstart-", dir=target.parent))
        try:
            for name, sha256 in manifest.files.items():
                _copy_file(folder, name, work, sha256 if manifest.is_sealed(name) else None)
            (work / MANIFEST).write_bytes(as_utf8(manifest.as_text()))
            move_into_place(work, target, overwrite=overwrite)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)  # made here, under a name nobody had
            raise
    except OSError as error:
        raise cannot_write(target, error) from error


def _copy_file(folder: Path, name: str, work: Path, sha256: str | None) -> None:
    """Copy one regular file; without a checksum it may have changed since, or be gone."""
    source = own_path(folder, name)
    if source is None or source.is_symlink() or (source.exists() and not source.is_file()):
        raise ArtifactError(
            f"{name} in {folder} is a link or no file, so it is not copied.",
            expected="a regular file for every name that headstart.json lists.",
            mend="replace it by the file that was saved, or copy the whole folder again from where it was made.",
        )
    place = work / name
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(source, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        if sha256 is None:
            return
        raise
    digest = hashlib.sha256()
    with os.fdopen(handle, "rb") as file, place.open("xb") as copy:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        while block := file.read(1 << 20):
            digest.update(block)
            copy.write(block)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ArtifactError(
            f"{name} in {folder} has changed since the model was opened.",
            expected="the files as they were when the model was opened.",
            mend="open the model again with headstart.load.",
        )


# One file


def check_file_replaceable(target: Path, *, overwrite: bool) -> None:
    """Refuse to write over a file, unless asked to; and over anything else.

    Args:
        target: the file to be written.
        overwrite: whether a file that is there may be replaced.

    Raises:
        SettingError: if something is there that must stay, or the path cannot name a file.
    """
    try:
        found = _is_there(target)
        is_file = found and target.is_file()
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{str(target)!r} is no name for a file: {getattr(error, 'strerror', None) or error}.",
            expected="the path of a file.",
            mend="choose another path for --out.",
        ) from error
    if found and not is_file:
        raise SettingError(
            f"{target} exists and is no file.",
            expected="a path where nothing is.",
            mend="choose another path for --out.",
        )
    if found and not overwrite:
        raise SettingError(
            f"{target} exists.",
            expected="a path where nothing is.",
            mend="--overwrite (in Python overwrite=True) to replace it, or choose another path for --out.",
        )


# The folder that a fit works in


def start_work(folder: Path, names: Iterable[str], *, folders: Iterable[str] = ()) -> None:
    """Mark a folder as one that Headstart works in.

    Args:
        folder: exists, and nothing is in it.
        names: of files that will be written there.
        folders: that will be made there, and are Headstart's with all that is in them.
    """
    _write_marker(folder, {"files": sorted(names), "folders": sorted(folders)})


def announce(folder: Path, names: Iterable[str]) -> None:
    """Add names to a working folder's marker before files of these names are written.

    Args:
        folder: that Headstart works in; one without a marker is left as it is.
        names: relative to it.
    """
    if is_marked(folder):
        marker = _read_marker(folder)
        _write_marker(folder, marker | {"files": sorted({*_texts(marker.get("files")), *names})})


def is_marked(folder: Path) -> bool:
    """Whether Headstart works or worked in a folder."""
    return not folder.is_symlink() and (folder / MARKER).is_file() and not (folder / MARKER).is_symlink()


def check_work(folder: Path) -> None:
    """Refuse to work in a folder with files in it that are not Headstart's.

    Raises:
        ArtifactError: naming what is there.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ArtifactError(
            f"{folder} exists, and Headstart would work there while the model is made.",
            expected="nothing of that name, or what an interrupted fit left.",
            mend="move it elsewhere, or choose another path for --out.",
        )
    if not is_marked(folder) and _listed(folder) is not None:
        raise ArtifactError(
            f"{folder} is a finished model, whose place was taken when it was made.",
            expected="nothing of that name while another model is made.",
            mend="rename it, or remove it; or choose another path for --out.",
        )
    _refuse_foreign(folder, _foreign(folder, _worked(folder)))


def clear_work(folder: Path, *, whole: bool = True) -> None:
    """Remove what Headstart wrote into a folder that it works in; what is not its own stays, and so does the folder then.

    Args:
        folder: that is removed if it carries the marker.
        whole: whether the folder and its marker are removed, too.
    """
    if is_marked(folder):
        _remove(folder, _worked(folder), whole=whole)


def finish_work(folder: Path) -> None:
    """Take the marker away: the folder is a model now."""
    _unmark(folder)


def _worked(folder: Path) -> _Owned:
    marker = _read_marker(folder)
    files = _texts(marker.get("files")) | ({MANIFEST} if marker else frozenset())
    listed = _listed(folder) if marker else None
    return _Owned(files=files | (listed.files if listed else frozenset()), folders=_texts(marker.get("folders")))


def _texts(value: object) -> frozenset[str]:
    return frozenset(part for part in value if isinstance(part, str)) if isinstance(value, list) else frozenset()


def _read_marker(folder: Path) -> dict[str, object]:
    if not is_marked(folder):
        return {}
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_marker(folder: Path, content: dict[str, object]) -> None:
    (folder / MARKER).write_text(json.dumps({"note": _NOTE} | content, indent=1) + "\n", encoding="utf-8")


def _unmark(folder: Path) -> None:
    if is_marked(folder):
        (folder / MARKER).unlink()


# What is Headstart's own


def _listed(folder: Path) -> _Owned | None:
    """What a saved model lists; None where there is none that can be read."""
    try:
        manifest = Manifest.from_text((folder / MANIFEST).read_text(encoding="utf-8"), where=str(folder))
    except (ArtifactError, OSError, UnicodeDecodeError):
        return None
    return _Owned(files=frozenset(manifest.files) | {MANIFEST})


def own_path(folder: Path, name: str) -> Path | None:
    """The path of a file that a model lists.

    Args:
        folder: of the model.
        name: as headstart.json has it.

    Returns:
        The path; None for one that leads out of the folder, by its name or by a link on the way.
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} or set(part) & set("\\:\0") for part in parts):
        return None
    path = folder
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():
            return None
    return path / parts[-1]


def _foreign(folder: Path, owned: _Owned, below: str = "") -> list[str]:
    """Names of what is in a folder and not Headstart's own."""
    found: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name, is_folder = below + entry.name, entry.is_dir(follow_symlinks=False)
        if name == MARKER or (entry.name in _OF_THE_SYSTEM and not is_folder):
            continue
        if is_folder and name not in owned.folders:
            inside = any(own.startswith(name + "/") for own in owned.files)
            found += _foreign(Path(entry.path), owned, name + "/") if inside else [name]
        elif not is_folder and name not in owned.files:
            found.append(name)
    return found


def _remove(folder: Path, owned: _Owned | None, *, whole: bool = True) -> None:
    """Remove Headstart's own files, then the folders that are empty for it."""
    if owned is None:
        return
    for name in sorted(owned.folders):
        path = own_path(folder, name)
        if path is not None and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    above: set[Path] = set()
    for name in owned.files:
        path = own_path(folder, name)
        if path is not None:
            above |= set(path.parents) - {folder} - set(folder.parents)
            with suppress(OSError):
                path.unlink(missing_ok=True)
    left = [*sorted(above, key=lambda path: -len(path.parts)), *([folder] if whole else [])]
    for path in left:
        with suppress(OSError):
            for name in _OF_THE_SYSTEM | ({MARKER} if path == folder else set()):
                (path / name).unlink(missing_ok=True)
            path.rmdir()


def cannot_write(target: Path, error: OSError) -> ArtifactError:
    """The error for a folder that cannot be written."""
    return ArtifactError(
        f"{target} cannot be written: {error.strerror or error}.",
        expected="a folder that can be written, with about 25 MB free.",
        mend="free some space, or choose another path for --out.",
    )
