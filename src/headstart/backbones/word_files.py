"""Files of word vectors: read once, strictly, into a table on disk that later runs map into memory. Nothing here needs torch.

word2vec, text    "N D" in the first line, then a word and D numbers in each line; fastText's .vec files are the same
word2vec, binary  "N D" in the first line, then each word, a space, and D little-endian float32
GloVe             a word and D numbers in each line

Where there is a choice, they are read as gensim's `KeyedVectors.load_word2vec_format` reads them: of a word that stands there
twice the first vector counts. Any of them may be compressed by gzip.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from headstart import runtime
from headstart.backbones.word_lines import BrokenEntryError, read_entries
from headstart.errors import BackboneError

FORMAT = 1
"""Goes up when the same file comes to be read otherwise."""
FOLDER = "vectors"
TABLE, WORDS, FACTS = "vectors.npy", "words.txt", "vectors.json"
_ROWS_AT_ONCE = 4096
_OTHERS = {
    b"PK\x03\x04": "a zip archive; unpack it, and name the file inside",
    b"\xba\x16\x4f\x2f": "a model of fastText (.bin), not its vectors; use the .vec file that comes with it",
    b"\x93NUMPY": "an array of numpy, without words",
    b"\x80\x02": "a pickle; save it with KeyedVectors.save_word2vec_format",
    b"\x80\x03": "a pickle; save it with KeyedVectors.save_word2vec_format",
    b"\x80\x04": "a pickle; save it with KeyedVectors.save_word2vec_format",
}


@dataclass(frozen=True, kw_only=True)
class WordVectors:
    """Words and their vectors, as a file has them."""

    words: tuple[str, ...]
    """In the file's order: the most frequent first, in nearly every file that is given away."""
    vectors: np.ndarray
    """(V, D) float32, mapped from disk and read-only."""
    repeated: int
    """Entries that were left out, since their word had a vector already."""


def check_file(name: str, path: Path) -> None:
    """Make sure that there is a file that may hold word vectors, before it is read.

    Args:
        name: of the backbone, for messages.
        path: the user's.

    Raises:
        BackboneError: if there is none, or it is another kind of file.
    """
    mend = "check the path behind vectors:."
    if not path.is_file():
        seen = "is a folder" if path.is_dir() else "is not there"
        raise BackboneError(f"backbone {name!r}: {path} {seen}.", expected=_EXPECTED, mend=mend)
    try:
        with path.open("rb") as stream:
            first = stream.read(8)
    except OSError as problem:
        raise BackboneError(
            f"backbone {name!r}: {path} cannot be read: {problem.strerror}.", expected=_EXPECTED, mend=mend
        ) from (problem)
    if not first:
        raise BackboneError(f"backbone {name!r}: {path} is empty.", expected=_EXPECTED, mend=mend)
    for beginning, told in _OTHERS.items():
        if first.startswith(beginning):
            raise BackboneError(f"backbone {name!r}: {path} is {told.replace(';', '.', 1)}.", expected=_EXPECTED, mend=mend)


_EXPECTED = "a file of word vectors: word2vec (text or binary), GloVe, or fastText's .vec."


def open_word_vectors(name: str, path: Path, sha256: str) -> WordVectors:
    """Map the vectors of a file into memory; the first time it is read as a whole, and what was read is kept in the cache.

    Args:
        name: of the backbone, for messages.
        path: of the file.
        sha256: of its content.

    Returns:
        Its words and vectors.

    Raises:
        BackboneError: if a line of it is broken; the message names the line.
    """
    check_file(name, path)
    folder = runtime.cache_root() / FOLDER / hashlib.sha256(f"{FORMAT} {sha256}".encode()).hexdigest()[:32]
    found = _open_converted(folder)
    if found is not None:
        return found
    work = _work_folder(folder)
    try:
        _convert(name, path, work)
        found = _open_converted(work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    assert found is not None, "what was just written can be read"
    with contextlib.suppress(OSError):  # another process was first, and its result is as good
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        return _open_converted(folder) or found
    # What is mapped stays readable when its name is gone.
    shutil.rmtree(work, ignore_errors=True)
    return found


def clear_vectors() -> int:
    """Remove what was read of files of word vectors.

    Returns:
        Bytes freed.
    """
    folder = runtime.cache_root() / FOLDER
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return freed


def _work_folder(folder: Path) -> Path:
    """Beside its final place, so that moving it there is one step; elsewhere if the cache cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError:
        return Path(tempfile.mkdtemp(prefix="headstart-"))


def _open_converted(folder: Path) -> WordVectors | None:
    """What `_convert` wrote, if nothing of it was lost."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        content = (folder / WORDS).read_bytes()
        vectors = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
        words = tuple(content.decode().split("\n")[:-1])
        whole = vectors.shape == (facts["words"], facts["width"]) and hashlib.sha256(content).hexdigest() == facts["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole or len(words) != len(vectors):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)
    return WordVectors(words=words, vectors=vectors, repeated=int(facts["repeated"]))


def _convert(name: str, path: Path, folder: Path) -> None:
    """Write a file's words and vectors to a folder, a few thousand at a time."""
    try:
        with _opened(path) as stream, (folder / TABLE).open("wb") as table:
            words, repeated, width = _write_table(read_entries(stream), table)
    except BrokenEntryError as broken:
        raise BackboneError(
            f"backbone {name!r}: {broken.place} of {path} {broken.what}.", expected=broken.expected, mend=broken.mend
        ) from broken
    except (EOFError, gzip.BadGzipFile) as problem:
        raise BackboneError(
            f"backbone {name!r}: {path} was compressed by gzip, and is damaged: {problem}.",
            expected=_EXPECTED,
            mend="get the file again.",
        ) from problem
    content = "".join(f"{word}\n" for word in words).encode()
    (folder / WORDS).write_bytes(content)
    facts = {"words": len(words), "width": width, "repeated": repeated, "sha256": hashlib.sha256(content).hexdigest()}
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if not packed:
            yield stream
            return
        with gzip.open(stream, "rb") as unpacked:
            yield unpacked  # type: ignore[misc]


def _write_table(entries: Iterable[tuple[str, np.ndarray]], table: IO[bytes]) -> tuple[list[str], int, int]:
    """Write vectors as one array of numpy; gives the words, how many entries were left out, and the width."""
    words: dict[str, None] = {}
    rows: list[np.ndarray] = []
    repeated, width = 0, 0
    for word, vector in entries:
        if not width:
            width = len(vector)
            _write_header(table, 0, width)
        if word in words:
            repeated += 1
            continue
        words[word] = None
        rows.append(vector)
        if len(rows) == _ROWS_AT_ONCE:
            table.write(np.stack(rows).tobytes())
            rows = []
    if rows:
        table.write(np.stack(rows).tobytes())
    table.seek(0)
    _write_header(table, len(words), width)
    return list(words), repeated, width


def _write_header(table: IO[bytes], rows: int, width: int) -> None:
    """The header of an array; numpy leaves room in it for the number of rows to grow."""
    told = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(table, told)
