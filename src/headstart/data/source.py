"""The one door for labelled data: whatever DATA is, a `Dataset` comes out, with what was noticed on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from natsort import natsorted

from headstart.data.archives import ARCHIVE_SUFFIXES, is_archive, unpack
from headstart.data.columns import read_table_rows
from headstart.data.folders import step_into, visible_entries
from headstart.data.label_cells import normalise_labels
from headstart.data.labels import (
    find_task,
    read_labels,
    read_values,
    tell_few_several,
    tell_joined_labels,
    tell_numeric_labels,
    tell_unlabelled,
)
from headstart.data.layout import class_folders_with_items, read_folder
from headstart.data.memory import read_object
from headstart.data.modality import modality_of_name
from headstart.data.rows import (
    OPTIONS_OF_CELLS,
    OPTIONS_OF_COLUMNS,
    SPLIT_NAMES,
    ReadOptions,
    Row,
    Rows,
    clean_text,
    count_of,
    did_you_mean,
    ignored_options,
    name_some,
    nearest_paths,
    unique_ids,
)
from headstart.data.tables import TABLE_SUFFIXES
from headstart.errors import DataError, SettingError
from headstart.records import Dataset, Finding, Sample
from headstart.runtime import cache_root

_READABLE = f"a folder, a table ({' '.join(sorted(TABLE_SUFFIXES))}) or an archive ({' '.join(ARCHIVE_SUFFIXES)})."


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A dataset, and what reading it brought to light: items that are missing or lack labels, files left out."""

    dataset: Dataset
    findings: tuple[Finding, ...] = ()


def read(  # noqa: PLR0913 - one keyword for each option a user can type
    data: Any,  # noqa: ANN401 - the door takes any type
    *,
    modality: str = "auto",
    task: str = "auto",
    test: Any = None,  # noqa: ANN401 - as data
    item_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    merge_labels: dict[str, str] | None = None,
    label_columns: Sequence[str] | None = None,
    label_separator: str | None = None,
    label_names: Sequence[str] | None = None,
    item_root: str | Path | None = None,
    encoding: str | None = None,
    unpack_root: Path | None = None,
) -> Dataset:
    """Read labelled data; `read_with_findings` does the same and also tells what it noticed.

    Args:
        data: a folder, a table, an archive, or an object in memory.
        modality: auto, image, text or audio.
        task: auto, single, multi or value.
        test: a second source whose samples are the test split.
        item_column: of a table or frame; None for the usual names.
        label_column: of a table or frame; None for the usual names.
        group_column: of a table or frame; None for a column named group, if there is one.
        split_column: of a table or frame; None for a column named split, if there is one.
        merge_labels: label as found → label to use.
        label_columns: columns of 0 and 1, one for each label.
        label_separator: what separates several labels in one cell.
        label_names: names of the positions of indicator rows (0 and 1 for each label).
        item_root: the folder that relative paths of a table start at; None for the table's own.
        encoding: of a text table; None for UTF-8.
        unpack_root: the folder archives are unpacked below; None for the user's cache.

    Raises:
        DataError: if the data cannot be used; all problems of one kind are told at once.
        SettingError: if modality or task is unknown.
        MissingPackageError: if reading needs an optional package.
        CacheError: if an archive cannot be unpacked for lack of room or rights.
    """
    options = ReadOptions(
        modality=modality,
        task=task,
        item_column=item_column,
        label_column=label_column,
        group_column=group_column,
        split_column=split_column,
        merge_labels=merge_labels,
        label_columns=None if label_columns is None else tuple(label_columns),
        label_separator=label_separator,
        label_names=None if label_names is None else tuple(label_names),
        item_root=None if item_root is None else Path(item_root),
        encoding=encoding,
        unpack_root=unpack_root,
    )
    return read_with_findings(data, options, test=test).dataset


def read_with_findings(data: Any, options: ReadOptions | None = None, *, test: Any = None) -> Reading:  # noqa: ANN401
    """Read labelled data and tell what was noticed.

    Args:
        data: a folder, a table, an archive, or an object in memory.
        options: what the user says about the data.
        test: a second source whose samples become the test split, their ids prefixed by 'test/'.

    Raises:
        DataError: as `read`.
    """
    options = options or ReadOptions()
    if isinstance(data, Dataset) and test is None and not options.merge_labels:
        return Reading(dataset=data)
    rows = _gather(data, options)
    ignored = set(rows.ignored)
    if test is not None:
        tested = _gather(test, options)
        ignored &= set(tested.ignored)
        rows = _join_test(rows, tested)
    if ignored:
        raise _options_without_use(sorted(ignored), rows.source)
    if isinstance(data, Dataset) and options.task == "auto":
        options = replace(options, task=data.task)
    reading = _finish(rows, options)
    if test is not None:
        _check_test_labels(reading.dataset)
    return reading


def _gather(data: Any, options: ReadOptions) -> Rows:  # noqa: ANN401 - the door takes any type
    match data:
        case str() | Path():
            if not str(data).strip():  # as of a variable that is not set; as a path it would be the current folder
                raise DataError("the path of the data is empty.", expected=_READABLE, mend="give a path; '.' is this folder.")
            path = Path(data).expanduser()
        case _:
            return read_object(data, options)
    name = path.name.casefold()
    if not path.exists():
        raise DataError(
            f"{str(path)!r} does not exist.{nearest_paths(path)}",
            expected=_READABLE,
            mend="correct the path; quote it if it has blanks.",
        )
    if path.is_dir():
        return _read_directory(path, options)
    if is_archive(path):
        unpacked = unpack(path, options.unpack_root or cache_root() / "unpacked")
        return replace(_read_directory(step_into(unpacked), options), source=f"archive {path.name}")
    if path.suffix.casefold() in TABLE_SUFFIXES:
        return replace(read_table_rows(path, options), source=f"table {path.name}")
    kind = modality_of_name(name)
    if kind is not None:
        raise DataError(
            f"{str(path)!r} is a single {kind} file, not a set of labelled items.",
            expected=_READABLE,
            mend="give the folder that holds a folder per class; to label one item: headstart predict ARTIFACT ITEM",
        )
    raise DataError(
        f"{str(path)!r} has the suffix {path.suffix!r}, which cannot be read as labelled data.",
        expected=_READABLE,
        mend="convert it to one of these.",
    )


def _read_directory(root: Path, options: ReadOptions) -> Rows:
    """Read a folder of class folders; or the one table in it (or train and test tables) where it has no class folders."""
    tables = [path for path in visible_entries(root)[1] if path.suffix.casefold() in TABLE_SUFFIXES]
    if not tables or len(class_folders_with_items(root)) > 1:
        given = ignored_options(options, (*OPTIONS_OF_COLUMNS, *OPTIONS_OF_CELLS, "encoding"))
        return replace(read_folder(root, modality=options.modality), ignored=given)
    if len(tables) == 1:
        return replace(read_table_rows(tables[0], options), source=f"table {tables[0].name}")
    if not all(path.stem.casefold() in SPLIT_NAMES for path in tables):
        raise DataError(
            f"the folder {str(root)!r} holds {count_of(len(tables), 'table')} and no class folders: "
            f"{name_some([path.name for path in tables])}.",
            expected="one table, or tables named train, valid and test.",
            mend=f"give the table to use, such as {str(tables[0])!r}.",
        )
    parts = [(SPLIT_NAMES[path.stem.casefold()], read_table_rows(path, options)) for path in tables]
    rows = tuple(replace(row, id=f"{split}/{row.id}", split=split) for split, part in parts for row in part.rows)
    findings = tuple(finding for _, part in parts for finding in part.findings)
    return replace(parts[0][1], rows=rows, source=f"tables in {root.name}", findings=findings)


def refuse_options(options: ReadOptions, source: str) -> None:
    """Refuse every option of tables for a source that has none.

    Raises:
        SettingError: if one was given.
    """
    given = ignored_options(options, (*OPTIONS_OF_COLUMNS, *OPTIONS_OF_CELLS, "encoding"))
    if given:
        raise _options_without_use(list(given), source)


def _options_without_use(names: list[str], source: str) -> SettingError:
    options = ", ".join("--" + name.replace("_", "-") for name in names)
    return SettingError(
        f"{options} is given, and means nothing for {source}.",
        expected="options that apply to the data: columns and encodings are of tables; in a folder, the name of each class "
        "folder is the label.",
        mend=f"leave {options} out, or give the table itself.",
    )


def _join_test(rows: Rows, test: Rows) -> Rows:
    if any(row.split == "test" for row in rows.rows):
        raise DataError(
            f"{rows.source} has a test split of its own, and a second one was given by test.",
            expected="one test split.",
            mend="leave --test out, or give data without a test split.",
        )
    if test.modality != rows.modality:
        raise DataError(
            f"the test data is of the modality {test.modality}, the data to learn from is {rows.modality}.",
            expected=f"{rows.modality} items in both.",
            mend="give a test set of the same kind.",
        )
    moved = [replace(row, id=f"test/{row.id}", split="test", place=f"test, {row.place}") for row in test.rows]
    findings = [replace(finding, items=tuple(f"test/{item}" for item in finding.items)) for finding in test.findings]
    return replace(
        rows,
        rows=(*rows.rows, *moved),
        splits_text=rows.splits_text or test.splits_text,
        has_cells=rows.has_cells or test.has_cells,
        source=f"{rows.source}, tested on {test.source}",
        findings=(*rows.findings, *findings),
    )


def _finish(rows: Rows, options: ReadOptions) -> Reading:
    """Decide the task, clean the labels, leave out what has none, make ids unique, order the labels: here and only here."""
    ids = unique_ids([row.id for row in rows.rows])
    rows = replace(
        rows, rows=tuple(row if row.id == name else replace(row, id=name) for row, name in zip(rows.rows, ids, strict=True))
    )
    rows = normalise_labels(rows, options)
    task = find_task(rows, options.task)
    if task == "value":
        values = read_values(rows)
        samples = [_sample(row, name, (), value) for row, name, value in zip(rows.rows, ids, values, strict=True)]
        labelled = [sample for sample in samples if sample.value is not None]
    else:
        labels = _merge(read_labels(rows, task, options.known_labels), options.merge_labels or {})
        pairs = zip(rows.rows, ids, labels, strict=True)
        samples = [_sample(row, name, several, None) for row, name, several in pairs if several is not None]
        labelled = samples
    label_space = tuple(natsorted({label for sample in labelled for label in sample.labels}))
    kept = {sample.id for sample in labelled}
    unlabelled = [row.id for row in rows.rows if row.id not in kept and not row.unlabelled]
    _check_labels(rows, labelled, label_space, task)
    if task == "single" and len(label_space) < options.least_classes:
        raise _one_class(rows, labelled, label_space[0])
    findings = (
        *rows.findings,
        *tell_unlabelled(unlabelled, [s.id for s in labelled if task == "multi" and not s.labels]),
        *(tell_few_several(labelled) if task == "multi" and options.task == "auto" else ()),
        *(_tell_classes(labelled, label_space) if task == "single" and options.task == "auto" and rows.has_cells else ()),
    )
    dataset = Dataset(samples=tuple(labelled), labels=label_space, task=task, modality=rows.modality, source=rows.source)
    return Reading(dataset=dataset, findings=findings)


def _tell_classes(labelled: Sequence[Sample], labels: Sequence[str]) -> list[Finding]:
    return [*tell_numeric_labels(labelled, labels), *tell_joined_labels(labels)]


def _sample(row: Row, name: str, labels: tuple[str, ...], value: float | None) -> Sample:
    return Sample(id=name, item=row.item, labels=labels, value=value, group=row.group, split=row.split)


def _merge(labels: list[tuple[str, ...] | None], merges: Mapping[str, str]) -> list[tuple[str, ...] | None]:
    if not merges:
        return labels
    known = natsorted({label for several in labels if several is not None for label in several})
    unknown = [label for label in merges if label not in known]
    if unknown:
        raise DataError(
            f"no item has the label {unknown[0]!r} that is to be merged.{did_you_mean(unknown[0], known)}",
            expected=f"one of the labels {name_some(known)}.",
            mend="correct the spelling: --merge-labels FOUND=USED.",
        )
    merged = {label: clean_text(merges.get(label, label).strip()) for label in known}
    return [None if several is None else tuple(dict.fromkeys(merged[label] for label in several)) for several in labels]


def _check_labels(rows: Rows, labelled: list[Sample], labels: tuple[str, ...], task: str) -> None:
    if not labelled or (task != "value" and not labels):
        raise DataError(
            f"none of the {count_of(len(rows.rows), 'item')} of {rows.source} has a label.",
            expected="a label for each item.",
            mend="fill the label column, name another one with --label-column, or sort the items into a folder per class.",
        )


def _one_class(rows: Rows, labelled: list[Sample], label: str) -> DataError:
    return DataError(
        f"all {count_of(len(labelled), 'item')} of {rows.source} are of one class: {label!r}.",
        expected="at least two classes; with one there is nothing to tell apart.",
        mend=f"add items of another class; if {label!r} is a folder that holds the class folders, give that folder.",
    )


def _check_test_labels(dataset: Dataset) -> None:
    known = {label for sample in dataset.samples if sample.split != "test" for label in sample.labels}
    unknown = Counter(label for sample in dataset.samples for label in sample.labels if label not in known)
    if unknown:
        told = ", ".join(f"{label!r} ({count_of(unknown[label], 'item')})" for label in natsorted(unknown)[:10])
        raise DataError(
            f"the test data has labels that no item to learn from has: {told}.{did_you_mean(next(iter(unknown)), known)}",
            expected=f"labels among the {count_of(len(known), 'class')} of the data: {name_some(natsorted(known))}.",
            mend="correct the test data, add such items to learn from, or merge labels with --merge-labels FOUND=USED.",
        )
