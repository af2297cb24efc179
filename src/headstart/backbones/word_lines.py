"""The entries of a file of word vectors, one after the other, and what is wrong with the one that is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

import numpy as np

Entry = tuple[str, np.ndarray]

_HEADER = re.compile(rb"\s*(\d{1,12})\s+(\d{1,6})\s*")
# No text has them; among the bytes of a few hundred numbers there are always some.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_LOOKED_AT = 1 << 18
_LONGEST_WORD = 10_000
_SHOWN = 40
_GET_AGAIN = "correct the line or take it out; where the file was cut short, get it again."


class BrokenEntryError(Exception):
    """What is wrong with an entry, and where it stands."""

    def __init__(self, place: str, what: str, *, expected: str, mend: str = _GET_AGAIN) -> None:
        """Describe a broken entry.

        Args:
            place: of the entry, such as 'line 7'.
            what: is wrong, as the rest of a sentence that begins with the place.
            expected: in its stead.
            mend: what to do.
        """
        super().__init__(f"{place} {what}")
        self.place, self.what, self.expected, self.mend = place, what, expected, mend


def read_entries(stream: IO[bytes]) -> Iterator[Entry]:
    """Read words and their vectors.

    Args:
        stream: of the whole file, at its beginning; it can go back there.

    Yields:
        Each word with its vector, (D,) float32.

    Raises:
        BrokenEntryError: at the first entry that is none.
    """
    first = stream.readline(_LOOKED_AT)
    header = _HEADER.fullmatch(first)
    if header is None:
        stream.seek(0)
        yield from _read_lines(stream, _width_of(first), first_line=1, count=None)
        return
    count, width = int(header[1]), int(header[2])
    if not count or not width:
        raise BrokenEntryError(
            "line 1", f"promises {count} words of {width} numbers", expected="at least one word, and one number."
        )
    start = stream.tell()
    binary = _CONTROL.search(stream.read(_LOOKED_AT)) is not None
    stream.seek(start)
    if binary:
        yield from _read_binary(stream, count, width)
    else:
        yield from _read_lines(stream, width, first_line=2, count=count)


def _width_of(line: bytes) -> int:
    """How many numbers a first line ends in."""
    fields = line.split()
    width = 0
    for field in reversed(fields[1:]):
        if not _is_number(field):
            break
        width += 1
    if not width:
        raise BrokenEntryError(
            "line 1",
            f"is no word with its vector: {_shown(line)}",
            expected="a word and its numbers, separated by spaces; or, as in word2vec, how many words of how many numbers.",
            mend="name a file of word vectors.",
        )
    return width


def _read_lines(stream: IO[bytes], width: int, *, first_line: int, count: int | None) -> Iterator[Entry]:
    seen = 0
    number = first_line - 1
    for line in stream:
        number += 1
        stripped = line.rstrip(b" \t\r\n")
        if not stripped:
            continue
        if count is not None and seen == count:
            raise BrokenEntryError(
                f"line {number}", f"comes after the {count} words that line 1 promises", expected="no more lines."
            )
        yield _entry_of(stripped, width, number)
        seen += 1
    if count is not None and seen < count:
        raise BrokenEntryError(
            f"line {number}", f"is the last, after {seen} words of the {count} that line 1 promises", expected="all of them."
        )


def _entry_of(line: bytes, width: int, number: int) -> Entry:
    """One line: a word, which may hold spaces as a few of GloVe do, and so many numbers."""
    place = f"line {number}"
    expected = f"a word and {width} finite numbers, separated by spaces."
    # Not at other white space: words hold no-break spaces, in files made from web pages.
    fields = line.replace(b"\t", b" ").split(b" ")
    if len(fields) != width + 1:
        fields = [field for field in fields if field]
    if len(fields) > width + 1 and not _is_number(fields[-width - 1]):
        fields = [b" ".join(fields[:-width]), *fields[-width:]]
    if len(fields) != width + 1:
        raise BrokenEntryError(place, f"holds {len(fields) - 1} numbers behind its word {_shown(fields[0])}", expected=expected)
    try:
        vector = np.fromstring(b" ".join(fields[1:]), np.float32, sep=" ")
    except ValueError:
        vector = np.empty(0, np.float32)
    if len(vector) != width:
        wrong = next((field for field in fields[1:] if not _is_number(field)), line)
        raise BrokenEntryError(place, f"holds {_shown(wrong)} where a number should be", expected=expected)
    return _checked(_word_of(fields[0], place), vector, place, expected)


def _read_binary(stream: IO[bytes], count: int, width: int) -> Iterator[Entry]:
    """Words, each with a space behind it, and float32; the first program of word2vec ended each entry with a new line."""
    expected = f"a word, a space, and {width} finite float32 numbers, {count} times."
    buffer, at = b"", 0
    size = 4 * width
    for number in range(1, count + 1):
        place = f"entry {number}"
        if len(buffer) - at < size + _LONGEST_WORD:
            buffer, at = buffer[at:] + stream.read(max(_LOOKED_AT, 4 * size)), 0
        while buffer[at : at + 1] == b"\n":
            at += 1
        space = buffer.find(b" ", at, at + _LONGEST_WORD)
        start = space + 1
        if space < 0 or len(buffer) < start + size:
            raise BrokenEntryError(
                place, f"is cut short, of {count} that line 1 promises", expected=expected, mend="get the file again."
            )
        word = _word_of(buffer[at:space], place)
        vector = np.frombuffer(buffer, "<f4", width, offset=start).astype(np.float32)
        yield _checked(word, vector, place, expected)
        at = start + size


def _word_of(field: bytes, place: str) -> str:
    if not field:
        raise BrokenEntryError(place, "has no word", expected="a word, then its numbers.")
    try:
        word = field.decode()
    except UnicodeDecodeError:
        raise BrokenEntryError(
            place, f"begins with a word that is no UTF-8: {_shown(field)}", expected="UTF-8.", mend="convert the file to UTF-8."
        ) from None
    if "\n" in word:
        raise BrokenEntryError(place, "has a line break inside its word", expected="one word.")
    return word


def _checked(word: str, vector: np.ndarray, place: str, expected: str) -> Entry:
    if not np.isfinite(vector).all():
        raise BrokenEntryError(place, f"holds a number that is not finite, for the word {word[:_SHOWN]!r}", expected=expected)
    return word, vector


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return b"_" not in field  # which Python allows inside numbers


def _shown(field: bytes) -> str:
    """The beginning of some bytes, for a message."""
    text = field.strip().decode(errors="replace")
    return repr(text[:_SHOWN] + ("…" if len(text) > _SHOWN else ""))
