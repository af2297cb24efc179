"""Labels as found → clean strings, and which task they make.

A label is a string in every place a user sees one. Surrounding white space goes, nothing else does. A column of floats that
are all whole numbers reads '1', '2', never '1.0'; the same where a text column holds such numbers only.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.data.rows import Rows, clean_text, count_of, is_missing, name_items, name_some
from headstart.errors import DataError
from headstart.records import Finding, Sample, Task

SEPARATOR = "|"
"""Stands between the labels of one sample in a table of the multi task."""

MIN_DISTINCT_VALUES = 20
"""A numeric column with at least this many distinct values that are no whole numbers is taken for values to predict."""

MOST_BY_A_SLIP = 0.05
"""Of the items: where no more have several labels, a slip may have made the task multi."""

_WHOLE_FLOAT = re.compile(r"[+-]?\d+\.0+")
_MAX_WHOLE = 2**53


def find_task(rows: Rows, requested: str) -> Task:
    """Find the task the labels make.

    multi, if labels are lists, or if labels of a table consistently use `|`: every part is non-empty, and some part occurs
    in two different label texts ('a' and 'a|b' do, 'a|b' and 'c|d' do not). value, if the labels are numbers with at least
    20 distinct ones that are not whole. Else single.

    Args:
        rows: with labels as found.
        requested: auto, or the task the user named, which is returned as it is.
    """
    if requested != "auto":
        return requested  # type: ignore[return-value]
    labels = [row.label for row in rows.rows if not is_missing(row.label)]
    if any(_is_list(label) for label in labels):
        return "multi"
    if rows.splits_text and _uses_separator(labels):
        return "multi"
    return "value" if _are_values(labels) else "single"


def read_labels(rows: Rows, task: Task) -> list[tuple[str, ...] | None]:
    """Turn each row's label into clean strings.

    Args:
        rows: with labels as found.
        task: single or multi.

    Returns:
        For each row its labels; None for a row that has none. In the multi task an empty list or cell beside others with
        labels means 'none of them' and gives an empty tuple.

    Raises:
        DataError: if a label is of a type that cannot be one, or the single task meets several labels on one item.
    """
    parts = [_split_label(row.label, task, rows.splits_text) for row in rows.rows]
    whole = _are_whole_floats([part for several in parts for part in several])
    cleaned, wrong = [], []
    for row, several in zip(rows.rows, parts, strict=True):
        if task == "single" and len(several) > 1:
            wrong.append(f"{row.place or row.id}: {list(several)!r}")
        for part in several:
            if isinstance(part, (dict, list, tuple, set, np.ndarray)):
                wrong.append(f"{row.place or row.id}: a {type(part).__name__}")
        cleaned.append(tuple(dict.fromkeys(_clean_label(part, whole) for part in several)))
    if wrong:
        raise DataError(
            f"{count_of(len(wrong), 'item')} with a label that the {task} task cannot use: {name_some(wrong)}.",
            expected="one label (text or number) per item" if task == "single" else "a flat list of labels per item.",
            mend="pass --task multi if items may have several labels, or correct these labels.",
        )
    if task == "multi":
        return list(cleaned)
    return [labels or None for labels in cleaned]


def read_values(rows: Rows) -> list[float | None]:
    """Turn each row's label into the number to predict, None where there is none.

    Raises:
        DataError: if a label is not a finite number; names the places.
    """
    values: list[float | None] = []
    wrong = []
    for row in rows.rows:
        number = None if is_missing(row.label) else _number(row.label)
        if number is not None and not math.isfinite(number):
            wrong.append(f"{row.place or row.id}: {row.label!r}")
        values.append(number)
    if wrong:
        raise DataError(
            f"{count_of(len(wrong), 'label')} that the value task cannot read as a number: {name_some(wrong)}.",
            expected="a finite number with a decimal point per item, such as 3.5.",
            mend="correct these cells, or pass --task single if the labels are classes.",
        )
    return values


def _is_list(label: Any) -> bool:  # noqa: ANN401 - a table cell is of any type
    return isinstance(label, (list, tuple, set, frozenset, np.ndarray))


def _split_label(label: Any, task: Task, splits_text: bool) -> tuple[Any, ...]:  # noqa: ANN401 - a table cell is of any type
    if _is_list(label):
        members = sorted(label, key=str) if isinstance(label, (set, frozenset)) else list(label)
        return tuple(_plain(member) for member in members if not is_missing(member))
    if is_missing(label):
        return ()
    plain = _plain(label)
    if task == "multi" and splits_text and isinstance(plain, str):
        return tuple(part for part in plain.split(SEPARATOR) if part.strip())
    return (plain,)


def _plain(label: Any) -> Any:  # noqa: ANN401 - a table cell is of any type
    if isinstance(label, np.generic):
        label = label.item()
    return label.decode("utf-8", "backslashreplace") if isinstance(label, bytes) else label


def _clean_label(part: Any, whole: bool) -> str:  # noqa: ANN401 - a table cell is of any type
    if whole and not isinstance(part, bool):
        return str(int(part)) if isinstance(part, (int, float)) else part.strip().partition(".")[0]
    return clean_text(str(part).strip())


def _are_whole_floats(parts: Sequence[Any]) -> bool:
    """Whether all labels are whole numbers and at least one of them is written as a float."""
    texts = [part.strip() for part in parts if isinstance(part, str)]
    if texts:
        return len(texts) == len(parts) and all(_WHOLE_FLOAT.fullmatch(text) for text in texts)
    floats = [part for part in parts if isinstance(part, float)]
    return bool(floats) and all(part.is_integer() and abs(part) < _MAX_WHOLE for part in floats)


def _uses_separator(labels: Sequence[Any]) -> bool:
    texts = {label.strip() for label in labels if isinstance(label, str)}
    if not any(SEPARATOR in text for text in texts):
        return False
    parts = [part.strip() for text in texts for part in text.split(SEPARATOR)]
    return all(parts) and max(Counter(parts).values()) > 1


def _are_values(labels: Sequence[Any]) -> bool:
    numbers = {_number(label) for label in labels if not isinstance(label, (bool, np.bool_))}
    if not all(math.isfinite(number) for number in numbers):
        return False
    return sum(not number.is_integer() for number in numbers) >= MIN_DISTINCT_VALUES


def _number(label: Any) -> float:  # noqa: ANN401 - a table cell is of any type
    """The number a label stands for; NaN where it stands for none."""
    try:
        return float(_plain(label))
    except (TypeError, ValueError, OverflowError):
        return math.nan


def tell_few_several(labelled: Sequence[Sample]) -> list[Finding]:
    """Name the items that made the task one of several labels an item, where they are so few that it may be a slip.

    Args:
        labelled: all items of the multi task.
    """
    several = [sample.id for sample in labelled if len(sample.labels) > 1]
    if not 0 < len(several) <= MOST_BY_A_SLIP * len(labelled):
        return []
    return [
        Finding(
            kind="few_with_several",
            severity="warning",
            items=tuple(several),
            message=f"{count_of(len(several), 'item')} of {len(labelled):,} with several labels: {name_items(several)}. "
            "So every item may have several, or none.",
            mend="if that is a slip, give these one label each; else --task multi says that it is meant.",
        )
    ]


def tell_unlabelled(unlabelled: Sequence[str], without: Sequence[str]) -> list[Finding]:
    """Word what has no label.

    Args:
        unlabelled: ids of the items that are left out.
        without: ids of items of the multi task that have none of the labels.
    """
    findings = []
    if unlabelled:
        findings.append(
            Finding(
                kind="unlabelled",
                severity="warning",
                items=tuple(unlabelled),
                message=f"{count_of(len(unlabelled), 'item')} without a label: {name_items(unlabelled)}. Left out.",
                mend="give each a label, or remove it from the data.",
            )
        )
    if without:
        findings.append(
            Finding(
                kind="no_labels",
                severity="info",
                items=tuple(without),
                message=f"{count_of(len(without), 'item')} without any label, taken as 'none of them': {name_items(without)}.",
                mend="nothing, unless they are merely unlabelled: then remove them.",
            )
        )
    return findings
