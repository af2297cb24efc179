"""CSV, TSV and JSONL by the standard library, Parquet by pyarrow: a file in, named columns out.

Every reader takes `choose`, a function from the names of all columns to the names wanted, so that unwanted ones are never kept.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from headstart.data.rows import count_of, name_some
from headstart.errors import DataError, MissingPackageError

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})

DELIMITERS = (",", ";", "\t")
"""What a .csv file may use; the one that splits the header into most names wins, the comma on a tie."""

Choose = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns of equal length."""

    columns: dict[str, list[Any]]
    places: Sequence[str]
    """Where each row is found, as in 'line 12'."""


def read_table(path: Path, choose: Choose) -> Table:
    """Read a table file by its suffix.

    Args:
        path: a file with one of TABLE_SUFFIXES.
        choose: gets the names of all columns, returns those wanted.

    Raises:
        DataError: if the file is empty, has no rows, or cannot be read; names the line.
        MissingPackageError: if it is Parquet and pyarrow is not installed.
    """
    suffix = path.suffix.casefold()
    if path.stat().st_size == 0:
        raise _unreadable(path, "the file is empty", "a header with column names and a row per item")
    try:
        if suffix == ".parquet":
            table = _read_parquet(path, choose)
        elif suffix in (".jsonl", ".ndjson"):
            table = _read_json_lines(path, choose)
        else:
            table = _read_delimited(path, choose, is_tsv=suffix == ".tsv")
    except UnicodeDecodeError as error:
        raise _undecodable(path, error) from error
    except OSError as error:
        raise _unreadable(path, str(error.strerror or error), "a file that this user may read") from error
    if not table.places:
        raise _unreadable(path, "it has a header but no rows", "a row per item below the header")
    return table


def _read_delimited(path: Path, choose: Choose, *, is_tsv: bool) -> Table:
    delimiter = "\t" if is_tsv else _find_delimiter(path)
    try:
        return _read_csv(path, choose, delimiter, csv.QUOTE_MINIMAL)
    except DataError:
        # Many TSV files hold quotes as plain characters; one that is in order that way is taken that way.
        if not is_tsv:
            raise
        try:
            return _read_csv(path, choose, delimiter, csv.QUOTE_NONE)
        except DataError as error:
            without_quotes = error
    raise without_quotes


def _read_csv(path: Path, choose: Choose, delimiter: str, quoting: int) -> Table:
    with _open_text(path) as file, _unlimited_fields():
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
        records = _records(path, reader)
        _, header = next(records, (1, []))
        names = [name.strip() for name in header]
        _check_header(path, names)
        wanted = [(name, names.index(name)) for name in choose(names)]
        columns: dict[str, list[Any]] = {name: [] for name, _ in wanted}
        places, ragged = [], []
        for line, record in records:
            if len(record) < len(names) or any(record[len(names) :]):
                ragged.append(f"line {line} has {len(record)}")
                continue
            for name, index in wanted:
                columns[name].append(record[index])
            places.append(f"line {line}")
    if ragged:
        raise DataError(
            f"{count_of(len(ragged), 'row')} of {str(path)!r} with the wrong number of fields: {name_some(ragged)}.",
            expected=f"{len(names)} fields in every row, as in the header: {name_some(names)}.",
            mend='correct these lines; a field that holds the delimiter or a line break must stand in double quotes: "a, b".',
        )
    return Table(columns=columns, places=places)


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:  # noqa: ANN401 - csv names no type for its reader
    """Yield each record that is not blank with the line it begins on."""
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _unreadable(
                path,
                f"the record that begins on line {line} cannot be read: {error}",
                "every opening double quote to be closed",
            ) from error
        if record and any(record):
            yield line, record


def _find_delimiter(path: Path) -> str:
    fields = {}
    for delimiter in DELIMITERS:
        with _open_text(path) as file, _unlimited_fields():
            try:
                fields[delimiter] = len(next(csv.reader(file, delimiter=delimiter), []))
            except csv.Error:
                fields[delimiter] = 0
    return max(fields, key=lambda delimiter: fields[delimiter])


def _check_header(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise _unreadable(path, f"the header has the column {twice[0]!r} more than once", "a name of its own for every column")
    if not any(names):
        raise _unreadable(path, "its first line names no column", "a header with column names, such as path,label")


def _read_json_lines(path: Path, choose: Choose) -> Table:
    records, places = [], []
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise _unreadable(path, f"line {number} is no JSON: {error}", "one JSON object per line") from error
            if not isinstance(record, dict):
                raise _unreadable(path, f"line {number} is a {type(record).__name__}, no object", "one JSON object per line")
            records.append(record)
            places.append(f"line {number}")
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names:
        return Table(columns={}, places=())
    return Table(columns={name: [record.get(name) for record in records] for name in choose(names)}, places=places)


def _read_parquet(path: Path, choose: Choose) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackageError("pyarrow", purpose="reading Parquet files") from error
    try:
        schema = pq.read_schema(path)
        wanted = list(choose(schema.names))
        table = pq.read_table(path, columns=wanted)
    except (pa.ArrowException, OSError) as error:
        told = str(error).splitlines()[0]
        raise _unreadable(path, f"it is no Parquet file that can be read: {told}", "a whole Parquet file") from error
    class_names = _class_names(schema.metadata or {})
    columns = {}
    for name in wanted:
        values = table.column(name).to_pylist()
        if name in class_names:
            values = [_name_classes(value, class_names[name]) for value in values]
        columns[name] = values
    return Table(columns=columns, places=[f"row {index}" for index in range(table.num_rows)])


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The class names Hugging Face `datasets` writes beside integer columns into a Parquet file, by column."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: spec["names"] for name, spec in features.items() if spec.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _name_classes(value: int | None, names: list[str]) -> str | None:
    return None if value is None or value < 0 else names[value]


def _open_text(path: Path) -> TextIO:
    with path.open("rb") as file:
        has_utf16_mark = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    return path.open(encoding="utf-16" if has_utf16_mark else "utf-8-sig", newline="")


@contextmanager
def _unlimited_fields() -> Iterator[None]:
    """Lift csv's limit of 131,072 characters a field, which is the process's, and put it back."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _undecodable(path: Path, error: UnicodeDecodeError) -> DataError:
    place, byte = "it", error.object[error.start]
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as here:
                place, byte = f"line {number}", raw[here.start]
                break
    return _unreadable(
        path,
        f"{place} holds the byte 0x{byte:02x}, which is not UTF-8",
        "text in UTF-8",
        mend="save it as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW",
    )


def _unreadable(path: Path, what: str, expected: str, *, mend: str = "correct the file, or write it anew.") -> DataError:
    return DataError(f"the table {str(path)!r} cannot be used: {what}.", expected=f"{expected}.", mend=mend)
