"""The folders of the feature store: made, listed, kept under a limit, cleared."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from headstart.errors import CacheError, SettingError
from headstart.features.environment import acquire, is_open_here, release
from headstart.runtime import atomic_write_text

FORMAT = 1
"""Of the folder and its values; another one is set aside and made anew."""

DEFAULT_LIMIT_BYTES = 10_000_000_000
"""What all environments together may take, unless `HEADSTART_CACHE_LIMIT` says otherwise."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SCRAP_PREFIXES = (".new-", ".damaged-")
_SCRAP_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """What one environment of the store holds."""

    fingerprint: str
    describe: dict[str, Any]
    """What its maker said it is: backbone, block, geometry, …"""
    items: int
    """Items with features."""
    bytes: int
    """On disk."""
    last_used: float
    """Seconds since 1970."""


def features_folder(root: Path) -> Path:
    """Name the folder of all environments below a cache root."""
    return root / "features"


def cache_limit() -> int:
    """Read the size limit of the store.

    Returns:
        Bytes, from `HEADSTART_CACHE_LIMIT` ("10GB", "500 MB", "1.5GiB", a plain number), else 10 GB.

    Raises:
        SettingError: if the variable is no such size.
    """
    wish = os.environ.get("HEADSTART_CACHE_LIMIT", "").strip()
    if not wish:
        return DEFAULT_LIMIT_BYTES
    return parse_limit(wish, name="HEADSTART_CACHE_LIMIT")


def parse_limit(wish: str, *, name: str = "--limit") -> int:
    """Read a size such as 10GB, 500 MB, 1.5GiB or a plain number of bytes.

    Args:
        wish: the text.
        name: what it was given by, for the message.

    Returns:
        Bytes.

    Raises:
        SettingError: if it is no such size.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", wish, re.ASCII)
    if match is None or match[2].upper() not in _UNITS:
        raise SettingError(
            f"{name} is {wish!r}, which is no size.",
            expected="a number and a unit: B, KB, MB, GB, TB (or KiB, MiB, GiB, TiB).",
            mend=f"{name}=10GB",
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def make_folder(root: Path, fingerprint: str, meta: Mapping[str, Any]) -> Path:
    """Make the folder of an environment with its description, at once as others see it; one that is there stays.

    Args:
        root: the cache root; made if need be.
        fingerprint: the folder's name.
        meta: what `meta.json` will hold.

    Returns:
        The folder.

    Raises:
        CacheError: if the disk is full or the cache may not be written to.
        OSError: the same, of the folders.
    """
    parent = features_folder(root)
    folder = parent / fingerprint
    if (folder / "meta.json").is_file():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    fresh = parent / f".new-{os.urandom(6).hex()}"
    try:
        fresh.mkdir()
        atomic_write_text(fresh / "meta.json", json.dumps(dict(meta), indent=2, sort_keys=True) + "\n", error=CacheError)
        if folder.exists() and not (folder / "meta.json").is_file():
            set_aside(folder)
        # Fails if another process was quicker: a folder that is not empty is never replaced.
        with contextlib.suppress(OSError):
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if not (folder / "meta.json").is_file():
        raise CacheError(
            f"the folder {folder} cannot be made.", expected="a cache that can be written to.", mend="export HEADSTART_CACHE=…"
        )
    return folder


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Read an environment's description; None if there is none, or none that can be read."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None


def mark_used(folder: Path) -> None:
    """Remember that an environment is used now, for the order in which `prune` removes."""
    with contextlib.suppress(OSError):
        os.utime(folder / "meta.json")


def set_aside(folder: Path) -> None:
    """Take a damaged environment out of the way, at once as others see it, and remove it."""
    away = folder.with_name(f".damaged-{os.urandom(6).hex()}")
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def info(root: Path) -> list[StoredFeatures]:
    """List what the store holds.

    Args:
        root: the cache root; need not exist.

    Returns:
        One record for each environment, the most recently used first.
    """
    records = [_describe(folder) for folder in _environment_folders(root)]
    return sorted(records, key=lambda record: -record.last_used)


def prune(root: Path, limit_bytes: int | None = None, *, keep: str = "") -> int:
    """Remove the least recently used environments whole until the others fit the limit.

    Environments in use, by this process or another on the same machine, stay.

    Args:
        root: the cache root; need not exist.
        limit_bytes: what may remain; by default `cache_limit()`.
        keep: the fingerprint of one that stays in any case.

    Returns:
        Bytes freed.
    """
    limit = cache_limit() if limit_bytes is None else limit_bytes
    _remove_scraps(root, older_than=_SCRAP_SECONDS)
    ages = sorted((_last_used(folder), folder, _folder_bytes(folder)) for folder in _environment_folders(root))
    total, freed = sum(size for _, _, size in ages), 0
    for _, folder, size in ages:
        if total - freed <= limit:
            break
        if folder.name != keep and not in_use(folder):
            freed += _remove(folder, size)
    return freed


def clear(root: Path) -> int:
    """Remove every environment that nobody uses at the moment.

    Args:
        root: the cache root; need not exist.

    Returns:
        Bytes freed.
    """
    _remove_scraps(root, older_than=0.0)
    return sum(_remove(folder, _folder_bytes(folder)) for folder in _environment_folders(root) if not in_use(folder))


def in_use(folder: Path) -> bool:
    """Say whether this process, or another on the same machine, has the environment open (others: on POSIX only)."""
    if is_open_here(folder):
        return True
    try:
        import fcntl
    except ImportError:  # not POSIX: there, files in use cannot be removed anyway
        return False
    try:
        with (folder / "lock.mdb").open("r+b") as file:
            # LMDB holds a shared lock on the first byte while it is open (mdb_env_excl_lock in mdb.c).
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _environment_folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in features_folder(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _describe(folder: Path) -> StoredFeatures:
    meta = read_meta(folder) or {}
    described = meta.get("describe")
    items = 0
    with contextlib.suppress(lmdb.Error, OSError):
        environment = acquire(folder, readonly=True)
        try:
            items = environment.num_values()
        finally:
            release(environment)
    return StoredFeatures(
        fingerprint=folder.name,
        describe=described if isinstance(described, dict) else {},
        items=items,
        bytes=_folder_bytes(folder),
        last_used=_last_used(folder),
    )


def _last_used(folder: Path) -> float:
    for path in (folder / "meta.json", folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _folder_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def _remove(folder: Path, size: int) -> int:
    try:
        set_aside(folder)
    except OSError:
        return 0
    return size


def _remove_scraps(root: Path, *, older_than: float) -> None:
    # What a process left that was killed while it made or removed an environment.
    with contextlib.suppress(OSError):
        for path in features_folder(root).iterdir():
            if path.name.startswith(_SCRAP_PREFIXES) and time.time() - path.stat().st_mtime >= older_than:
                shutil.rmtree(path, ignore_errors=True)
