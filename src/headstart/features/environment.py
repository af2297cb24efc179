"""One LMDB environment as a process needs it: opened once, grown when full, refused when damaged.

LMDB survives a killed process at any moment: a transaction is there whole or not at all. It forbids to open one environment
twice in a process, and to use one across a fork: so environments are shared here, and a forked child finds them closed to it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import lmdb

Result = TypeVar("Result")

_FIRST_MAP_BYTES = 1 << 28
_MAX_READERS = 512
# Doublings from the first map size: 2**28 << 20 is 256 TiB, more than an address space has.
_MAX_DOUBLINGS = 20

DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)
"""What LMDB raises when the file is no sound environment, and not when the disk or the permissions are at fault."""


class Environment:
    """An open environment with one table of values and one of failures; all methods are thread-safe.

    Made by `acquire` and given back by `release` alone. Errors of LMDB are passed on as `lmdb.Error`.
    """

    def __init__(self, folder: Path, *, readonly: bool) -> None:
        """Open it; raises `lmdb.Error` if that cannot be."""
        self.folder = folder
        self.readonly = readonly
        self.users = 0
        self._pid = os.getpid()
        # The map may only change its size while no transaction of this process is open.
        self._lock = threading.RLock()
        self._lmdb = _open(folder, readonly=readonly)
        try:
            self._refuse_if_cut_off()
            self.values = self._open_table(b"values")
            self.failures = self._open_table(b"failures")
        except BaseException:
            self._lmdb.close()
            raise

    def read(self, action: Callable[[lmdb.Transaction], Result]) -> Result:
        """Run `action` in one read transaction; what it gets from the transaction is valid inside only.

        Args:
            action: is given a transaction whose values are buffers.

        Returns:
            What `action` returns.

        Raises:
            lmdb.Error: if the environment is damaged, or was opened before a fork.
        """
        self._refuse_after_fork()
        with self._lock:
            try:
                return self._read_once(action)
            except lmdb.MapResizedError:  # another process made it grow
                self._lmdb.set_mapsize(0)
                return self._read_once(action)

    def write(self, action: Callable[[lmdb.Transaction], Result]) -> Result:
        """Run `action` in one write transaction, all or nothing; again in a larger map if that was full.

        Args:
            action: is given a transaction; may run more than once.

        Returns:
            What `action` returned when it was committed.

        Raises:
            lmdb.Error: if the disk is full, the environment damaged or read-only, or it was opened before a fork.
        """
        self._refuse_after_fork()
        with self._lock:
            for _ in range(_MAX_DOUBLINGS):
                try:
                    return self._write_once(action)
                except lmdb.MapFullError:
                    # A number only: the file grows with what is written, not with the map.
                    self._lmdb.set_mapsize(2 * self._lmdb.info()["map_size"])
                except lmdb.MapResizedError:
                    self._lmdb.set_mapsize(0)
            raise lmdb.MapFullError("the environment cannot grow any more")

    def num_bytes(self) -> int:
        """Measure the file of values; 0 if it is gone."""
        try:
            return (self.folder / "data.mdb").stat().st_size
        except OSError:
            return 0

    def num_values(self) -> int:
        """Count the items with a value."""
        return self.read(lambda transaction: transaction.stat(self.values)["entries"])

    def close(self) -> None:
        """Close it for this process; in a forked child it is left alone."""
        if os.getpid() == self._pid:
            with self._lock:
                self._lmdb.close()

    def _read_once(self, action: Callable[[lmdb.Transaction], Result]) -> Result:
        with self._lmdb.begin(buffers=True) as transaction:
            return action(transaction)

    def _write_once(self, action: Callable[[lmdb.Transaction], Result]) -> Result:
        with self._lmdb.begin(write=True) as transaction:
            return action(transaction)

    def _open_table(self, name: bytes) -> lmdb._Database:
        for _ in range(_MAX_DOUBLINGS):
            try:
                return self._lmdb.open_db(name, create=not self.readonly)
            except lmdb.MapResizedError:
                self._lmdb.set_mapsize(0)
        raise lmdb.MapResizedError("the environment grows faster than it can be opened")

    def _refuse_if_cut_off(self) -> None:
        # Reading a page beyond the end of the file would end the process with SIGBUS.
        needed = (self._lmdb.info()["last_pgno"] + 1) * self._lmdb.stat()["psize"]
        if (self.folder / "data.mdb").stat().st_size < needed:
            raise lmdb.CorruptedError("data.mdb is cut off")

    def _refuse_after_fork(self) -> None:
        if os.getpid() != self._pid:
            raise lmdb.Error("the store was opened before this process was forked; open it after the fork instead")


_shared: dict[Path, Environment] = {}
_shared_lock = threading.Lock()


def acquire(folder: Path, *, readonly: bool = False) -> Environment:
    """Open an environment, or share the one this process has open on the same folder.

    Args:
        folder: exists; holds the environment, or will.
        readonly: whether nothing is to be written; without an environment in the folder that is an error.

    Returns:
        The environment; to be given back by `release` once for each call.

    Raises:
        lmdb.Error: if it is damaged, cannot be opened, or was opened before a fork.
    """
    folder = folder.resolve()
    with _shared_lock:
        environment = _shared.get(folder)
        if environment is None:
            environment = _shared[folder] = Environment(folder, readonly=readonly)
        environment.users += 1
        return environment


def release(environment: Environment) -> None:
    """Give an environment back; the last user closes it."""
    with _shared_lock:
        environment.users -= 1
        if environment.users == 0 and _shared.get(environment.folder) is environment:
            del _shared[environment.folder]
            environment.close()


def retire(environment: Environment) -> bool:
    """Close a damaged environment to all its users in this process, so that another can be opened in its place.

    Returns:
        False if that was done before.
    """
    with _shared_lock:
        if _shared.get(environment.folder) is not environment:
            return False
        del _shared[environment.folder]
        environment.close()
        return True


def is_open_here(folder: Path) -> bool:
    """Say whether this process has the environment open."""
    with _shared_lock:
        return folder.resolve() in _shared


def _open(folder: Path, *, readonly: bool) -> lmdb.Environment:
    settings: dict[str, Any] = {
        "max_dbs": 2,
        "max_readers": _MAX_READERS,
        "map_size": _FIRST_MAP_BYTES,
        "readahead": False,
        "create": not readonly,
    }
    if not readonly:
        # The last batch may be lost to a power cut (not to a kill); the rest never is.
        opened = lmdb.open(str(folder), metasync=False, **settings)
        opened.reader_check()  # readers that were killed would keep old pages from being used again
        return opened
    try:
        return lmdb.open(str(folder), readonly=True, **settings)
    except lmdb.Error:
        # A folder that may not be written to has no room for the lock of readers either; every value carries its checksum.
        return lmdb.open(str(folder), readonly=True, lock=False, **settings)


# What a forked child has inherited: never to be used, and never to be closed there, which would touch the parent's readers.
_inherited: list[Environment] = []


def _put_away_after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()  # another thread of the parent may have held the old one
    _inherited.extend(_shared.values())
    _shared.clear()


if os.name == "posix":
    os.register_at_fork(after_in_child=_put_away_after_fork)
