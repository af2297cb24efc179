"""What every reader hands over: rows as found, before labels are cleaned and the task is known."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import DataError, SettingError
from headstart.records import TASK_ALIASES, Finding, Modality, SplitName

SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""What people call the three sides of a split, in lower case."""

NUM_NAMED = 10
"""How many offenders a message names before it only counts them."""

NUM_ITEMS_NAMED = 3
"""How many items a finding names."""


# As '/', 'home' and a user's name; what is common to files below is more than that.
_LEAST_IN_COMMON = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One item as its source has it."""

    id: str
    item: Any
    label: Any = None
    """Text, number, or list, as found; None where the source has none."""
    group: str | None = None
    split: SplitName | None = None
    unlabelled: bool = False
    """Whether the label is a word for a missing value, so that no task takes it for 'none of the labels'."""
    place: str = ""
    """Where the user finds it, as in 'line 12'; used in messages only."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Everything one source holds."""

    rows: tuple[Row, ...]
    modality: Modality
    source: str
    splits_text: bool = False
    """Whether a label text may be several labels written `a|b`: true for tables and frames."""
    has_cells: bool = False
    """Whether labels are cells of a table or values in memory, and no names of folders."""
    findings: tuple[Finding, ...] = ()
    ignored: tuple[str, ...] = ()
    """Options that were given and that mean nothing for this source."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the user says about the data beyond where it is; every default means 'find out'."""

    modality: str = "auto"
    """auto, image, text or audio."""
    task: str = "auto"
    """auto, single, multi or value; or multiclass, multilabel, regression, which mean the same."""
    item_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    label_columns: tuple[str, ...] | None = None
    """Columns of 0 and 1, one for each label, which name the labels."""
    label_separator: str | None = None
    """What separates several labels in one cell."""
    label_names: tuple[str, ...] | None = None
    """Names of the positions of indicator rows, in their order."""
    item_root: Path | None = None
    """The folder that relative paths in a table start at; None for the table's own."""
    encoding: str | None = None
    """Of the text of a table; None for UTF-8, or UTF-16 with a byte order mark."""
    known_labels: tuple[str, ...] | None = None
    """The labels of the model that is scored; numbers are spelt as it spells them."""
    merge_labels: dict[str, str] | None = None
    """Label as found → label to use."""
    unpack_root: Path | None = None
    """The folder archives are unpacked below; None for the user's cache."""
    least_classes: int = 2
    """How many classes must be there for the single task: two to learn from, one to score a model on."""

    def __post_init__(self) -> None:
        """Refuse a modality or task that is unknown, and options that contradict each other."""
        object.__setattr__(self, "task", TASK_ALIASES.get(self.task, self.task))
        if self.item_root is not None:
            object.__setattr__(self, "item_root", Path(self.item_root).expanduser())
        for name in ("label_columns", "label_names"):
            object.__setattr__(self, name, names_of(name, getattr(self, name)))
        check_label_options(self)
        for name, choices in (("modality", ("auto", "image", "text", "audio")), ("task", ("auto", "single", "multi", "value"))):
            value = getattr(self, name)
            if value not in choices:
                raise SettingError(
                    f"{name} is {value!r}, which reading labelled data does not know.{did_you_mean(str(value), choices)}",
                    expected=f"one of {', '.join(choices)}.",
                    mend=f"pass --{name} {choices[0]} (in Python: {name}={choices[0]!r}), or leave it out.",
                )


OPTIONS_OF_COLUMNS = ("item_column", "label_column", "group_column", "split_column", "label_columns")
OPTIONS_OF_CELLS = ("label_separator", "label_names", "item_root")


def ignored_options(options: ReadOptions, names: Iterable[str]) -> tuple[str, ...]:
    """Which of the named options were given."""
    return tuple(name for name in names if getattr(options, name) is not None)


def names_of(option: str, value: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - from Python an option may be of any type
    """Read a list of names: a list or tuple of texts, or one text with commas between them.

    Raises:
        SettingError: if it is neither, or names nothing.
    """
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    names = tuple(part.strip() for part in parts if isinstance(part, str)) if isinstance(parts, list | tuple) else ()
    if not names or not all(names) or len(names) < len(parts) or len(set(names)) < len(names):
        raise SettingError(
            f"{option} is {value!r}.",
            expected="different names, none of them empty: a list of texts, or one text with commas between them.",
            mend=f"--{option.replace('_', '-')} cat,dog",
        )
    return names


def check_label_options(options: Any) -> None:  # noqa: ANN401 - ReadOptions, or the settings of a fit
    """Refuse two ways of saying where the labels are, and a separator that is nothing.

    Raises:
        SettingError: if options contradict each other, or the encoding is unknown.
    """
    others = [name for name in ("label_column", "label_separator", "label_names") if getattr(options, name) is not None]
    if options.label_columns is not None and others:
        raise SettingError(
            f"label_columns is given, and {' and '.join(others)} too.",
            expected="one way of saying where the labels are.",
            mend=f"leave {' and '.join('--' + name.replace('_', '-') for name in others)} out, or --label-columns.",
        )
    if options.label_separator == "":
        raise SettingError("label_separator is empty.", expected="one character or several.", mend="--label-separator ','")
    if options.encoding is not None:
        try:
            "".encode(options.encoding)
        except (LookupError, ValueError) as error:
            raise SettingError(
                f"encoding is {options.encoding!r}, which Python does not know as a text encoding.",
                expected="a name such as utf-8, windows-1251, windows-1252, shift_jis or gb18030.",
                mend="correct the spelling of --encoding.",
            ) from error


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Word the nearest spellings of `name` among `choices`: ' Did you mean …?' with a leading space, or nothing."""
    by_folded: dict[str, list[str]] = {}
    for choice in choices:
        by_folded.setdefault(choice.casefold(), []).append(choice)
    folded = get_close_matches(name.casefold(), list(by_folded), n=3, cutoff=0.5)
    nearest = [choice for spelling in folded for choice in by_folded[spelling]][:3]
    return f" Did you mean {' or '.join(repr(choice) for choice in nearest)}?" if nearest else ""


def name_some(names: Sequence[str], limit: int = NUM_NAMED) -> str:
    """Name the first `limit` of `names`, and count the rest: 'a, b, … (12 in all)'."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"


def name_items(names: Sequence[str]) -> str:
    """Name the first few items of a finding, and count the rest; `Finding.items` has them all."""
    return name_some(names, NUM_ITEMS_NAMED)


def count_of(number: int, noun: str) -> str:
    """Put a number before its noun: '1 item', '3 items', '2 classes'."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def clean_text(text: str) -> str:
    """Make text that any UTF-8 file can hold: lone surrogates (undecodable file names, broken JSON) are escaped.

    A byte of a file name that is not UTF-8 becomes a backslash, x and two hexadecimal digits: names that differ stay different.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which no file name has
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def path_id(path: Path, root: Path) -> str:
    """The id of a file: its POSIX path below `root`, or its whole path where it lies elsewhere."""
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    return clean_text(relative.as_posix())


def path_ids(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """The ids of files: relative to `root`, or to the folder that those outside of it have in common.

    Ids are written into saved models, which are passed on: a whole path would say where somebody keeps their files.

    Args:
        paths: of the files.
        root: the folder of the data.
    """
    roots = list(dict.fromkeys([root, Path(os.path.abspath(root)), root.resolve()]))  # noqa: PTH100 - as it is written
    found: dict[Path, str] = {}
    outside: dict[Path, Path] = {}
    for path in dict.fromkeys(paths):
        base = next((each for each in roots if path.is_relative_to(each)), None)
        if base is None:
            outside[path] = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are
        else:
            found[path] = path_id(path, base)
    for group in _with_a_root_in_common(outside):
        common = Path(os.path.commonpath([outside[path].parent for path in group]))
        found |= {path: clean_text(outside[path].relative_to(common).as_posix()) for path in group}
    return found


def _with_a_root_in_common(paths: Mapping[Path, Path]) -> list[list[Path]]:
    """All of some absolute paths; or groups of them where all have next to nothing in common, as on several disks."""
    if not paths:
        return []
    groups: dict[tuple[str, ...], list[Path]] = {}
    for path, whole in paths.items():
        groups.setdefault(whole.parent.parts[:_LEAST_IN_COMMON], []).append(path)
    if len(groups) > 1 and len({key[:1] for key in groups}) == 1:
        common = os.path.commonpath([whole.parent for whole in paths.values()])
        if len(Path(common).parts) >= _LEAST_IN_COMMON:
            return [list(paths)]
    return list(groups.values())


def row_id(index: int) -> str:
    """The id of a sample without a path: 'row-000012' for index 12, counted from 0."""
    return f"row-{index:06d}"


def unique_ids(ids: Sequence[str]) -> list[str]:
    """Make ids unique by putting '#2', '#3', … after the second and later holders of the same id."""
    taken = set(ids)
    seen: set[str] = set()
    next_number: dict[str, int] = {}
    unique = []
    for wanted in ids:
        given = wanted
        while given in seen or (given != wanted and given in taken):
            next_number[wanted] = next_number.get(wanted, 1) + 1
            given = f"{wanted}#{next_number[wanted]}"
        seen.add(given)
        unique.append(given)
    return unique


def is_missing(value: Any) -> bool:  # noqa: ANN401 - a table cell is of any type
    """Whether a cell holds nothing: None, NaN, pandas' NA and NaT, or blank text."""
    if isinstance(value, (str, bytes)):
        return not value.strip()
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def split_name(value: Any, where: str) -> SplitName | None:  # noqa: ANN401 - a table cell is of any type
    """Read a split cell: train, valid or test by any usual name, None where it is empty.

    Raises:
        DataError: if the value names no side of a split; `where` is put into the message.
    """
    text = "" if is_missing(value) else str(value).strip()
    if not text:
        return None
    name = SPLIT_NAMES.get(text.casefold())
    if name is None:
        raise DataError(
            f"the split {text!r} ({where}) is none that Headstart knows.{did_you_mean(text, SPLIT_NAMES)}",
            expected=f"one of {', '.join(SPLIT_NAMES)}, or nothing.",
            mend="correct the value, rename the column, or name another one with --split-column.",
        )
    return name


def nearest_paths(path: Path) -> str:
    """Word which entries of the parent folder are spelt like a path that does not exist."""
    parent = path.parent
    while not parent.is_dir():
        if parent == parent.parent:
            return ""
        path, parent = parent, parent.parent
    try:
        names = [entry.name for entry in parent.iterdir()]
    except OSError:
        return ""
    return did_you_mean(path.name, [name for name in names if not name.startswith(".")])
