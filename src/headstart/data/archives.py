"""Unpacking .zip and .tar archives that nobody vouches for.

Only plain files and folders come out, only below one new folder, and only as many and as much as the constants allow. The
folder is named by the archive's sha256 and appears by one rename: it is whole or not there, and is used again next time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self

from headstart.data.folders import IGNORED_NAMES
from headstart.errors import CacheError, DataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

MAX_MEMBERS = 2_000_000
"""Files and folders in one archive; ImageNet has 1.3 million."""

MAX_TOTAL_BYTES = 200 * 2**30
"""Bytes of all files together, unpacked."""

MAX_RATIO = 200
"""Unpacked over packed size, once more than RATIO_FREE_BYTES came out; text reaches about 20, a bomb 1,000."""

RATIO_FREE_BYTES = 32 * 2**20
"""Up to this many unpacked bytes any ratio is allowed: small files of one colour pack extremely well."""

_CHUNK_BYTES = 2**20


_MANIFEST = ".headstart-members.json"
"""In an unpacked folder: the size of every file in it."""


def is_archive(path: Path) -> bool:
    """Whether the name ends like an archive that `unpack` knows."""
    return path.name.casefold().endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, unpack_root: Path) -> Path:
    """Unpack an archive into `unpack_root`/SHA256, or return that folder where it is there already.

    Args:
        archive: a .zip or .tar, the latter plain or packed by gzip, bzip2 or xz.
        unpack_root: made where it does not exist.

    Returns:
        The folder with the archive's contents.

    Raises:
        DataError: if the archive is damaged or encrypted, or a member would lie outside, is a link or a device, or is one too
            many; nothing is left behind.
        CacheError: if `unpack_root` cannot be written.
    """
    target = unpack_root / _sha256(archive)
    if _is_whole(target):
        return target
    with _writing(unpack_root):
        unpack_root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=unpack_root))
    try:
        with _reading(archive), _writing(unpack_root):
            gate = _Gate(archive=archive, folder=partial, packed_bytes=archive.stat().st_size)
            if archive.name.casefold().endswith(".zip"):
                _unpack_zip(archive, gate)
            else:
                _unpack_tar(archive, gate)
            (partial / _MANIFEST).write_text(json.dumps(_sizes_below(partial)), encoding="utf-8")
            _discard(target)
            _appear(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _is_whole(target: Path) -> bool:
    """Whether an unpacked folder still has the files it was unpacked with, and no others."""
    try:
        return bool(json.loads((target / _MANIFEST).read_text(encoding="utf-8")) == _sizes_below(target))
    except (OSError, ValueError, RecursionError):
        return False


def _sizes_below(folder: Path) -> dict[str, int]:
    """The size of every file, -1 for what is no plain file; names that are not UTF-8 in an escaped form."""
    sizes: dict[str, int] = {}
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            path = Path(parent, name)
            status = path.lstat()
            sizes[path.relative_to(folder).as_posix()] = status.st_size if stat.S_ISREG(status.st_mode) else -1
    sizes.pop(_MANIFEST, None)
    return sizes


def _discard(target: Path) -> None:
    """Take an unpacked folder that was changed out of the way."""
    if target.is_dir() and not _is_whole(target):
        changed = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        target.rename(changed / "changed")
        shutil.rmtree(changed, ignore_errors=True)


@dataclass(kw_only=True)
class _Gate:
    """What every member passes through: its name, its kind, and the sizes so far."""

    archive: Path
    folder: Path
    packed_bytes: int
    num_members: int = 0
    total_bytes: int = 0

    def refuse(self, member: str, reason: str) -> DataError:
        return DataError(
            f"the archive {self.archive.name!r} holds the member {member!r}, which {reason}.",
            expected="plain files and folders with paths that stay inside the archive, each once.",
            mend="pack the data anew without this member, or unpack the archive yourself and give the folder.",
        )

    def place(self, member: str) -> Path | None:
        """Check a member's name and count it; None for what file managers leave behind."""
        self.num_members += 1
        if self.num_members > MAX_MEMBERS:
            raise self.refuse(member, f"is one more than the {MAX_MEMBERS:,} members allowed")
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or re.match(r"[A-Za-z]:[\\/]", member) or "\0" in member:
            raise self.refuse(member, "has an absolute path")
        if ".." in path.parts:
            raise self.refuse(member, "leads outside the archive by '..'")
        return None if any(part.casefold() in IGNORED_NAMES for part in path.parts) else self.folder.joinpath(*path.parts)

    def make_folder(self, member: str) -> None:
        place = self.place(member)
        if place is not None:
            with self._naming(member):
                place.mkdir(parents=True, exist_ok=True)

    def write_file(self, member: str, open_member: Callable[[], IO[bytes]]) -> None:
        place = self.place(member)
        if place is None:
            return
        with self._naming(member):
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as out, open_member() as source:
                while chunk := source.read(_CHUNK_BYTES):
                    self._count(member, len(chunk))
                    out.write(chunk)

    def _count(self, member: str, num_bytes: int) -> None:
        self.total_bytes += num_bytes
        if self.total_bytes > MAX_TOTAL_BYTES:
            raise self.refuse(member, f"brings the unpacked size above the {MAX_TOTAL_BYTES:,} bytes allowed")
        if self.total_bytes > max(RATIO_FREE_BYTES, MAX_RATIO * self.packed_bytes):
            raise self.refuse(member, f"unpacks to more than {MAX_RATIO} times the size of the archive, as a bomb does")

    @contextmanager
    def _naming(self, member: str) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise self.refuse(member, "is there more than once, or is a file and a folder") from error
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
                raise self.refuse(member[:80], "has a name that this file system cannot hold") from error
            raise


def _unpack_zip(archive: Path, gate: _Gate) -> None:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        for info in members:
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise gate.refuse(info.filename, "is a link or a device")
            if info.flag_bits & 0x1:
                raise gate.refuse(info.filename, "is encrypted")
        for info in members:
            if info.is_dir():
                gate.make_folder(info.filename)
            else:
                gate.write_file(info.filename, lambda info=info: source.open(info))  # type: ignore[misc]


class _StrictTarInfo(tarfile.TarInfo):
    """Raises for every header that cannot be read; `TarFile` takes all but the first for the archive's end."""

    @classmethod
    def fromtarfile(cls, source: tarfile.TarFile) -> Self:
        """Read the next header.

        Raises:
            ReadError: if there is none, and no end-of-archive mark either.
        """
        behind = "".join(f"behind the member {info.name[:80]!r} " for info in source.members[-1:])  # type: ignore[attr-defined]
        try:
            return super().fromtarfile(source)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"it ends {behind}without its end-of-archive mark: it is cut off") from error
        except (tarfile.HeaderError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise tarfile.ReadError(f"the header {behind}is damaged ({str(error) or type(error).__name__})") from error


def _unpack_tar(archive: Path, gate: _Gate) -> None:
    with tarfile.open(archive, "r:*", tarinfo=_StrictTarInfo) as source:
        for info in source:
            if info.isdir():
                gate.make_folder(info.name)
            elif info.isreg():
                gate.write_file(info.name, lambda info=info: _tar_file(source, info))  # type: ignore[misc]
            else:
                raise gate.refuse(info.name, "is a link or a device")
        _require_end(source)


def _require_end(source: tarfile.TarFile) -> None:
    """Raise where something follows the end-of-archive mark: members that would be left out."""
    while source.fileobj is not None and (chunk := source.fileobj.read(_CHUNK_BYTES)):
        if chunk.count(0) != len(chunk):
            raise tarfile.ReadError("data follow its end-of-archive mark: a header is damaged, or archives were joined")


def _tar_file(source: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = source.extractfile(info)
    if file is None:
        raise tarfile.ReadError(f"member {info.name!r} has no contents")
    return file


def _appear(partial: Path, target: Path) -> None:
    try:
        partial.chmod(0o755)
        partial.rename(target)
    except OSError:
        # Another process may have unpacked the same archive meanwhile: theirs is as good.
        if not target.is_dir():
            raise


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise DataError(
            f"the archive {str(path)!r} is no plain file.",
            expected="a file; a pipe or a device has no end that can be relied on.",
            mend="write its content to a file and give that.",
        )
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"the archive {str(path)!r} cannot be read: {error.strerror}.",
            expected="a file that this user may read.",
            mend="check the path and its rights.",
        ) from error


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    damaged = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError, UnicodeError)
    try:
        yield
    except damaged as error:
        raise DataError(
            f"the archive {str(archive)!r} cannot be unpacked: {error or type(error).__name__}.",
            expected=f"a whole archive, one of {' '.join(ARCHIVE_SUFFIXES)}.",
            mend="download or pack it anew, or unpack it yourself and give the folder.",
        ) from error


@contextmanager
def _writing(unpack_root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, (zipfile.BadZipFile, tarfile.TarError)):
            raise tarfile.ReadError(str(error)) from error
        raise CacheError(
            f"archives cannot be unpacked below {str(unpack_root)!r}: {os.strerror(error.errno)}.",
            expected="a folder that can be written, with room for the unpacked data.",
            mend="make room or move the cache: HEADSTART_CACHE=/another/folder; or unpack it yourself and give the folder.",
        ) from error
