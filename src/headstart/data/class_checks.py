"""What is wrong with the classes of a dataset: too few, too small, out of balance, spelt two ways, or not in both splits."""

from __future__ import annotations

import shlex
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.data.rows import count_of, name_some
from headstart.records import Dataset, Finding, Sample

MIN_FOR_HOLDOUT = 5
"""A class below this many samples is too small to hold some out; the evaluation is cross-validated then."""

MIN_VALUES = 3
"""With fewer, nothing is left to choose a penalty on once one is held out."""

MAX_IMBALANCE = 10
"""From this ratio of the largest to the smallest class on, the imbalance is told."""


@dataclass(frozen=True, kw_only=True)
class _Left:
    """The samples that can be used, and how many each class has, over all and outside the official test split."""

    samples: tuple[Sample, ...]
    counts: Counter[str]
    train_counts: Counter[str]
    test_counts: Counter[str]


def find_class_problems(dataset: Dataset, unreadable: Mapping[str, str]) -> list[Finding]:
    """Find every problem of the classes of a dataset; of the value task, which has none, only that it has too few items.

    Args:
        dataset: as read.
        unreadable: the ids of samples to leave out of all counts, with the reasons.
    """
    left = _count_left(dataset, unreadable)
    return [
        *_tell_one_value(left),
        *_tell_split_mismatch(dataset, left),
        *_tell_too_few_classes(dataset, left),
        *_tell_tiny_classes(dataset, left),
        *_tell_imbalance(dataset, left),
        *_tell_case_clashes(left),
    ]


def _tell_one_value(left: _Left) -> list[Finding]:
    values = {sample.value for sample in left.samples if sample.value is not None}
    if len(values) != 1 or len(left.samples) < 2:
        return []
    return [
        Finding(
            kind="one_value",
            severity="warning",
            items=(),
            message=f"all {count_of(len(left.samples), 'sample')} have the value {values.pop():g}: nothing to predict.",
            mend="check the column that the values come from (--label-column).",
        )
    ]


def _count_left(dataset: Dataset, unreadable: Mapping[str, str]) -> _Left:
    samples = tuple(sample for sample in dataset.samples if sample.id not in unreadable)
    in_test = Counter(label for sample in samples if sample.split == "test" for label in sample.labels)
    in_train = Counter(label for sample in samples if sample.split != "test" for label in sample.labels)
    return _Left(samples=samples, counts=in_train + in_test, train_counts=in_train, test_counts=in_test)


def _tell_split_mismatch(dataset: Dataset, left: _Left) -> list[Finding]:
    findings = []
    unknown = {label: number for label, number in left.test_counts.items() if label not in left.train_counts}
    if unknown and left.train_counts:
        told = [f"{label!r} ({count_of(unknown[label], 'sample')})" for label in dataset.labels if label in unknown]
        findings.append(
            Finding(
                kind="split_mismatch",
                severity="error",
                items=tuple(s.id for s in left.samples if s.split == "test" and any(label in unknown for label in s.labels)),
                message=f"{count_of(len(told), 'label')} of the test split that nothing in train has: {name_some(told)}.",
                mend="put samples of these labels into train, take them out of test, or respell them with --merge-labels.",
            )
        )
    untested = [label for label in dataset.labels if label in left.train_counts and label not in left.test_counts]
    if untested and left.test_counts:
        told = [repr(label) for label in untested]
        findings.append(
            Finding(
                kind="split_mismatch",
                severity="warning",
                items=(),
                message=f"{count_of(len(untested), 'class')} in train but not in the test split: {name_some(told)}. "
                "The score says nothing of them.",
                mend="add samples of these classes to the test split.",
            )
        )
    return findings


def _tell_too_few_classes(dataset: Dataset, left: _Left) -> list[Finding]:
    findings: list[Finding] = []
    if dataset.task == "value":
        return _tell_too_few_values(left)
    gone = [label for label in dataset.labels if not left.counts[label]]
    if gone and left.samples:
        findings.append(
            Finding(
                kind="empty",
                severity="warning",
                items=(),
                message=f"{count_of(len(gone), 'class')} with no item that can be read: {name_some([repr(g) for g in gone])}.",
                mend="replace their items, or remove these classes.",
            )
        )
    num_classes = len(+left.counts)
    if left.samples and num_classes < (2 if dataset.task == "single" else 1):
        rest = f"only {next(iter(+left.counts))!r} is" if num_classes else "none is"
        findings.append(
            Finding(
                kind="too_few_classes",
                severity="error",
                items=(),
                message=f"fewer than two classes are left once unreadable items are: {rest}.",
                mend="add items of another class, or replace the unreadable ones.",
            )
        )
    return findings


def _tell_too_few_values(left: _Left) -> list[Finding]:
    number = sum(sample.split != "test" for sample in left.samples)
    if number >= MIN_VALUES or not left.samples:
        return []
    return [
        Finding(
            kind="too_few_items",
            severity="error",
            items=(),
            message=f"only {count_of(number, 'item')} to learn values from.",
            mend=f"add items: it takes {MIN_VALUES} to fit at all, and 50 to hold a test split out.",
        )
    ]


def _tell_tiny_classes(dataset: Dataset, left: _Left) -> list[Finding]:
    order = [label for label in dataset.labels if left.train_counts[label]]
    ones = [label for label in order if left.train_counts[label] == 1]
    lone = set(ones)
    few = [label for label in order if 1 < left.train_counts[label] < MIN_FOR_HOLDOUT]
    findings = []
    if ones:
        is_single = dataset.task == "single"
        told = name_some([repr(label) for label in ones])
        findings.append(
            Finding(
                kind="tiny_class",
                severity="error" if is_single else "warning",
                items=tuple(s.id for s in left.samples if s.split != "test" and not lone.isdisjoint(s.labels)),
                message=f"{count_of(len(ones), 'class')} with one sample only: {told}.",
                mend="add at least one more sample to each (5 or more for a held-out test), remove the class, or merge it into "
                "another one with --merge-labels FOUND=USED; if the labels are numbers to predict, pass --task value.",
            )
        )
    if few:
        told = name_some([f"{label!r} ({left.train_counts[label]})" for label in few])
        findings.append(
            Finding(
                kind="tiny_class",
                severity="warning",
                items=(),
                message=f"{count_of(len(few), 'class')} with fewer than {MIN_FOR_HOLDOUT} samples: {told}. "
                "Without a test split of the data's own the evaluation is cross-validated.",
                mend=f"add samples until each class has {MIN_FOR_HOLDOUT} or more.",
            )
        )
    return findings


def _tell_imbalance(dataset: Dataset, left: _Left) -> list[Finding]:
    if len(left.train_counts) < 2:
        return []
    (largest, most), *_, (smallest, fewest) = left.train_counts.most_common()
    if most < MAX_IMBALANCE * fewest:
        return []
    is_single = dataset.task == "single"
    weigh = "pass --balance weights to weigh classes equally, or " if is_single else ""
    return [
        Finding(
            kind="imbalance",
            severity="warning",
            items=(),
            message=f"the largest class {largest!r} has {most:,} samples, {most / fewest:.0f} times the smallest, {smallest!r} "
            f"({fewest:,}). Look at macro-F1 beside the {'accuracy' if is_single else 'micro-F1'}.",
            mend=f"{weigh}add samples to the small ones.",
        )
    ]


def _tell_case_clashes(left: _Left) -> list[Finding]:
    by_folded: dict[str, list[str]] = {}
    holders: dict[str, list[str]] = {}
    for sample in left.samples:
        for label in sample.labels:
            holders.setdefault(label, []).append(sample.id)
    for label in left.counts:
        by_folded.setdefault(_fold(label), []).append(label)
    findings = []
    for labels in by_folded.values():
        if len(labels) < 2:
            continue
        kept, *others = sorted(labels, key=lambda label: (-left.counts[label], label))
        told = ", ".join(f"{label!r} ({count_of(left.counts[label], 'sample')})" for label in others)
        findings.append(
            Finding(
                kind="case_clash",
                severity="warning",
                items=tuple(dict.fromkeys(id_ for label in others for id_ in holders[label])),
                message=f"label {told} differs from {kept!r} ({count_of(left.counts[kept], 'sample')}) "
                f"only by {_differences(kept, others)}.",
                mend=" ".join(f"--merge-labels {shlex.quote(f'{label}={kept}')}" for label in others),
            )
        )
    return findings


def _differences(kept: str, others: Sequence[str]) -> str:
    """What spellings differ by that `_fold` makes equal: case, white space, and the Unicode form of accented letters."""
    ways = {
        "case": lambda label: "".join(unicodedata.normalize("NFC", label).split()),
        "white space": lambda label: unicodedata.normalize("NFC", label).casefold(),
        "Unicode normalisation (an accented letter as one character or as letter and accent)": lambda label: "".join(
            label.casefold().split()
        ),
    }
    return " and ".join(name for name, keep in ways.items() if any(keep(label) != keep(kept) for label in others))


def _fold(label: str) -> str:
    """Drop what people seldom mean by a spelling: case, white space, and how accents are encoded."""
    return "".join(unicodedata.normalize("NFC", label).casefold().split())
