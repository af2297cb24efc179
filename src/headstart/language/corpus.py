"""What a language model learns from: text files, or rows with a text, or with a prompt and its completion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import DataError
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.text_items import read_text
from headstart.records import Finding

TEXTS = (".txt", ".text", ".md")
ROWS = (".jsonl", ".ndjson")
MOST_NAMED = 5
_EXPECTED = "a .txt file, a folder of text files, or a .jsonl file whose rows have a 'text', or a 'prompt' and a 'completion'."


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text to learn from."""

    id: str
    text: str
    """All that is learned; of a pair, the completion."""
    prompt: str = ""
    """What comes before the text and is given, not learned."""
    goes_on: bool = False
    """Whether the text was cut here, so that its end is no end."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents, as read."""

    documents: tuple[Document, ...]
    source: str
    """Where they came from, in words a report can show."""
    findings: tuple[Finding, ...] = ()

    @property
    def paired(self) -> bool:
        """Whether there are prompts."""
        return any(document.prompt for document in self.documents)


def read_corpus(data: Any) -> Corpus:  # noqa: ANN401 - a path, or texts in memory
    """Read a corpus.

    Args:
        data: a path; or a list of strings, or of mappings with 'text', or with 'prompt' and 'completion'.

    Returns:
        Its documents, in natural order; what was empty is left out, and a finding.

    Raises:
        DataError: if there is nothing to read, a row is no such row (lines are named), or a file is no UTF-8.
    """
    if isinstance(data, str | Path):
        return _without_empty(_read_path(Path(data)), str(data))
    if isinstance(data, Sequence):
        return _without_empty(_from_rows(enumerate(data, 1), "item"), "texts in memory")
    raise _no_corpus(f"the corpus is of type {type(data).__name__}")


def _read_path(path: Path) -> list[Document]:
    if path.is_dir():
        files = sorted(found for found in path.rglob("*") if found.is_file() and found.suffix.lower() in TEXTS)
        if not files:
            raise _no_corpus(f"the folder {path} holds no text file ({', '.join(TEXTS)})")
        return [Document(id=str(file.relative_to(path)), text=_read_file(file)) for file in files]
    if not path.is_file():
        raise _no_corpus(f"there is nothing at {path}")
    if path.suffix.lower() in TEXTS:
        return [Document(id=path.name, text=_read_file(path))]
    if path.suffix.lower() in ROWS:
        return _from_rows(_read_rows(path), "line")
    raise _no_corpus(f"{path} is no text file and no table of texts")


def _read_file(path: Path) -> str:
    """The text of a file; '' where there is none."""
    try:
        return read_text(path, name=str(path))
    except UnreadableItemError as error:
        if error.kind == "empty":
            return ""
        raise


def _read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_read_file(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError:
            yield number, None


def _from_rows(rows: Iterator[tuple[int, Any]] | enumerate[Any], unit: str) -> list[Document]:
    documents: list[Document] = []
    wrong: list[int] = []
    for number, row in rows:
        document = _document_of(row, f"{unit} {number}")
        if document is None:
            wrong.append(number)
        else:
            documents.append(document)
    if wrong:
        named = ", ".join(map(str, wrong[:MOST_NAMED])) + (", …" if len(wrong) > MOST_NAMED else "")
        raise DataError(
            f"{len(wrong)} of {len(wrong) + len(documents)} rows hold no text to learn from: {unit} {named}.",
            expected='in every row {"text": "…"}, or {"prompt": "…", "completion": "…"}.',
            mend="correct or remove these rows.",
        )
    return documents


def _document_of(row: Any, name: str) -> Document | None:  # noqa: ANN401 - any JSON value
    if isinstance(row, str):
        return Document(id=name, text=row)
    if not isinstance(row, Mapping):
        return None
    match row:
        case {"prompt": str(prompt), "completion": str(completion)}:
            return Document(id=name, text=completion, prompt=prompt)
        case {"text": str(text)}:
            return Document(id=name, text=text)
    return None


def _without_empty(documents: list[Document], source: str) -> Corpus:
    kept = tuple(document for document in documents if document.text.strip())
    empty = tuple(document.id for document in documents if not document.text.strip())
    if not kept:
        raise _no_corpus(f"{source} holds no text")
    found = Finding(
        kind="empty",
        severity="warning",
        items=empty,
        message=f"{len(empty)} of {len(documents)} documents hold no text, and are left out: {', '.join(empty[:MOST_NAMED])}.",
        mend="remove them.",
    )
    return Corpus(documents=kept, source=source, findings=(found,) if empty else ())


def _no_corpus(what: str) -> DataError:
    return DataError(f"{what}.", expected=_EXPECTED, mend="check the path; classes of texts are for the other tasks.")
