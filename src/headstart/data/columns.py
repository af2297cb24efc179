"""Named columns (of a table, a frame, a Hugging Face dataset) → rows: which column is what, and which strings are paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from headstart.data.file_names import name_files, tell_names_of_files
from headstart.data.label_cells import labels_of_columns
from headstart.data.layout import tell_blank, tell_missing
from headstart.data.modality import choose_modality, modality_of_name, modality_of_value
from headstart.data.rows import (
    ReadOptions,
    Row,
    Rows,
    clean_text,
    count_of,
    did_you_mean,
    ignored_options,
    is_missing,
    name_some,
    path_ids,
    row_id,
    split_name,
)
from headstart.data.tables import Table, read_table
from headstart.errors import DataError
from headstart.records import Finding, Modality

PATH_NAMES = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "audio",
    "audio_path",
    "image_id",
    "image_name",
    "id_code",
)
ITEM_NAMES = (*PATH_NAMES, "item", "text", "sentence", "content")
LABEL_NAMES = ("label", "class", "target", "category", "y", "labels", "value")
GROUP_NAMES = ("group",)
SPLIT_COLUMN_NAMES = ("split",)

MIN_PATH_SHARE = 0.9
"""From this share of strings that end like file names on, a column that is not named for paths holds paths."""

_NUM_LOOKED_AT = 1000
_MAX_PATH = 4096


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column is what."""

    item: str
    label: str
    """The column of labels; empty where `labels` names several."""
    labels: tuple[str, ...] = ()
    """Columns of 0 and 1, one for each label."""
    group: str | None = None
    split: str | None = None

    @property
    def wanted(self) -> list[str]:
        """The names of all columns to read, each once."""
        return list(dict.fromkeys(name for name in (self.item, self.label, *self.labels, self.group, self.split) if name))


def choose_columns(names: Sequence[str], options: ReadOptions, *, where: str) -> Columns:
    """Choose the columns by the options, else by their usual names (case aside), first come first served.

    Where a table has two columns and one is found, the other one is the other.

    Args:
        names: of all columns.
        options: of which the four column names are used.
        where: the table, for messages.

    Raises:
        DataError: if a named column is not there, or no column can be taken for the items or for the labels.
    """
    missing = [
        f"--{kind}-column {name!r}{did_you_mean(name, names)}"
        for kind, name in (
            ("item", options.item_column),
            ("label", options.label_column),
            ("group", options.group_column),
            ("split", options.split_column),
        )
        if name is not None and name not in names
    ]
    missing += [f"--label-columns {n!r}{did_you_mean(n, names)}" for n in options.label_columns or () if n not in set(names)]
    if missing:
        raise DataError(
            f"{where} has no column as named by {'; '.join(missing)}.",
            expected=f"one of its columns: {name_some(list(names), 30)}.",
            mend="correct the spelling of the option.",
        )
    several = options.label_columns or ()
    label = options.label_column or _first_usual(names, LABEL_NAMES, options.item_column)
    if several:
        label = ""
        names = [name for name in names if name not in set(several)]
    item = options.item_column or _first_usual(names, ITEM_NAMES, label)
    if several and item is None and len(names) == 1:
        item = names[0]
    if len(names) == 2 and not several:
        item = item or next((name for name in names if label is not None and name != label), None)
        label = label or next((name for name in names if item is not None and name != item), None)
    if item is None or label is None:
        kind, usual = ("item", ITEM_NAMES) if item is None else ("label", LABEL_NAMES)
        raise _no_usual_column(kind, usual, names, where)
    if item == label or item in several:
        raise DataError(
            f"the column {item!r} of {where} is named for both the items and the labels.",
            expected="two columns, one of each.",
            mend="correct --item-column or --label-column.",
        )
    taken = {item, label}
    return Columns(
        item=item,
        label=label,
        labels=several,
        group=options.group_column or _first_usual([name for name in names if name not in taken], GROUP_NAMES, None),
        split=options.split_column or _first_usual([name for name in names if name not in taken], SPLIT_COLUMN_NAMES, None),
    )


def choose_item_column(names: Sequence[str], wanted: str | None, *, where: str) -> str:
    """Choose the column of items where no labels are asked for: as named, by its usual name, or the only one.

    Args:
        names: of all columns.
        wanted: what the user named, if anything.
        where: the table, for messages.

    Raises:
        DataError: if the named column is not there, or none can be taken.
    """
    if wanted is not None and wanted not in names:
        raise DataError(
            f"{where} has no column as named by --item-column {wanted!r}{did_you_mean(wanted, names)}.",
            expected=f"one of its columns: {name_some(list(names), 30)}.",
            mend="correct the spelling of the option.",
        )
    found = wanted or _first_usual(names, ITEM_NAMES, None) or (names[0] if len(names) == 1 else None)
    if found is None:
        raise _no_usual_column("item", ITEM_NAMES, names, where)
    return found


def find_items(cells: Sequence[Any], column: str, modality: Modality, *, folder: Path, where: str) -> list[Any]:
    """What the cells of a column stand for: paths below `folder`, or the items themselves; None for a blank one.

    Raises:
        DataError: if they are of another modality, or of several.
    """
    items = [_unwrap(cell) for cell in cells]
    items = (name_files(items, folder) or items) if modality != "text" else items
    _, are_paths = _find_kind(items, column, modality, where)
    return [_resolve(item, folder) if are_paths and isinstance(item, (str, PurePath)) else item for item in items]


def _no_usual_column(kind: str, usual: Sequence[str], names: Sequence[str], where: str) -> DataError:
    return DataError(
        f"{where} has no column that is known to hold the {kind}s; its columns are {name_some(list(names), 30)}.",
        expected=f"a column named {', '.join(usual[:-1])} or {usual[-1]}.",
        mend=f"pass --{kind}-column NAME (in Python: {kind}_column=NAME) with one of its columns"
        + (", or --label-columns NAME,NAME,… where each label has a column of 0 and 1." if kind == "label" else "."),
    )


def read_table_rows(path: Path, options: ReadOptions) -> Rows:
    """Read a table file into rows; relative paths in it start at its folder.

    Raises:
        DataError: if the table cannot be read, lacks a column, or none of its items exists.
    """
    where = f"the table {str(path)!r}"
    chosen: list[Columns] = []

    def choose(names: Sequence[str]) -> list[str]:
        chosen.append(choose_columns(names, options, where=where))
        return chosen[-1].wanted

    table = read_table(path, choose, encoding=options.encoding)
    rows = rows_of_columns(table, chosen[-1], options, folder=path.parent, where=where)
    is_text = path.suffix.casefold() != ".parquet"
    return replace(rows, ignored=() if is_text else ignored_options(options, ("encoding",)))


def rows_of_columns(table: Table, columns: Columns, options: ReadOptions, *, folder: Path, where: str) -> Rows:
    """Turn columns into rows: strings that are paths become `Path`s below `folder`, and missing files findings.

    Raises:
        DataError: if no item is there, or items are of mixed or unknown kinds.
    """
    folder = options.item_root or folder
    items = [_unwrap(item) for item in table.columns[columns.item]]
    labels = _labels(table, columns, options, where)
    blank = [f"{row_id(index)} ({table.places[index]})" for index, item in enumerate(items) if item is None]
    if len(blank) == len(items):
        raise DataError(
            f"the column {columns.item!r} of {where} is empty in every row.",
            expected="a path or a text in each row.",
            mend="fill the column, or name another one with --item-column.",
        )
    named = name_files(items, folder) if options.modality != "text" else None
    hints = [] if named is not None else tell_names_of_files(items, folder)
    items = items if named is None else named
    try:
        modality, are_paths = _find_kind(items, columns.item, options.modality, where)
    except DataError as error:
        raise (_elsewhere(hints[0], where) if hints else error) from None
    paths = {
        index: _resolve(item, folder)
        for index, item in enumerate(items)
        if are_paths and item is not None and isinstance(item, (str, PurePath))
    }
    names = path_ids(paths.values(), folder)
    rows, missing = [], []
    for index, item in enumerate(items):
        if item is None:
            continue
        path = paths.get(index)
        if path is not None and not path.is_file():
            missing.append(index)
            continue
        rows.append(
            Row(
                id=row_id(index) if path is None else names[path],
                item=item if path is None else path,
                label=labels[index],
                group=_group(table, columns.group, index),
                split=None
                if columns.split is None
                else split_name(table.columns[columns.split][index], f"{table.places[index]}, column {columns.split!r}"),
                place=table.places[index],
            )
        )
    if not rows and hints:
        raise _elsewhere(hints[0], where)
    if not rows:
        typed = [clean_text(str(items[index])) for index in missing]
        raise DataError(
            f"none of the {count_of(len(missing), 'item')} that {where} names exists: {name_some(typed)}.",
            expected=f"paths to files, absolute or relative to {str(folder)!r}.",
            mend="correct the paths or move the files there; if the column holds texts, pass --modality text.",
        )
    return Rows(
        rows=tuple(rows),
        modality=modality,
        source=where,
        splits_text=not columns.labels and options.label_separator is None,
        has_cells=True,
        findings=(*table.findings, *tell_blank(blank), *tell_missing([names[paths[index]] for index in missing]), *hints),
    )


def _elsewhere(hint: Finding, where: str) -> DataError:
    return DataError(
        f"none of the items that {where} names is where it is looked for; {hint.message.partition('. ')[0]}.",
        expected="paths that are absolute or start at the table's folder.",
        mend=hint.mend,
    )


def _labels(table: Table, columns: Columns, options: ReadOptions, where: str) -> list[Any]:
    """The labels as found; where each has a column of its own and every item has exactly one, that one."""
    if not columns.labels:
        return table.columns[columns.label]
    sets = labels_of_columns({name: table.columns[name] for name in columns.labels}, table.places, where)
    one_hot = options.task in ("auto", "single") and all(several is None or len(several) == 1 for several in sets)
    return [next(iter(several)) if one_hot and several else several for several in sets]


def _first_usual(names: Sequence[str], usual: Sequence[str], taken: str | None) -> str | None:
    by_folded = {name.strip().casefold(): name for name in reversed(names) if name != taken}
    return next((by_folded[name] for name in usual if name in by_folded), None)


def _unwrap(item: Any) -> Any:  # noqa: ANN401 - a table cell is of any type
    """Take the bytes or the path out of the {'bytes': …, 'path': …} that Hugging Face writes; blank becomes None."""
    if isinstance(item, dict) and item.keys() <= {"bytes", "path"}:
        item = item.get("bytes") or item.get("path")
    return None if is_missing(item) else item


def _find_kind(items: Sequence[Any], column: str, requested: str, where: str) -> tuple[Modality, bool]:
    """Find the modality of a column of items, and whether its strings are paths."""
    strings = [item for item in items if isinstance(item, str)]
    others = [item for item in items if item is not None and not isinstance(item, str)]
    names = [str(item) for item in others if isinstance(item, PurePath)]
    if strings and (requested in ("image", "audio") or _look_like_paths(strings, column, requested)):
        names += strings
        strings = []
    if names:
        return choose_modality(names, requested, where=where), True
    kinds = {modality_of_value(item) for item in others} | ({"text"} if strings else set())
    if len(kinds) != 1 or None in kinds:
        types = sorted({type(item).__name__ for item in items if item is not None})
        raise DataError(
            f"the items of {where} are of types that do not make one modality: {', '.join(types)}.",
            expected="all paths, all texts, all images (bytes, PIL images, arrays (H, W[, C]) or (F, H, W, C)) or all sounds.",
            mend="convert the items to one of these.",
        )
    (kind,) = kinds
    # Encoded bytes are told apart by their first bytes only: the user knows better.
    return (requested if requested != "auto" and kind != "text" else kind), False  # type: ignore[return-value]


def _look_like_paths(strings: Sequence[str], column: str, requested: str) -> bool:
    looked_at = strings[:_NUM_LOOKED_AT]
    like_paths = sum(
        len(text) < _MAX_PATH and "\n" not in text and modality_of_name(text.strip()) is not None for text in looked_at
    )
    if column.strip().casefold() in PATH_NAMES:
        return requested != "text" or like_paths > 0
    return like_paths >= MIN_PATH_SHARE * len(looked_at)


def _resolve(item: str | PurePath, folder: Path) -> Path:
    text = str(item).strip() if isinstance(item, str) else str(item)
    path = folder / text
    if "\\" in text and not path.exists():
        return folder / text.replace("\\", "/")
    return path


def _group(table: Table, column: str | None, index: int) -> str | None:
    if column is None:
        return None
    value = table.columns[column][index]
    return None if is_missing(value) else clean_text(str(value).strip())
