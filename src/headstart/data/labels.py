"""Labels as found → clean strings, and which task they make.

A label is a string in every place a user sees one. Surrounding white space goes, nothing else does, but that a whole number is
written without a point: 1, 1.0 and the text '1.0' are all '1', whatever the other labels are.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from headstart.data.label_cells import match_known, number_of
from headstart.data.rows import Rows, clean_text, count_of, is_missing, name_items, name_some
from headstart.errors import DataError
from headstart.records import Finding, Sample, Task

SEPARATOR = "|"
"""Stands between the labels of one sample in a table of the multi task."""

_OTHER_SEPARATORS = (",", ";", "/")

MIN_DISTINCT_VALUES = 20
"""A numeric column with at least this many distinct values that are no whole numbers is taken for values to predict."""

MOST_BY_A_SLIP = 0.05
"""Of the items: where no more have several labels, a slip may have made the task multi."""

MIN_NUMERIC_CLASSES = 5
"""From this many classes on that are all numbers, they may be quantities."""

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
    if any(isinstance(label, tuple) for label in labels):
        return "multi"
    if rows.splits_text and _uses_separator(labels):
        return "multi"
    return "value" if _are_values(labels) else "single"


def read_labels(rows: Rows, task: Task, known: Sequence[str] | None = None) -> list[tuple[str, ...] | None]:
    """Turn each row's label into clean strings.

    Args:
        rows: with labels as `normalise_labels` gives them.
        task: single or multi.
        known: the labels of a model; a number is then spelt as the model spells it.

    Returns:
        For each row its labels; None for a row that has none. In the multi task an empty list or cell beside others with
        labels means 'none of them' and gives an empty tuple.

    Raises:
        DataError: if the single task meets several labels on one item.
    """
    spellings = {label: label for label in known or ()}
    by_number = {number_of(label): label for label in reversed(known or ())}
    cleaned: list[tuple[str, ...] | None] = []
    wrong = []
    for row in rows.rows:
        several = _split_label(row.label, task, rows.splits_text)
        if task == "single" and len(several) > 1:
            wrong.append(f"{row.place or row.id}: {list(several)!r}")
        names = [_clean_label(part) for part in several]
        cleaned.append(None if row.unlabelled else tuple(dict.fromkeys(match_known(n, spellings, by_number) for n in names)))
    if wrong:
        raise DataError(
            f"{count_of(len(wrong), 'item')} with a label that the {task} task cannot use: {name_some(wrong)}.",
            expected="one label (text or number) per item.",
            mend="pass --task multi if items may have several labels, or correct these labels.",
        )
    return cleaned if task == "multi" else [labels or None for labels in cleaned]


def read_values(rows: Rows) -> list[float | None]:
    """Turn each row's label into the number to predict, None where there is none.

    Raises:
        DataError: if a label is not a finite number; names the places.
    """
    values: list[float | None] = []
    wrong = []
    for row in rows.rows:
        number = None if is_missing(row.label) else number_of(row.label)
        if number is not None and not math.isfinite(number):
            wrong.append(f"{row.place or row.id}: {str(row.label)[:40]!r}")
        values.append(number)
    if wrong:
        raise DataError(
            f"{count_of(len(wrong), 'label')} that the value task cannot read as a number: {name_some(wrong)}.",
            expected="a finite number with a decimal point per item, such as 3.5.",
            mend="correct these cells, or pass --task multiclass if the labels are classes.",
        )
    return values


def _split_label(label: Any, task: Task, splits_text: bool) -> tuple[Any, ...]:  # noqa: ANN401 - a table cell is of any type
    if isinstance(label, tuple):
        return label
    if is_missing(label):
        return ()
    if task == "multi" and splits_text and isinstance(label, str):
        return tuple(part for part in label.split(SEPARATOR) if part.strip())
    return (label,)


def _clean_label(part: str | float) -> str:
    if isinstance(part, float) and part.is_integer() and abs(part) < _MAX_WHOLE:
        return str(int(part))
    text = clean_text(str(part).strip())
    return text.partition(".")[0] if isinstance(part, str) and _WHOLE_FLOAT.fullmatch(text) else text


def _uses_separator(labels: Sequence[Any]) -> bool:
    texts = {label.strip() for label in labels if isinstance(label, str)}
    if not any(SEPARATOR in text for text in texts):
        return False
    parts = [part.strip() for text in texts for part in text.split(SEPARATOR)]
    return all(parts) and max(Counter(parts).values()) > 1


def _are_values(labels: Sequence[Any]) -> bool:
    fractions = set()
    for number in (number_of(label) for label in labels if not isinstance(label, bool)):
        if not math.isfinite(number):
            return False
        if not number.is_integer():
            fractions.add(number)
    return len(fractions) >= MIN_DISTINCT_VALUES


def tell_numeric_labels(labelled: Sequence[Sample], labels: Sequence[str]) -> list[Finding]:
    """Say that classes which are all numbers may be quantities.

    Args:
        labelled: all items of the single task.
        labels: the classes.
    """
    if len(labels) < MIN_NUMERIC_CLASSES or not all(math.isfinite(number_of(label)) for label in labels):
        return []
    return [
        Finding(
            kind="numeric_labels",
            severity="warning",
            items=(),
            message=f"the labels look like numbers: {count_of(len(labels), 'class')} from {labels[0]} to {labels[-1]}, each "
            f"taken as a class of its own for {count_of(len(labelled), 'item')}.",
            mend="if they are quantities or grades, pass --task regression; if they are classes, --task multiclass.",
        )
    ]


def tell_joined_labels(labels: Sequence[str]) -> list[Finding]:
    """Say that classes such as 'red, green' may be several labels: every part is in another class, too.

    Args:
        labels: the classes.
    """
    for separator in _OTHER_SEPARATORS:
        if not any(separator in label for label in labels):
            continue
        parts_of = {label: {part.strip() for part in label.split(separator)} for label in labels}
        counts = Counter(part for parts in parts_of.values() for part in parts)
        joined = [label for label, parts in parts_of.items() if len(parts) > 1 and all(counts[part] > 1 for part in parts)]
        if joined and "" not in counts:
            return [
                Finding(
                    kind="joined_labels",
                    severity="warning",
                    items=(),
                    message=f"{count_of(len(joined), 'class')} of {len(labels):,} may be several labels in one cell: "
                    f"{name_some([repr(label) for label in joined], 3)}. Each is taken as one class.",
                    mend=f"if items have several labels, pass --label-separator '{separator}'; if not, --task multiclass.",
                )
            ]
    return []


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
