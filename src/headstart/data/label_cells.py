"""Cells of labels as any source has them → text, numbers, or tuples of these, before the task is known.

The one place that knows what arrays, tensors, indicator rows and words for a missing value are; every source goes through it.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.data.rows import ReadOptions, Row, Rows, count_of, is_missing, name_some
from headstart.errors import DataError
from headstart.records import Finding

MISSING_WORDS = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Texts that pandas reads as a missing value (its `na_values`); spelt exactly so."""

_ARRAY_PACKAGES = ("torch", "jax", "jaxlib", "tensorflow")
_BITS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_SCALARS = (str, bool, int, float)


def normalise_labels(rows: Rows, options: ReadOptions) -> Rows:
    """Make every label a text, a number, or a tuple of these; read indicator rows; find missing values written as text.

    Args:
        rows: labels as found.
        options: `label_names` names the positions of indicator rows, `label_separator` splits texts, `merge_labels` may make
            a class of a word such as NA.

    Returns:
        The same rows with plain labels; `unlabelled` is set where a text means that the label is missing.

    Raises:
        DataError: if a label is of a type that has no name, or indicator rows have no names.
    """
    cells, wrong = [], []
    for row in rows.rows:
        try:
            cells.append(_plain_cell(row.label, rows, options))
        except TypeError as error:
            cells.append(None)
            wrong.append(f"{row.place or row.id}: a {error}")
    if wrong:
        raise DataError(
            f"{count_of(len(wrong), 'item')} with a label that is neither text nor number: {name_some(wrong)}.",
            expected="a text or a number, or a flat list of these, per item.",
            mend="convert these labels to names.",
        )
    if not any(isinstance(row.label, (set, frozenset)) for row in rows.rows):  # a set has no positions
        cells = _read_indicators(cells, rows, options)
    if not rows.has_cells:
        return replace(rows, rows=tuple(replace(row, label=cell) for row, cell in zip(rows.rows, cells, strict=True)))
    return _drop_missing_words(cells, rows, options)


def plain_value(value: Any) -> Any:  # noqa: ANN401 - a table cell is of any type
    """A scalar of numpy, torch, jax or tensorflow, or an array of them, as Python's own; anything else as it is."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    package = type(value).__module__.partition(".")[0]
    if package == "tensorflow":
        return value.numpy().tolist()
    if package in _ARRAY_PACKAGES:
        return value.tolist()
    if package == "polars" and type(value).__name__ == "Series":
        return value.to_list()
    return value


def _plain_cell(label: Any, rows: Rows, options: ReadOptions) -> Any:  # noqa: ANN401 - a table cell is of any type
    label = plain_value(label)
    if isinstance(label, (set, frozenset)):
        return tuple(_plain_scalar(member) for member in sorted(label, key=str))
    if isinstance(label, (list, tuple)):
        return tuple(_plain_scalar(plain_value(member)) for member in label if not is_missing(member))
    if is_missing(label):
        return None
    scalar = _plain_scalar(label)
    if not isinstance(scalar, str):
        return scalar
    if options.label_separator is not None:
        return tuple(part.strip() for part in scalar.split(options.label_separator) if part.strip())
    return _read_written_list(scalar) if rows.has_cells else scalar


def _plain_scalar(label: Any) -> str | bool | int | float:  # noqa: ANN401 - a table cell is of any type
    match label:
        case str() | bool() | int() | float():
            return label
        case bytes():
            return label.decode("utf-8", "backslashreplace")
        case decimal.Decimal():
            return int(label) if label == label.to_integral_value() else float(label)
        case datetime.date() | datetime.time():
            return label.isoformat()
    raise TypeError(type(label).__name__)


def _read_written_list(text: str) -> Any:  # noqa: ANN401 - a text, or a tuple
    """A list as Python, JSON or numpy writes it into a cell ("['a', 'b']", "[0 1 0]"); any other text as it is."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")) or len(text) > 100_000:
        return text
    inner = text[1:-1].split()
    if len(inner) > 1 and all(part.rstrip(".") in {"0", "1"} for part in inner):
        return tuple(int(part.rstrip(".")) for part in inner)
    try:
        read = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return tuple(read) if isinstance(read, list) and all(isinstance(part, _SCALARS) for part in read) else text


def _read_indicators(cells: list[Any], rows: Rows, options: ReadOptions) -> list[Any]:
    """Rows of 0 and 1, one for each label, become the names of the labels that are 1.

    One-hot rows, which have exactly one 1 each, become one label each; others become tuples.
    """
    lists = [cell for cell in cells if isinstance(cell, tuple)]
    binary = bool(lists) and all(_is_binary(value) for cell in lists for value in cell)
    lengths = {len(cell) for cell in lists}
    repeats = any(len(set(map(float, cell))) < len(cell) for cell in lists) if binary else _repeats_numbers(lists)
    if binary and len(lengths) == 1 and max(lengths) > 1:
        return _named_indicators(cells, max(lengths), rows, options)
    if repeats:
        raise _unclear_lists(rows, lists, lengths)
    if options.label_names is not None:
        raise DataError(
            f"label_names are given, and the labels of {rows.source} are no rows of 0 and 1 of one length.",
            expected=f"a row of {len(options.label_names)} numbers 0 or 1 for each item.",
            mend="leave --label-names out.",
        )
    return cells


def _is_binary(value: Any) -> bool:  # noqa: ANN401 - a member of a list
    return value in {"0", "1", "0.0", "1.0"} if isinstance(value, str) else value in (0, 1)


def _repeats_numbers(lists: Sequence[tuple[Any, ...]]) -> bool:
    """Whether a list has a number twice, or a fraction: a row of scores or counts, and no set of labels."""
    numeric = [cell for cell in lists if cell and all(isinstance(value, (bool, int, float)) for value in cell)]
    return any(len(set(cell)) < len(cell) or any(value % 1 for value in cell) for cell in numeric)


def _named_indicators(cells: list[Any], width: int, rows: Rows, options: ReadOptions) -> list[Any]:
    names = options.label_names
    if names is None or len(names) != width or len(set(names)) < width:
        given = "no names are given" if names is None else f"{count_of(len(names), 'name')} for them are given"
        raise DataError(
            f"the labels of {rows.source} are rows of {width} numbers 0 or 1, one for each label, and {given}.",
            expected=f"{width} different names, in the order of the numbers.",
            mend="pass --label-names NAME,NAME,… (in Python: label_names=[…]); or, where each number has a column of its "
            "own, --label-columns COLUMN,COLUMN,…",
        )
    chosen = [
        None if not isinstance(cell, tuple) else tuple(name for name, value in zip(names, cell, strict=True) if float(value))
        for cell in cells
    ]
    one_hot = all(several is None or len(several) == 1 for several in chosen) and options.task in ("auto", "single")
    return [several[0] if one_hot and several else several for several in chosen]


def labels_of_columns(columns: Mapping[str, Sequence[Any]], places: Sequence[str], where: str) -> list[frozenset[str] | None]:
    """Read columns of 0 and 1, one for each label: to the names of those that are 1, and None where all are blank.

    Raises:
        DataError: if a cell is neither 0 nor 1, or only some of a row are blank; names the places.
    """
    labels: list[frozenset[str] | None] = []
    wrong = []
    for place, cells in zip(places, zip(*columns.values(), strict=True), strict=True):
        said = [_BITS.get(str(plain_value(cell)).strip().casefold()) for cell in cells]
        if None not in said:
            labels.append(frozenset(name for name, yes in zip(columns, said, strict=True) if yes))
            continue
        labels.append(None)
        if not all(map(is_missing, cells)):
            name, cell = next((n, c) for n, c, yes in zip(columns, cells, said, strict=True) if yes is None)
            wrong.append(f"{place}, column {name!r}: {str(cell)[:40]!r}")
    if wrong:
        raise DataError(
            f"{count_of(len(wrong), 'row')} of {where} with a cell of --label-columns that is neither 0 nor 1: "
            f"{name_some(wrong)}.",
            expected="0 or 1 (or false or true) in every such column.",
            mend="correct these cells, or name other columns.",
        )
    return labels


def _unclear_lists(rows: Rows, lists: Sequence[tuple[Any, ...]], lengths: set[int]) -> DataError:
    repeated = next(cell for cell in lists if _repeats_numbers([cell]) or len(set(cell)) < len(cell))
    return DataError(
        f"the labels of {rows.source} are lists of numbers that are no sets of labels, such as "
        f"{name_some([str(value) for value in repeated])}; their lengths are {name_some([str(n) for n in sorted(lengths)])}.",
        expected="lists of names, or rows of 0 and 1 of one length with --label-names.",
        mend="turn scores into names first: [[names[j] for j in np.flatnonzero(row > 0.5)] for row in labels].",
    )


def _drop_missing_words(cells: list[Any], rows: Rows, options: ReadOptions) -> Rows:
    """Treat NA, nan, null, None and the like as missing labels, and count them in a finding."""
    words = MISSING_WORDS - set(options.merge_labels or {}) - set(options.known_labels or ())
    counts: Counter[str] = Counter()
    made: list[Row] = []
    items = []
    for row, cell in zip(rows.rows, cells, strict=True):
        members = cell if isinstance(cell, tuple) else (cell,)
        found = [member.strip() for member in members if isinstance(member, str) and member.strip() in words]
        if not found:
            made.append(row if cell is row.label else replace(row, label=cell))
            continue
        counts.update(found)
        items.append(row.id)
        kept = tuple(member for member in members if not (isinstance(member, str) and member.strip() in words))
        made.append(replace(row, label=kept, unlabelled=False) if kept else replace(row, label=None, unlabelled=True))
    if not counts:
        return replace(rows, rows=tuple(made))
    told = name_some([f"{word!r} ({number:,})" for word, number in counts.most_common()])
    finding = Finding(
        kind="missing_label_text",
        severity="warning",
        items=tuple(items),
        message=f"{count_of(counts.total(), 'label')} written as a missing value: {told}. Items without another label are "
        "left out.",
        mend="give each a label; where such a word is the name of a class, say so: "
        f"--merge-labels {next(iter(counts))}=NAME (or {next(iter(counts))}={next(iter(counts))}).",
    )
    return replace(rows, rows=tuple(made), findings=(*rows.findings, finding))


def match_known(label: str, known: dict[str, str], by_number: dict[float, str]) -> str:
    """The spelling that a model has for a label: the same text, or else the one of an equal number.

    Args:
        label: as read.
        known: the model's labels, each under itself.
        by_number: the model's labels that are numbers, by their value.
    """
    if label in known or not by_number:
        return label
    number = number_of(label)
    return by_number.get(number, label) if math.isfinite(number) else label


def number_of(label: Any) -> float:  # noqa: ANN401 - a table cell is of any type
    """The number that a label is, NaN where it is none."""
    try:
        return float(label)
    except (TypeError, ValueError, OverflowError):
        return math.nan
