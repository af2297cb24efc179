"""Python objects → rows: pairs, arrays, frames, Hugging Face datasets, and datasets that were read before.

pandas, polars and datasets are known by the module their objects come from, so that none of them is imported here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.columns import choose_columns, rows_of_columns
from headstart.data.label_cells import plain_value
from headstart.data.rows import (
    OPTIONS_OF_CELLS,
    OPTIONS_OF_COLUMNS,
    SPLIT_NAMES,
    ReadOptions,
    Row,
    Rows,
    count_of,
    did_you_mean,
    ignored_options,
)
from headstart.data.tables import Table
from headstart.errors import DataError
from headstart.records import Dataset

_PAIRS_EXPECTED = "a list of (item, label) pairs, two sequences (items, labels), a frame, a datasets.Dataset, or a path."


def read_object(data: Any, options: ReadOptions) -> Rows:  # noqa: ANN401 - the door takes any type
    """Read an object in memory.

    Args:
        data: a `Dataset`; a list of (item, label); a tuple (items, labels) of two sequences or arrays of equal length; a dict
            of columns; a pandas or polars frame; a Hugging Face `Dataset` or `DatasetDict`.
        options: what the user says about it. Relative paths start at the current folder.

    Raises:
        DataError: if the object is none of these, or its parts do not fit together.
    """
    rows = _read_object(data, options)
    return replace(rows, ignored=(*rows.ignored, *ignored_options(options, ("encoding",))))


def _read_object(data: Any, options: ReadOptions) -> Rows:  # noqa: ANN401 - the door takes any type
    family = type(data).__module__.partition(".")[0]
    if isinstance(data, Dataset):
        return replace(rows_of_dataset(data), ignored=ignored_options(options, (*OPTIONS_OF_COLUMNS, *OPTIONS_OF_CELLS)))
    if family == "datasets":
        return _read_hugging_face(data, options)
    is_frame = type(data).__name__ in ("DataFrame", "LazyFrame")
    if family == "pandas" and is_frame:
        names = [str(name) for name in data.columns]
        _check_names(names, "the pandas frame")
        columns = {name: data.iloc[:, index].tolist() for index, name in enumerate(names)}
        return _read_columns(columns, options, "the pandas frame")
    if family == "polars" and is_frame:
        frame = data.collect() if type(data).__name__ == "LazyFrame" else data
        return _read_columns({name: frame[name].to_list() for name in frame.columns}, options, "the polars frame")
    if isinstance(data, Mapping):
        _check_names([str(name) for name in data], "the dict of columns")
        return _read_columns({str(name): list(values) for name, values in data.items()}, options, "the dict of columns")
    if isinstance(data, tuple) and len(data) == 2 and all(_is_sequence(part) for part in data):
        return _read_arrays(*data, options)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _read_pairs(data, options)
    raise DataError(
        f"an object of type {type(data).__module__}.{type(data).__qualname__} cannot be read as labelled data.",
        expected=_PAIRS_EXPECTED,
        mend="convert it to one of these; an array of items alone lacks labels: pass (items, labels).",
    )


def rows_of_dataset(dataset: Dataset) -> Rows:
    """Turn a dataset back into rows, so that it can be joined with another source or have labels merged."""
    rows = [
        Row(
            id=sample.id,
            item=sample.item,
            label={"value": sample.value, "multi": sample.labels}.get(
                dataset.task, sample.labels[0] if sample.labels else None
            ),
            group=sample.group,
            split=sample.split,
            place=sample.id,
        )
        for sample in dataset.samples
    ]
    return Rows(rows=tuple(rows), modality=dataset.modality, source=dataset.source)


def _check_names(names: Sequence[str], source: str) -> None:
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise DataError(
            f"{source} has {count_of(len(twice), 'column name')} more than once: {', '.join(map(repr, twice[:10]))}.",
            expected="a name of its own for every column.",
            mend="rename or drop the others, as in frame.loc[:, ~frame.columns.duplicated()].",
        )


def _is_sequence(part: object) -> bool:
    if type(part).__module__.partition(".")[0] in ("torch", "jax", "jaxlib", "tensorflow"):
        return bool(getattr(part, "ndim", 0))
    if isinstance(part, np.ndarray):
        return part.ndim > 0
    is_series = type(part).__module__.partition(".")[0] in ("pandas", "polars") and type(part).__name__ == "Series"
    return is_series or (isinstance(part, Sequence) and not isinstance(part, (str, bytes)))


def _read_pairs(pairs: Sequence[Any], options: ReadOptions) -> Rows:
    wrong = [index for index, pair in enumerate(pairs) if not isinstance(pair, (tuple, list)) or len(pair) != 2]
    if wrong or not pairs:
        what = f"entry {wrong[0]} is a {type(pairs[wrong[0]]).__name__}, no pair" if wrong else "it has no entries"
        raise DataError(
            f"the {type(pairs).__name__} cannot be read as labelled data: {what}.",
            expected="(item, label) in every entry.",
            mend="zip items and labels: list(zip(items, labels)).",
        )
    return _read_items([item for item, _ in pairs], [label for _, label in pairs], options, "a list of pairs")


def _read_arrays(items: Any, labels: Any, options: ReadOptions) -> Rows:  # noqa: ANN401 - arrays, series, lists
    if len(items) != len(labels):
        raise DataError(
            f"{count_of(len(items), 'item')} and {count_of(len(labels), 'label')} do not pair up.",
            expected="as many labels as items, in the same order.",
            mend="pass (items, labels) of equal length.",
        )
    if isinstance(labels, np.ndarray) and labels.ndim > 2:
        raise DataError(
            f"the array of labels has the shape {labels.shape}.",
            expected="one label per item, shape (N,); or a row of 0 and 1 per item, shape (N, K), with label_names.",
            mend="reshape it, or turn it into names.",
        )
    return _read_items(_plain_list(items), list(plain_value(labels)), options, "two arrays")


def _plain_list(values: Any) -> list[Any]:  # noqa: ANN401 - arrays, series, lists
    """A list whose members are Python's own where they are scalars; rows of an array stay arrays."""
    return values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else list(values)


def _read_items(items: list[Any], labels: list[Any], options: ReadOptions, source: str) -> Rows:
    ignored = ignored_options(options, OPTIONS_OF_COLUMNS)
    plain = replace(options, item_column="item", label_column="label", group_column=None, split_column=None, label_columns=None)
    rows = _read_columns({"item": items, "label": labels}, plain, source)
    # Here a label is an object of its own: text with a '|' in it is one label, a list is several.
    return replace(rows, splits_text=False, ignored=ignored)


def _read_columns(columns: dict[str, list[Any]], options: ReadOptions, source: str) -> Rows:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or not max(lengths):
        told = "no columns" if not lengths else "no rows" if lengths == {0} else "columns of different lengths"
        raise DataError(
            f"{source} has {told}.", expected="columns of equal length with a row per item.", mend="pass a frame that has rows."
        )
    (length,) = lengths
    chosen = choose_columns(list(columns), options, where=source)
    table = Table(columns=columns, places=[f"row {index}" for index in range(length)])
    return rows_of_columns(table, chosen, options, folder=Path.cwd(), where=source)


def _read_hugging_face(data: Any, options: ReadOptions) -> Rows:  # noqa: ANN401 - datasets is not imported here
    if isinstance(data, dict):
        return _read_splits(data, options)
    if type(data).__name__ != "Dataset":
        raise DataError(
            f"a datasets.{type(data).__name__} cannot be read: its length is not known.",
            expected="a datasets.Dataset or DatasetDict.",
            mend="load it without streaming=True, or make one with Dataset.from_generator.",
        )
    source = f"the Hugging Face dataset {data.info.dataset_name or ''}".rstrip()
    chosen = choose_columns(data.column_names, options, where=source)
    columns = {}
    for name in chosen.wanted:
        feature = data.features[name]
        if type(feature).__name__ in ("Image", "Audio"):
            # Undecoded it is {'bytes': …, 'path': …}: nothing is decoded twice, and a file stays the path it is.
            data = data.cast_column(name, type(feature)(decode=False))
        columns[name] = _name_classes(feature, list(data[name]))
    table = Table(columns=columns, places=[f"row {index}" for index in range(len(data))])
    return rows_of_columns(table, chosen, options, folder=Path.cwd(), where=source)


def _name_classes(feature: Any, values: list[Any]) -> list[Any]:  # noqa: ANN401 - datasets is not imported here
    """Give a ClassLabel column, or a list of ClassLabel, its names; -1 is Hugging Face's 'no label'."""
    inner: Any = getattr(feature, "feature", None)
    if type(feature).__name__ == "ClassLabel":
        return [None if value is None or value < 0 else feature.names[value] for value in values]
    if type(inner).__name__ == "ClassLabel":
        return [None if several is None else [inner.names[value] for value in several] for several in values]
    return values


def _read_splits(splits: Mapping[str, Any], options: ReadOptions) -> Rows:
    unknown = [name for name in splits if name.casefold() not in SPLIT_NAMES]
    if unknown or not splits:
        nearest = did_you_mean(unknown[0], SPLIT_NAMES) if unknown else ""
        told = f"has the unknown split {unknown[0]!r}" if unknown else "has no splits"
        raise DataError(
            f"the DatasetDict {told}.{nearest}",
            expected=f"splits named {', '.join(SPLIT_NAMES)}.",
            mend="pass the one to use, as in data['train'], or rename them.",
        )
    parts = [(SPLIT_NAMES[name.casefold()], _read_hugging_face(part, options)) for name, part in splits.items()]
    rows = tuple(replace(row, id=f"{split}/{row.id}", split=split) for split, part in parts for row in part.rows)
    first = parts[0][1]
    return replace(first, rows=rows, findings=tuple(finding for _, part in parts for finding in part.findings))
