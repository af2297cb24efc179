"""What a fit found, as the plain values of report.json and of `fit --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from headstart.api.adaptation import Adaptation, Bottom
from headstart.api.evidence import Evidence
from headstart.api.mistakes import mistakes
from headstart.backbones.info import BlockInfo
from headstart.data.duplicates import duplicate_groups
from headstart.data.rows import count_of, name_some
from headstart.data.targets import encode_targets
from headstart.errors import HeadstartError
from headstart.evidence.intervals import clopper_pearson
from headstart.evidence.label_noise import find_label_noise
from headstart.preprocess.recipe import Preprocess, count_clips
from headstart.preprocess.text import TextPreprocess
from headstart.records import Dataset, Finding, Splits
from headstart.select.floor import Floor, question

NUM_MISTAKES = 12
# A scatter of more points than this shows no more.
MAX_POINTS = 2_000
MAX_ITEMS_TOLD = 50


_STEPS = ("read", "features", "check", "head", "tune", "evaluate", "report", "total")


@dataclass(frozen=True, kw_only=True)
class Story:
    """Everything a fit decided, before it is written down."""

    bottom: Bottom
    adaptation: Adaptation
    evidence: Evidence

    @property
    def dataset(self) -> Dataset:
        """The samples."""
        return self.bottom.dataset

    @property
    def splits(self) -> Splits:
        """Who trained, and who tested."""
        return self.bottom.splits


def tell(story: Story, seconds: dict[str, float]) -> dict[str, Any]:
    """Write a fit down.

    Args:
        story: what it decided.
        seconds: by step, so far, and their total.

    Returns:
        The content of report.json.
    """
    bottom, adaptation = story.bottom, story.adaptation
    info, evaluation = bottom.prefix.spec.info, story.evidence.evaluation.as_report()
    against = story.evidence.against_baseline
    evaluation["temperature"] = float(adaptation.answering.calibration.temperatures[0])
    evaluation["mistakes"] = [
        wrong | _illustration(story, wrong["item"])
        for wrong in mistakes(story.evidence, story.dataset, adaptation.answering, count=NUM_MISTAKES)
    ]
    if story.dataset.task == "value":
        evaluation["predictions_vs_targets"] = _points(story)
    if story.evidence.without_leaks is not None:
        evaluation["without_leaks"] = story.evidence.without_leaks.as_json() | {"leaks": story.evidence.num_leaks}
    content = {
        "format": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "headstart_version": version("headstart"),
        "summary": _summary(story),
        "data": {
            "source": story.dataset.source,
            **label_counts(story.dataset, story.splits),
            "split": story.splits.origin,
            "findings": [asdict(_shortened(finding)) for finding in bottom.findings],
        },
        "backbone": info.as_json()
        | {"blocks": [asdict(b) | {"parameters": b.num_parameters, "frozen": f} for b, f in _frozen(info.blocks, adaptation)]},
        "preprocess": bottom.table.preprocess.as_json() | _lower_cases(bottom.table.preprocess),
        "choices": [
            *_choices_of_geometry(bottom),
            *_choices_of_precision(bottom),
            *bottom.flips,
            *_choices_of_floor(story),
        ],
        "tuning": {"kept": adaptation.strategy, "reason": adaptation.reason, "cut": adaptation.cut}
        | {"attempts": [attempt.as_json() for attempt in adaptation.attempts]}
        | ({"on_test": against.as_json()} if against else {}),
        "evaluation": evaluation,
        "warnings": _warnings(story),
    }
    return with_seconds(content, seconds)


def _lower_cases(preprocess: Preprocess) -> dict[str, bool]:
    return {"lower_cases": preprocess.lower_cases} if isinstance(preprocess, TextPreprocess) else {}


def with_seconds(content: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """The same report with other times.

    Args:
        content: of report.json.
        seconds: by step, so far, and their total.
    """
    rounded = {step: round(value, 3) for step, value in seconds.items()}
    summary = content["summary"] | {"seconds": {step: rounded.get(step, 0.0) for step in _STEPS}}
    return content | {"summary": summary, "seconds": rounded}


def _warnings(story: Story) -> list[str]:
    """What a user must hear beside the findings about the data, the gravest first."""
    told = [*_told_of_leaks(story), *_warn_of_untested(story.dataset, story.splits)]
    floor = story.bottom.floor
    unknown = [story.splits.train[row] for row in floor.choice.rows[~floor.choice.known]]
    told += [*warn_of_unknown(story.dataset, story.splits, unknown), *_warn_of_disagreement(story)]
    told += _warn_of_labels(floor, story.dataset, story.splits)
    told += [*story.evidence.evaluation.warnings, *story.bottom.table.notes]
    told += story.adaptation.notes
    if story.bottom.prefix.spec.why_torch:
        told.append(f"the backbone runs on torch, not compiled: {story.bottom.prefix.spec.why_torch}")
    return told


def _warn_of_untested(dataset: Dataset, splits: Splits) -> list[str]:
    """Name the classes that a random test split lacks; of the data's own split the findings say so."""
    if not splits.test or any(sample.split in {"test", "valid"} for sample in dataset.samples):
        return []
    train, test = ({label for id_ in ids for label in dataset.by_id[id_].labels} for ids in (splits.train, splits.test))
    missing = [repr(label) for label in dataset.labels if label in train - test]
    if not missing:
        return []
    it = "it" if len(missing) == 1 else "them"
    return [
        f"{count_of(len(missing), 'class')} without any test item: {name_some(missing)}. The score says nothing about {it}; "
        "add items that are in no group with the others, or name the groups more finely."
    ]


def warn_of_unknown(dataset: Dataset, splits: Splits, unknown: Sequence[str]) -> list[str]:
    """Name the classes of which nearly all items are in one group, so that cross-validation cannot test them.

    Args:
        dataset: the samples.
        splits: with the groups.
        unknown: ids of training items that counted neither for the choice of the head nor for its calibration.

    Returns:
        A warning, or nothing.
    """
    counts = Counter(label for id_ in unknown if id_ in splits.groups for label in dataset.by_id[id_].labels)
    totals = Counter(label for id_ in splits.train for label in dataset.by_id[id_].labels)
    named = [f"{label!r} ({count:,} of {totals[label]:,})" for label, count in counts.items() if count > totals[label] / 2 > 1]
    if not named:
        return []
    return [
        f"{count_of(len(named), 'class')} with most training items in one group: {name_some(named)}. Cross-validation cannot "
        "test these items, so they train, but neither choose the head nor calibrate its probabilities."
    ]


def _warn_of_labels(floor: Floor, dataset: Dataset, splits: Splits) -> list[str]:
    """A warning where the surest out-of-fold answers of the baseline contradict the training labels."""
    if dataset.task != "single":
        return []
    choice, alone = floor.choice, floor.network_alone
    rows = choice.rows[choice.known]
    labels = encode_targets(dataset, [splits.train[row] for row in rows], floor.labels)
    found = find_label_noise(alone.calibration.answers(choice.scores[choice.known], dataset.task), labels)
    if found is None:
        return []
    return [
        f"some training labels look wrong: of the {found.num_sure:,} training items that cross-validation is surest of, "
        f"{found.num_contradicted:,} ({found.share:.0%}) have another label than the answer. About so large a share of all "
        "labels may be wrong; where labels are right, sure answers are seldom wrong. Check the labels."
    ]


def _warn_of_disagreement(story: Story) -> list[str]:
    """A warning where the head's accuracy by cross-validation and on the test items are further apart than chance explains."""
    floor, evaluation = story.bottom.floor, story.evidence.evaluation
    by_floor = story.adaptation.strategy == "extract" and story.adaptation.trained_head is None
    if not story.splits.test or not by_floor or floor.cv_accuracy is None or "accuracy" not in evaluation.metrics:
        return []
    ids = [story.splits.train[row] for row in floor.choice.rows[floor.choice.known]]
    count = len({story.splits.groups.get(id_, f"\0{id_}") for id_ in ids})
    return compare_with_cross_validation(
        floor.cv_accuracy, count, evaluation.metrics["accuracy"], evaluation.intervals["accuracy"]
    )


def compare_with_cross_validation(expected: float, count: int, accuracy: float, interval: Sequence[float]) -> list[str]:
    """Compare an accuracy by cross-validation with that on test items.

    Args:
        expected: out of fold, in [0, 1].
        count: of the items, or groups of items, that it is of.
        accuracy: on the test items.
        interval: [low, high] of it, 95 %.

    Returns:
        A warning if the two 95 % intervals do not overlap, else nothing.
    """
    low, high = clopper_pearson(expected * count, count)
    if low <= interval[1] and interval[0] <= high:
        return []
    return [
        f"cross-validation within train and the test disagree: accuracy {expected:.3f} [{low:.3f}, {high:.3f}] and "
        f"{accuracy:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]. Train and test differ: look for groups of related items (pass "
        "--group-column) and for items of another source."
    ]


def _told_of_leaks(story: Story) -> list[str]:
    evidence = story.evidence
    if not evidence.num_leaks:
        return []
    hashes = story.bottom.table.hashes
    trained = {hashes.get(id_) for id_ in story.splits.train} - {None}
    exact = min(evidence.num_leaks, sum(hashes.get(id_) in trained for id_ in evidence.ids))
    told = describe_leaks(exact, evidence.num_leaks - exact, len(evidence.ids))
    clean = evidence.without_leaks
    if clean is None:
        return [f"{told}: the score says nothing about new items. Test on items that are not in train."]
    name = next(iter(clean.metrics))
    low, high = clean.intervals[name]
    with_them = evidence.evaluation.metrics[name]
    return [f"{told}: {name} {with_them:.3f} with them, {clean.metrics[name]:.3f} [{low:.3f}, {high:.3f}] on the others."]


def describe_leaks(exact: int, close: int, total: int) -> str:
    """Say how many test items have a copy, or a near copy, in train.

    Args:
        exact: test items whose bytes are those of a training item.
        close: others that are near copies of a training item.
        total: all test items.
    """
    copies = f"{exact} {'is a copy of a training item' if exact == 1 else 'are copies of training items'}"
    near = f"{close} closely {'resembles a training item' if close == 1 else 'resemble training items'}"
    return f"of the {total} test items " + " and ".join(part for part, count in ((copies, exact), (near, close)) if count > 0)


def _summary(story: Story) -> dict[str, Any]:
    bottom, adaptation = story.bottom, story.adaptation
    table, floor = bottom.table, bottom.floor
    misses = table.misses + bottom.geometry.computed
    hits = max(table.hits - bottom.geometry.computed, 0)
    evaluation = story.evidence.evaluation
    found = [f"{finding.message} Mend: {finding.mend}" for finding in bottom.findings if finding.severity != "info"]
    groups = set(story.splits.groups.values()) - {sample.group for sample in story.dataset.samples}
    used = (*story.splits.train, *story.splits.test)
    num_clips = count_clips(table.preprocess, (story.dataset.by_id[id_].item for id_ in used))
    return {
        "artifact": "",
        "modality": story.dataset.modality,
        "task": story.dataset.task,
        "backbone": bottom.prefix.spec.info.name,
        "strategy": adaptation.strategy,
        "labels": list(floor.labels),
        "counts": {
            "train": len(story.splits.train),
            "test": len(story.splits.test),
            "unreadable": len(table.failures),
            "duplicate_groups": max(len(groups), len(duplicate_groups(table.hashes))),
        }
        | ({"clips": num_clips} if num_clips else {}),
        "test": evaluation.as_json(),
        **({"baseline_test": against.baseline.as_json()} if (against := story.evidence.against_baseline) else {}),
        "floor": {"head": floor.head.kind, "cv_accuracy": floor.cv_accuracy},
        "majority_accuracy": evaluation.majority["accuracy"] if evaluation.majority else None,
        "gate": {
            "tried": [attempt.strategy for attempt in adaptation.attempts if attempt.verdict],
            "kept": adaptation.strategy,
            "code": adaptation.code,
            "reason": adaptation.reason,
        },
        "seconds": {},
        "items_per_second": round((table.hits + table.misses) / max(table.seconds, 1e-9), 1),
        "cache": {"hits": hits, "misses": misses},
        "warnings": [*_warnings(story), *found],
    }


def _choices_of_floor(story: Story) -> list[dict[str, Any]]:
    """The floor's questions; that of the head with the trained one, where one was asked for."""
    trained = story.adaptation.trained_head
    if trained is None:
        return list(story.bottom.floor.choices)
    return [
        {**asked, "kept": trained["name"], "reason": story.adaptation.reason, "candidates": [*asked["candidates"], trained]}
        if asked["question"] == "head"
        else asked
        for asked in story.bottom.floor.choices
    ]


def _choices_of_geometry(bottom: Bottom) -> list[dict[str, Any]]:
    """How items are fitted; asked for each backbone, where there were several."""
    several = bottom.geometry.parts or (bottom.geometry,)
    names = [f" for {part.info.name}" for part in bottom.contest.spec.parts] if bottom.geometry.parts else [""]
    return [
        question(f"{each.preprocess.fitting_question}{name}", each.preprocess.fitting, each.reason, each.trials)
        for each, name in zip(several, names, strict=True)
    ]


def _choices_of_precision(bottom: Bottom) -> list[dict[str, Any]]:
    """What each frozen network computes in, where that was asked or answered beforehand."""
    several = bottom.precision.parts or (bottom.precision,)
    names = [f" of {part.info.name}" for part in bottom.contest.spec.parts] if bottom.precision.parts else [""]
    return [
        question(f"precision{name}", each.prefix.precision, each.reason, each.trials)
        for each, name in zip(several, names, strict=True)
        if each.trials or bottom.settings.precision != "auto"
    ]


def _frozen(blocks: Sequence[BlockInfo], adaptation: Adaptation) -> list[tuple[BlockInfo, bool]]:
    """Each block, and whether it was frozen."""
    if adaptation.strategy == "extract":
        return [(block, True) for block in blocks]
    names = [block.name for block in blocks]
    first = 0 if adaptation.cut is None else names.index(adaptation.cut) + 1
    return [(block, index < first) for index, block in enumerate(blocks)]


def label_counts(dataset: Dataset, splits: Splits) -> dict[str, Any]:
    """Count the items of each label on both sides of a split.

    Args:
        dataset: the samples.
        splits: who trained, and who tested.

    Returns:
        `classes`: label, train and test of each. For items of several labels also `train_share` and `test_share` in [0, 1], of
        that side's items, None for a side without items; and `without_labels`, the same of items that have no label.
    """
    sides = {"train": splits.train, "test": splits.test}
    counts = {
        side: Counter(label for id_ in ids for label in dataset.by_id[id_].labels or (None,)) for side, ids in sides.items()
    }

    def row_of(label: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {side: counts[side][label] for side in sides}
        if dataset.task == "multi":
            row |= {f"{side}_share": round(row[side] / len(ids), 4) if ids else None for side, ids in sides.items()}
        return row

    told: dict[str, Any] = {"classes": [{"label": label, **row_of(label)} for label in dataset.labels]}
    return told | ({"without_labels": row_of(None)} if dataset.task == "multi" else {})


def _points(story: Story) -> list[list[float]]:
    step = -(-len(story.evidence.ids) // MAX_POINTS)
    return [
        [float(story.dataset.by_id[id_].value or 0.0), float(row[0]) + story.dataset.offset]
        for id_, row in list(zip(story.evidence.ids, story.evidence.answers, strict=True))[::step]
    ]


def _illustration(story: Story, id_: str) -> dict[str, str]:
    try:
        return story.bottom.table.preprocess.illustrate(story.dataset.by_id[id_].item)
    except HeadstartError:  # the item vanished since; its mistake is still worth naming
        return {}


def _shortened(finding: Finding) -> Finding:
    return Finding(
        kind=finding.kind,
        severity=finding.severity,
        items=finding.items[:MAX_ITEMS_TOLD],
        message=finding.message,
        mend=finding.mend,
    )
