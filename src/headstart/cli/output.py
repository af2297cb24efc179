"""Standard output: what it does where it cannot be written, and what is shown of characters that steer a terminal."""

from __future__ import annotations

import io
import os
import sys
import unicodedata

from headstart.errors import HeadstartError

# Of the format characters only those that turn the direction of a text around: others join letters.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


class OutputError(HeadstartError):
    """Standard output cannot be written, as on a full disk."""


class _Output(io.FileIO):
    """Raises an error in words where the system refuses; that nobody reads any more stays a BrokenPipeError."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            raise
        except OSError as error:
            discard_output()
            raise OutputError(
                f"standard output cannot be written: {error.strerror or error}.",
                expected="a terminal, a pipe or a file with room for the output.",
                mend="free some space, or send the output elsewhere.",
            ) from error


def guard_output() -> None:
    """Write standard output so that a failure is told in words; of what it cannot encode, the number is shown."""
    current = sys.stdout
    if not isinstance(current, io.TextIOWrapper):
        return
    raw = getattr(current.buffer, "raw", current.buffer)  # unbuffered, the buffer is the file itself
    if type(raw) is io.FileIO and raw.fileno() == 1:
        current.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(1, "wb", closefd=False)),
            encoding=current.encoding,
            line_buffering=current.line_buffering,
            write_through=current.write_through,
        )
    # A file name or label that the terminal cannot show is no reason to stop.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def discard_output() -> None:
    """Send what is left of the output nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_utf8() -> None:
    """Have standard output be UTF-8 whatever the terminal's encoding, as what programs read is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def printable(text: str) -> str:
    """A text whose characters cannot steer a terminal: those are shown as escapes.

    Args:
        text: of one line or several.
    """
    return "".join(repr(each)[1:-1] if _steers(each) else each for each in text)


def _steers(character: str) -> bool:
    return (unicodedata.category(character) == "Cc" and character not in "\n\t") or character in _TURNING
