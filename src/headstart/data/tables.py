"""CSV, TSV and JSONL by the standard library, Parquet by pyarrow: a file in, named columns out.

Every reader takes `choose`, a function from the names of all columns to the names wanted, so that unwanted ones are never kept.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from headstart.data.rows import count_of, name_some
from headstart.encodings import guess_encoding
from headstart.errors import DataError, MissingPackageError
from headstart.records import Finding

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})

MAX_FIELD = 20_000_000
"""Characters of one field of a CSV or TSV file: several long books."""

MIN_UNPACKED, MAX_EXPANSION = 1_000_000_000, 200
"""A Parquet file is refused whose columns unpack to more than these bytes, and to more than so many times the file."""

_ROWS_AT_ONCE = 4_096
_NUM_GUESSED_FROM = 200_000

DELIMITERS = (",", ";", "\t")
"""What a .csv file may use; the one that splits the header into most names wins, the comma on a tie."""

Choose = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns of equal length."""

    columns: dict[str, list[Any]]
    places: Sequence[str]
    """Where each row is found, as in 'line 12'."""
    findings: tuple[Finding, ...] = ()


def read_table(path: Path, choose: Choose, *, encoding: str | None = None) -> Table:
    """Read a table file by its suffix.

    Args:
        path: a file with one of TABLE_SUFFIXES.
        choose: gets the names of all columns, returns those wanted.
        encoding: of a text file; None for UTF-8, or UTF-16 with a byte order mark.

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
            table = _read_json_lines(path, choose, encoding)
        else:
            table = _read_delimited(path, choose, encoding, is_tsv=suffix == ".tsv")
    except UnicodeError as error:
        raise _undecodable(path, error, encoding) from error
    except OSError as error:
        raise _unreadable(path, str(error.strerror or error), "a file that this user may read") from error
    if not table.places:
        raise _unreadable(path, "it has a header but no rows", "a row per item below the header")
    return table


def _read_delimited(path: Path, choose: Choose, encoding: str | None, *, is_tsv: bool) -> Table:
    if not is_tsv:
        return _read_csv(path, choose, _find_delimiter(path, encoding), csv.QUOTE_MINIMAL, encoding)[0]
    # Many TSV files hold quotes as plain characters; one that has a row on every line that way is read that way.
    try:
        table, joined = _read_csv(path, choose, "\t", csv.QUOTE_MINIMAL, encoding)
    except DataError:
        return _read_csv(path, choose, "\t", csv.QUOTE_NONE, encoding)[0]
    if not joined:
        return table
    try:
        by_line, _ = _read_csv(path, choose, "\t", csv.QUOTE_NONE, encoding)
    except DataError:
        return table
    finding = Finding(
        kind="quotes_across_rows",
        severity="warning",
        items=(),
        message=f"double quotes in {path.name!r} would join rows: {name_some(joined)}. As every line is a whole row without "
        "them, they are read as plain characters.",
        mend="nothing, if each line is a row; else replace the tabs or line breaks inside of quoted fields.",
    )
    return replace(by_line, findings=(finding,))


def _read_csv(path: Path, choose: Choose, delimiter: str, quoting: int, encoding: str | None) -> tuple[Table, list[str]]:
    """The table, and which rows are written on several lines."""
    with _open_text(path, encoding) as file, _bounded_fields():
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
        records = _records(path, reader)
        _, header = next(records, (1, []))
        names = [name.strip() for name in header]
        _check_header(path, names)
        index_of = {name: index for index, name in reversed(list(enumerate(names)))}
        wanted = [(name, index_of[name]) for name in choose(names)]
        columns: dict[str, list[Any]] = {name: [] for name, _ in wanted}
        places, ragged, joined = [], [], []
        for line, record in records:
            if reader.line_num > line:
                joined.append(f"lines {line} to {reader.line_num}")
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
    return Table(columns=columns, places=places), joined


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
                f"every opening double quote to be closed, and fields of at most {MAX_FIELD:,} characters",
            ) from error
        if record and any(record):
            yield line, record


def _find_delimiter(path: Path, encoding: str | None) -> str:
    fields = {}
    for delimiter in DELIMITERS:
        with _open_text(path, encoding) as file, _bounded_fields():
            try:
                fields[delimiter] = len(next(csv.reader(file, delimiter=delimiter), []))
            except csv.Error:
                fields[delimiter] = 0
    return max(fields, key=lambda delimiter: fields[delimiter])


def _check_header(path: Path, names: list[str]) -> None:
    twice = sorted(name for name, number in Counter(names).items() if number > 1 and name)
    if twice:
        raise _unreadable(path, f"the header has the column {twice[0]!r} more than once", "a name of its own for every column")
    if not any(names):
        raise _unreadable(path, "its first line names no column", "a header with column names, such as path,label")


def _read_json_lines(path: Path, choose: Choose, encoding: str | None) -> Table:
    records, places = [], []
    with _open_text(path, encoding) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:  # numbers of too many digits and deep nesting among them
                raise _unreadable(
                    path, f"line {number} is no JSON that can be read: {_json_fault(error)}", "one JSON object per line"
                ) from error
            if not isinstance(record, dict):
                raise _unreadable(path, f"line {number} is a {type(record).__name__}, no object", "one JSON object per line")
            records.append(record)
            places.append(f"line {number}")
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names:
        return Table(columns={}, places=())
    return Table(columns={name: [record.get(name) for record in records] for name in choose(names)}, places=places)


def _json_fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return str(error)
    return f"it has a whole number of more than {sys.get_int_max_str_digits():,} digits"


def _read_parquet(path: Path, choose: Choose) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackageError("pyarrow", purpose="reading Parquet files") from error
    try:
        file = pq.ParquetFile(path)
        schema, metadata = file.schema_arrow, file.metadata
        wanted = list(choose(schema.names))
        _check_unpacked_size(path, metadata, wanted)
        file = pq.ParquetFile(path, metadata=metadata, read_dictionary=_dictionary_columns(metadata))
        parts, num_bytes = [], 0
        for part in file.iter_batches(columns=wanted, batch_size=_ROWS_AT_ONCE):
            num_bytes += sum(map(_unpacked_bytes, part.columns))
            _refuse_size(path, num_bytes)
            parts.append(part)
        columns = {name: [value for part in parts for value in part.column(name).to_pylist()] for name in wanted}
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError, KeyError) as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unreadable(
            path,
            f"it cannot be read as Parquet: {told}",
            "a whole Parquet file, of values that Python has (dates from the year 1 to 9999, for example)",
        ) from error
    class_names = _class_names(schema.metadata or {})
    for name in wanted:
        if name in class_names:
            columns[name] = [_name_class(value, class_names[name], path, name) for value in columns[name]]
    return Table(columns=columns, places=[f"row {index}" for index in range(sum(part.num_rows for part in parts))])


def _check_unpacked_size(path: Path, metadata: Any, wanted: Sequence[str]) -> None:  # noqa: ANN401 - pyarrow's own type
    """Refuse a file whose wanted columns unpack to far more than the file has, before anything is unpacked."""
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if column.path_in_schema.partition(".")[0] in set(wanted) or column.path_in_schema in set(wanted):
                total += column.total_uncompressed_size
    _refuse_size(path, total)


def _dictionary_columns(metadata: Any) -> list[str]:  # noqa: ANN401 - pyarrow's own type
    """Columns of texts and bytes that a dictionary is stored for: a few bytes may stand for millions in each row."""
    found: dict[str, None] = {}
    for index in range(metadata.num_columns):
        column = metadata.schema.column(index)
        chunks = (metadata.row_group(group).column(index) for group in range(metadata.num_row_groups))
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type != "DECIMAL":
            found |= {each.path_in_schema: None for each in chunks if each.has_dictionary_page}
    return list(found)


def _unpacked_bytes(array: Any) -> int:  # noqa: ANN401 - pyarrow's own type
    """The bytes of an array once each of its values is on its own, those of a dictionary included."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(array.type):
        return sum(map(_unpacked_bytes, array.flatten()))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _unpacked_bytes(array.flatten())
    if not pa.types.is_dictionary(array.type) or not len(array):
        return int(array.nbytes)
    lengths = pc.cast(pc.binary_length(array.dictionary), pa.int64())
    return int(array.indices.nbytes) + int(pc.sum(lengths.take(array.indices)).as_py() or 0)


def _refuse_size(path: Path, num_bytes: int) -> None:
    size = path.stat().st_size
    if num_bytes > MIN_UNPACKED and num_bytes > MAX_EXPANSION * size:
        raise _unreadable(
            path,
            f"its {size:,} bytes unpack to {num_bytes:,} or more",
            f"columns that unpack to at most {MAX_EXPANSION} times the file, or {MIN_UNPACKED:,} bytes",
            mend="write it anew with the columns that are needed, or without compression.",
        )


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The class names Hugging Face `datasets` writes beside integer columns into a Parquet file, by column."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        members = {name: _member(spec) for name, spec in features.items()}
        found = {name: spec["names"] for name, spec in members.items() if spec.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if isinstance(names, list) and all(isinstance(n, str) for n in names)}


def _member(spec: Any) -> Any:  # noqa: ANN401 - as JSON has it
    """The feature that a list is of, in any of the spellings that `datasets` has had; any other feature as it is."""
    if isinstance(spec, list) and len(spec) == 1:
        return spec[0]
    return spec["feature"] if spec.get("_type") in ("Sequence", "List", "LargeList") else spec


def _name_class(value: Any, names: list[str], path: Path, column: str) -> Any:  # noqa: ANN401 - a table cell
    if isinstance(value, list):
        return [_name_class(member, names, path, column) for member in value]
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, int) or value >= len(names):
        raise _unreadable(
            path,
            f"the column {column!r} has the class {str(value)[:40]}, and the file names {count_of(len(names), 'class')}",
            f"class numbers from 0 to {len(names) - 1}",
        )
    return None if value < 0 else names[value]


def _open_text(path: Path, encoding: str | None) -> TextIO:
    if encoding is not None:
        return path.open(encoding=encoding, newline="")
    with path.open("rb") as file:
        has_utf16_mark = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    return path.open(encoding="utf-16" if has_utf16_mark else "utf-8-sig", newline="")


@contextmanager
def _bounded_fields() -> Iterator[None]:
    """Lift csv's limit of 131,072 characters a field, which is the process's, to MAX_FIELD, and put it back."""
    before = csv.field_size_limit(MAX_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _undecodable(path: Path, error: UnicodeError, encoding: str | None) -> DataError:
    name = encoding or "UTF-8"
    place, byte = "it", b""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                raw.decode(name)
            except UnicodeDecodeError as here:
                place, byte = f"line {number}", raw[here.start : here.start + 1]
                break
    with path.open("rb") as file:
        guess = guess_encoding(file.read(_NUM_GUESSED_FROM))
    told = f"the byte 0x{byte.hex()}, which is not {name}" if byte else f"bytes that are not {name} ({error})"
    looks = f"; it looks like {guess}" if guess else ""
    return _unreadable(
        path,
        f"{place} holds {told}{looks}",
        f"text in {name}",
        mend=f"pass --encoding {guess or 'NAME'} (in Python: encoding={guess or 'NAME'!r}) and look at the labels it gives, "
        f"or save the file as UTF-8: iconv -f {(guess or 'NAME').upper()} -t UTF-8 OLD > NEW",
    )


def _unreadable(path: Path, what: str, expected: str, *, mend: str = "correct the file, or write it anew.") -> DataError:
    return DataError(f"the table {str(path)!r} cannot be used: {what}.", expected=f"{expected}.", mend=mend)
