"""Everything wrong with a dataset, found at once, before any training.

`find_problems` is pure: what needs the items' bytes or features (hashes, decode failures, near duplicates) is handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from headstart.data.class_checks import find_class_problems
from headstart.data.duplicates import duplicate_groups, join_pairs
from headstart.data.rows import NUM_ITEMS_NAMED, count_of, name_items, name_some
from headstart.errors import DataError
from headstart.records import Dataset, Finding, Sample

UNREADABLE_KINDS = {
    "unreadable": "cannot be read",
    "truncated": "cut short",
    "empty": "without content",
    "zero_size": "without width or height or length",
    "bomb": "far larger, once decoded, than any real item",
    "unsupported": "of a kind that is not read here",
}
"""What a reason may begin with, before a colon, and how a message words it."""

_NUM_GROUPS_NAMED = 3
_NUM_WAYS_NAMED = 3
# A class is mostly copies where one group has this share of its items, and at least so many.
_MOSTLY, _LEAST_COPIED = 0.5, 5
# Between two items of a group: the same content, much alike, or of one group by the data's own word.
_SAME, _ALIKE, _TOGETHER = " = ", " ≈ ", " with "


def find_problems(
    dataset: Dataset,
    *,
    hashes: Mapping[str, str] | None = None,
    unreadable: Mapping[str, str] | None = None,
    mends: Mapping[str, str] | None = None,
    near_duplicates: Sequence[Sequence[str]] = (),
    measured: str = "",
) -> list[Finding]:
    """Find every problem of a dataset.

    Args:
        dataset: as read.
        hashes: sample id → hex sha256 of its item's bytes; None where nobody computed them.
        unreadable: sample id → why its item cannot be used, as in 'truncated: image file is truncated'; what stands before the
            colon is one of UNREADABLE_KINDS, else the kind is 'unreadable'. These samples are left out of all counts.
        mends: sample id → how to mend its item; asked for those of kind 'unsupported', which are whole and want converting.
        near_duplicates: groups of ids whose items all but coincide.
        measured: what tells that they do, for the message, as in 'cosine of features ≥ 0.85'.

    Returns:
        Findings, errors first, then warnings, then notes.
    """
    unreadable = unreadable or {}
    hashes = {name: digest for name, digest in (hashes or {}).items() if name not in unreadable}
    copies = duplicate_groups(hashes)
    alike = [tuple(group) for group in near_duplicates if len({hashes.get(name, name) for name in group}) > 1]
    findings = [
        *_tell_unreadable(dataset, unreadable, mends or {}),
        *_tell_all_copies(hashes, copies),
        *_tell_duplicates(copies, alike, measured),
        *_find_copied_classes(dataset, copies, alike, unreadable),
        *_tell_leaks(dataset, copies, alike),
        *_tell_conflicts(dataset, copies),
        *find_class_problems(dataset, unreadable),
    ]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def raise_if_fatal(findings: Iterable[Finding]) -> None:
    """Raise one error that tells all findings of severity error; do nothing if there are none.

    Raises:
        DataError: if any finding is an error.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    if len(errors) == 1:
        raise DataError(errors[0].message, expected=_expected(errors[0]), mend=errors[0].mend)
    raise DataError(
        f"{len(errors)} problems make the data unusable:" + "".join(f"\n  - {error.message}" for error in errors),
        expected=" ".join(dict.fromkeys(_expected(error) for error in errors)),
        mend=" ".join(dict.fromkeys(error.mend.rstrip(".") + "." for error in errors)),
    )


_EXPECTED = {
    "unreadable": "items that can be decoded.",
    "too_few_items": "items enough to learn from and to test on.",
    "all_copies": "items that differ.",
    "too_few_classes": "at least two classes with items that can be read.",
    "tiny_class": "at least two samples in every class: one to learn from, one to test.",
    "split_mismatch": "every label of the test split among those to learn from.",
}


def _expected(error: Finding) -> str:
    return _EXPECTED.get(error.kind, "data without this problem.")


def _tell_unreadable(dataset: Dataset, unreadable: Mapping[str, str], mends: Mapping[str, str]) -> list[Finding]:
    """One finding that no item can be read, or one for each kind of trouble."""
    if dataset.samples and len(unreadable.keys() & dataset.by_id.keys()) == len(dataset.samples):
        examples = [f"{name} ({_without_kind(reason)})" for name, reason in unreadable.items()]
        other = "open one of them with another program; if it is whole, its format is not supported: convert the items."
        return [
            Finding(
                kind="unreadable",
                severity="error",
                items=tuple(unreadable),
                message=f"none of the {count_of(len(dataset.samples), 'item')} can be read: {name_some(examples, 3)}.",
                mend=_conversions([name for name in unreadable if _kind_of(unreadable[name]) == "unsupported"], mends) or other,
            )
        ]
    by_kind: dict[str, list[str]] = {}
    for name, reason in unreadable.items():
        by_kind.setdefault(_kind_of(reason), []).append(name)
    findings = []
    for kind, names in by_kind.items():
        told = name_items([f"{name} ({_without_kind(unreadable[name])})" for name in names])
        findings.append(
            Finding(
                kind=kind,
                severity="warning",
                items=tuple(names),
                message=f"{count_of(len(names), 'item')} {UNREADABLE_KINDS[kind]}: {told}. Left out.",
                mend=(_conversions(names, mends) if kind == "unsupported" else "")
                or "replace these items by whole ones, or remove them.",
            )
        )
    return findings


def _conversions(names: Sequence[str], mends: Mapping[str, str]) -> str:
    """What makes items of unsupported kinds readable, each way once; '' where none is known."""
    ways = dict.fromkeys(mends[name].rstrip(".") for name in names if name in mends)
    return "; ".join(islice(ways, _NUM_WAYS_NAMED))


def _kind_of(reason: str) -> str:
    kind = reason.partition(":")[0].strip()
    return kind if kind in UNREADABLE_KINDS else "unreadable"


def _without_kind(reason: str) -> str:
    kind, _, rest = reason.partition(":")
    return rest.strip() if kind.strip() in UNREADABLE_KINDS and rest.strip() else reason


def _tell_all_copies(hashes: Mapping[str, str], copies: Sequence[tuple[str, ...]]) -> list[Finding]:
    if len(hashes) < 2 or len(set(hashes.values())) > 1:
        return []
    return [
        Finding(
            kind="all_copies",
            severity="error",
            items=_flatten(copies),
            message=f"all {count_of(len(hashes), 'item')} that can be read are copies of one and the same item.",
            mend="look at the items themselves: whatever made them seems to have written one of them over and over.",
        )
    ]


def _tell_duplicates(copies: Sequence[tuple[str, ...]], alike: Sequence[tuple[str, ...]], measured: str) -> list[Finding]:
    told = f" ({measured})" if measured else ""
    return [
        Finding(
            kind=kind,
            severity="warning",
            items=_flatten(groups),
            message=f"{count_of(len(groups), 'group')} of {what}: {_name_groups(groups, sign)}. A random split parts none.",
            mend="keep one of each group, unless they are meant to be different items.",
        )
        for kind, what, groups, sign in (
            ("duplicate", "exact copies", copies, _SAME),
            ("near_duplicate", f"near duplicates{told}", alike, _ALIKE),
        )
        if groups
    ]


def _find_copied_classes(
    dataset: Dataset, copies: Sequence[tuple[str, ...]], alike: Sequence[tuple[str, ...]], unreadable: Mapping[str, str]
) -> list[Finding]:
    """One finding for each class that is mostly one group of copies, so that little of it can be tested."""
    ids = [sample.id for sample in dataset.samples if sample.id not in unreadable]
    place = {name: index for index, name in enumerate(ids)}
    groups = join_pairs(ids, ((place[group[0]], place[name]) for group in (*copies, *alike) for name in group[1:]))
    sizes = Counter(label for name in ids for label in dataset.by_id[name].labels)
    findings = []
    for group in groups:
        for label, count in Counter(label for name in group for label in dataset.by_id[name].labels).items():
            if count < max(_LEAST_COPIED, _MOSTLY * sizes[label]):
                continue
            members = tuple(name for name in group if label in dataset.by_id[name].labels)
            findings.append(
                Finding(
                    kind="copied_class",
                    severity="warning",
                    items=members,
                    message=f"class {label!r} is mostly near copies of one item: {count:,} of its {sizes[label]:,} items "
                    f"({_ALIKE.join(members[:2])} …). They are on one side of every split, so the scores of this class rest on "
                    "the other items, or on none.",
                    mend="add different items to this class; if these differ, choose the test items yourself with --test.",
                )
            )
    return findings


def _tell_leaks(dataset: Dataset, copies: Sequence[Sequence[str]], alike: Sequence[Sequence[str]]) -> list[Finding]:
    named: dict[str, list[str]] = {}
    for sample in dataset.samples:
        if sample.group is not None:
            named.setdefault(sample.group, []).append(sample.id)
    findings = []
    copies_of = ("is a copy of a training item", "are copies of training items")
    close_to = ("closely resembles a training item", "closely resemble training items")
    grouped_with = ("shares a group with training items", "share groups with training items")
    for what, groups, how, sign in (
        ("exact copies", copies, copies_of, _SAME),
        ("near duplicates", alike, close_to, _ALIKE),
        ("the group column", list(named.values()), grouped_with, _TOGETHER),
    ):
        across = [group for group in groups if _crosses(dataset, group)]
        if not across:
            continue
        leaked = sum(_side(dataset, name) != "train" for group in across for name in group)
        findings.append(
            Finding(
                kind="leak",
                severity="warning",
                items=_flatten(across),
                message=f"{count_of(len(across), 'group')} of {what} lie on both sides of the data's own split, so "
                f"{count_of(leaked, 'held-out item')} {how[leaked != 1]}: {_name_groups(across, sign)}.",
                mend="remove these items from one side; until then the score on the test split is too good.",
            )
        )
    return findings


def _side(dataset: Dataset, name: str) -> str:
    return dataset.by_id[name].split or "train"


def _crosses(dataset: Dataset, group: Sequence[str]) -> bool:
    """Whether some of a group train, and others are held out."""
    sides = {_side(dataset, name) for name in group}
    return "train" in sides and len(sides) > 1


def _tell_conflicts(dataset: Dataset, copies: Sequence[tuple[str, ...]]) -> list[Finding]:
    conflicts = []
    for group in copies:
        samples = [dataset.by_id[name] for name in group]
        if len({(frozenset(sample.labels), sample.value) for sample in samples}) > 1:
            conflicts.append(samples)
    if not conflicts:
        return []
    told = [_name_conflict(samples) for samples in conflicts]
    what, mend = _CONFLICTS[dataset.task]
    return [
        Finding(
            kind="label_conflict",
            severity="warning",
            items=tuple(sample.id for samples in conflicts for sample in samples),
            message=f"{count_of(len(conflicts), 'item')} {what}: {name_some(told, _NUM_GROUPS_NAMED)}.",
            mend=mend,
        )
    ]


_CONFLICTS = {
    "single": ("under more than one label", "decide on one label for each and remove the other copies, or use --task multi."),
    "multi": ("with more than one set of labels", "give every copy of an item the same labels, or keep one copy of each."),
    "value": ("with more than one value", "decide on one value for each, or its copies' mean, and remove the other copies."),
}
"""By task: what is said of copies that disagree, and what to do."""


def _name_conflict(samples: Sequence[Sample]) -> str:
    """Copies of one item, one for each of its labels, and how many more there are."""
    by_label = list({(frozenset(sample.labels), sample.value): sample for sample in reversed(samples)}.values())[::-1]
    shown = by_label[:NUM_ITEMS_NAMED]
    more = len(samples) - len(shown)
    return _SAME.join(f"{sample.id} ({_tell_label(sample)})" for sample in shown) + (f" (and {more} more)" if more else "")


def _tell_label(sample: Sample) -> str:
    return repr(", ".join(sample.labels)) if sample.value is None else f"{sample.value:g}"


def _flatten(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group)


def _name_groups(groups: Sequence[Sequence[str]], sign: str) -> str:
    """The first groups by two of their members; the finding's items have them all."""
    told = [sign.join(group[:2]) + (f" (and {len(group) - 2} more)" if len(group) > 2 else "") for group in groups]
    return name_some(told, _NUM_GROUPS_NAMED)
