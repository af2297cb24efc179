"""Recognising that memory ran out, whichever library says so, and reporting it as an error of the machine's limits."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import MemoryLimitError

# Of torch's allocators, ONNX Runtime's, C++'s, the loader of shared libraries, and threads, whose stacks are memory too.
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
    "bad allocation",
    "failed to map segment",
    "can't start new thread",
    "memoryerror",
)
# Too many libraries with thread-local storage, however much memory there is.
_OTHER_WORDS = ("static tls block",)
# What oneDNN says of a convolution that has no memory; of one that it does not support it says more.
_NO_PRIMITIVE = "could not create a primitive"
_NAMES = frozenset({"MemoryError", "OutOfMemoryError"})
"""Python's error and NumPy's and LMDB's kinds of it; torch's. By name, since neither torch nor LMDB need be loaded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, that of a device or its libraries, or that of a native allocator."""
    if any(kind.__name__ in _NAMES for kind in type(error).__mro__):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    native = isinstance(error, RuntimeError | ImportError | OSError) or type(error).__module__.startswith("onnxruntime.")
    return native and mentions_out_of_memory(str(error))


def mentions_out_of_memory(text: str) -> bool:
    """Whether the message of a native library, or the last line of a process, says that memory ran out.

    Such libraries raise the same kind of error for everything; their words are all there is.
    """
    words = text.lower()
    if words.strip().removeprefix("runtimeerror: ") == _NO_PRIMITIVE:
        return True
    return any(known in words for known in _WORDS) and not any(other in words for other in _OTHER_WORDS)


@contextmanager
def report_memory_errors() -> Iterator[None]:
    """Raise what says that memory ran out as a `MemoryLimitError`; for a block of code, or as a decorator.

    Raises:
        MemoryLimitError: if memory runs out inside.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise memory_error((str(error).splitlines() or [""])[0] or type(error).__name__) from error


def memory_error(said: str) -> MemoryLimitError:
    """The error for memory that ran out.

    Args:
        said: what the library that ran out of it said.
    """
    limit = _address_limit()
    more = f"raise the limit of {limit / 1e9:.1f} GB (ulimit -v unlimited)" if limit else "free memory on this machine"
    return MemoryLimitError(
        f"memory ran out ({said[:200]}).",
        expected="memory for the network and a batch of items; loading torch alone takes some GB of addresses.",
        mend=f"{more}; or use less: --strategy extract, a smaller backbone, --image-size or --batch-size; HEADSTART_THREADS=1.",
    )


def require_addresses(least: int) -> None:
    """Refuse to begin what could not end well: native threads that get no memory end the process without a word.

    Does nothing where no limit is set on the process's addresses, or where the system does not say how many are used.

    Args:
        least: bytes that are needed beyond what the process has now.

    Raises:
        MemoryLimitError: if the limit leaves less.
    """
    limit, used = _address_limit(), _used_addresses()
    if limit and used and limit - used < least:
        raise memory_error(f"{max(0, limit - used) / 1e9:.2f} GB are left, and at least {least / 1e9:.2f} GB are needed")


def _used_addresses() -> int:
    """Bytes of addresses that this process has; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _address_limit() -> int:
    """Bytes of addresses that this process may have, as `ulimit -v` sets them; 0 for no limit."""
    if sys.platform == "win32":
        return 0
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return 0 if soft == resource.RLIM_INFINITY else soft
