"""What the machine and its environment say: folders, cores, memory, network; and files written whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import platformdirs

from headstart.errors import CacheError, HeadstartError, MissingPackageError, SettingError

MAX_THREADS = 1024
"""The most threads `HEADSTART_THREADS` may ask for; more is surely a slip."""

_TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
_FALSE_WORDS = frozenset({"", "0", "false", "no", "off"})

# Parameter numbers of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES = 1 << 30
_TOP_PAD_BYTES = 64 << 20
# Older glibc refuses a threshold above half a heap: DEFAULT_MMAP_THRESHOLD_MAX in malloc/malloc.c.
_OLD_GLIBC_THRESHOLD = 32 << 20


class ErrorMaker(Protocol):
    """Any of the headstart errors that are told in three parts."""

    def __call__(self, what: str, *, expected: str, mend: str) -> HeadstartError:
        """Make the error, to be raised by the caller."""
        ...


def cache_root() -> Path:
    """Say where features and compiled networks are kept; whoever writes there makes the folder.

    Returns:
        The absolute folder `HEADSTART_CACHE` names (a leading `~` is the home folder), else the system's own for headstart.
    """
    named = os.environ.get("HEADSTART_CACHE", "").strip()
    if not named:
        return Path(platformdirs.user_cache_dir("headstart", appauthor=False))
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError:  # "~" of a user without a home folder is then an ordinary name
        return Path(named).absolute()


def offline() -> bool:
    """Say whether the network is off limits.

    Returns:
        True if `HEADSTART_OFFLINE` or `HF_HUB_OFFLINE` is 1, true, yes or on.

    Raises:
        SettingError: if `HEADSTART_OFFLINE` is neither that nor 0, false, no, off or empty.
    """
    own = os.environ.get("HEADSTART_OFFLINE", "").strip().lower()
    if own not in _TRUE_WORDS | _FALSE_WORDS:
        raise SettingError(
            f"HEADSTART_OFFLINE is {own!r}, which is neither yes nor no.",
            expected="1, true, yes or on to stay off the network; 0, false, no, off or nothing otherwise.",
            mend="export HEADSTART_OFFLINE=1, or unset it.",
        )
    return own in _TRUE_WORDS or os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE_WORDS


def num_cores() -> int:
    """Count the cores this process may use, so that threads are never more than they.

    Returns:
        `HEADSTART_THREADS` if set; else the smaller of the scheduler's affinity and the container's CPU quota, rounded up
        and at least 1.

    Raises:
        SettingError: if `HEADSTART_THREADS` is no whole number from 1 to 1024.
    """
    wish = os.environ.get("HEADSTART_THREADS", "").strip()
    if wish:
        if not (len(wish) <= 4 and wish.isascii() and wish.isdigit() and 1 <= int(wish) <= MAX_THREADS):
            raise SettingError(
                f"HEADSTART_THREADS is {wish!r}, which is no number of threads.",
                expected=f"a whole number from 1 to {MAX_THREADS}.",
                mend="export HEADSTART_THREADS=2 (say), or unset it to use every core.",
            )
        return int(wish)
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _cpu_quota(Path("/sys/fs/cgroup"))
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules in a process of its own.

    Python would put the working folder before everything else on its path, and so import a `random.py` or `torch` that the
    user has there; it is told not to.

    Args:
        module: that is run as `__main__`.
        *arguments: of the process.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def raise_malloc_thresholds() -> bool:
    """Let glibc keep freed memory instead of giving it back after each large array; torch on the CPU is 2-3x faster for it.

    The C library's defaults return every block above 128 KiB (to 32 MiB, by its own rule) to the system, which then clears each
    page anew at the next allocation. To be called once, at the start of a process that will run torch. Does nothing elsewhere
    than on glibc.

    Returns:
        True if all three thresholds were raised.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    mapped = mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) or mallopt(_M_MMAP_THRESHOLD, _OLD_GLIBC_THRESHOLD)
    trimmed = mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
    padded = mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)
    return bool(mapped and trimmed and padded)


def hardware() -> dict[str, Any]:
    """Describe the machine, for reports and benchmarks.

    Returns:
        `cpu` (model), `cores` (those usable here), `memory_bytes` (of the machine or, if less, the container's limit; 0 if
        unknown), `os` and `python`.
    """
    return {
        "cpu": _cpu_model(),
        "cores": num_cores(),
        "memory_bytes": _memory_bytes(),
        "os": _system_name(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def atomic_write_bytes(path: Path, data: bytes, *, error: ErrorMaker = CacheError) -> None:
    """Write a file whole or not at all: beside its place first, forced to disk, then renamed over what was there.

    Args:
        path: the file to write; its folder exists.
        data: the whole content.
        error: the class of error that tells of a full disk, a forbidden or a missing folder.

    Raises:
        HeadstartError: of the class `error`, if the file cannot be written; what was at `path` before is untouched.
    """
    partial = path.with_name(f".{path.name[:40]}.{os.urandom(6).hex()}.partial")
    try:
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as problem:
        raise _write_error(path, problem, error) from problem


def atomic_write_text(path: Path, text: str, *, error: ErrorMaker = CacheError) -> None:
    """Write a text file in UTF-8, its line ends as they are, whole or not at all.

    Args:
        path: the file to write; its folder exists.
        text: the whole content.
        error: the class of error that tells of a full disk, a forbidden or a missing folder.

    Raises:
        HeadstartError: of the class `error`, if the file cannot be written; what was at `path` before is untouched.
    """
    atomic_write_bytes(path, as_utf8(text), error=error)


def as_utf8(text: str) -> bytes:
    """Encode a text that may hold the bytes of a file name that is no text: they are written as escapes, which JSON reads back.

    Args:
        text: of any characters, lone surrogates among them.
    """
    return text.encode("utf-8", "backslashreplace")


def require_packages(*packages: str, purpose: str) -> None:
    """Refuse what needs packages of the extra 'train' where they are not installed; none of them is loaded.

    Args:
        *packages: by the names that they are imported by, and that pip knows them by.
        purpose: what needs them, as in "opening a backbone".

    Raises:
        MissingPackageError: naming the first that is missing.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package, purpose=purpose)


def _write_error(path: Path, problem: OSError, error: ErrorMaker) -> HeadstartError:
    match problem.errno:
        case errno.ENOSPC | errno.EDQUOT:
            expected, mend = (
                "room for it on the disk.",
                f"free some space on the disk of {path.parent}, or name another folder.",
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            expected, mend = "a folder that may be written to.", f"allow writing to {path.parent}, or name another folder."
        case errno.ENOENT | errno.ENOTDIR:
            expected, mend = "its folder to exist.", f"make the folder {path.parent}, or name another."
        case _:
            expected, mend = "a path that can be written to.", "name another file or folder."
    return error(f"cannot write {path}: {problem.strerror or problem}.", expected=expected, mend=mend)


def _sync_folder(folder: Path) -> None:
    # The rename itself is only safe from a power cut once the folder is on disk; some systems cannot open folders.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cpu_quota(cgroup: Path) -> float | None:
    """The container's quota in cores, from cgroup version 2 or 1 below `cgroup`; None if there is none."""
    try:
        match _read_words(cgroup / "cpu.max") or (
            _read_words(cgroup / "cpu" / "cpu.cfs_quota_us") + _read_words(cgroup / "cpu" / "cpu.cfs_period_us")
        ):
            case [quota, period, *_] if quota not in {"max", "-1"} and int(period) > 0:
                return int(quota) / int(period)
    except ValueError:
        return None
    return None


def _memory_bytes() -> int:
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # names unknown to this system
        return 0
    limits = [
        int(word)
        for file in ("memory.max", "memory/memory.limit_in_bytes")
        for word in _read_words(Path("/sys/fs/cgroup") / file)
        if word.isdigit()
    ]
    return min([installed, *limits])


def _cpu_model() -> str:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
            return facts.get("model name") or facts.get("cpu model") or facts.get("Hardware") or platform.machine()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return platform.processor() or platform.machine() or "unknown"


def _system_name() -> str:
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    with contextlib.suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']} ({kernel})"
    return kernel


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
