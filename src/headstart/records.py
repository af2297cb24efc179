"""The records every floor speaks in: plain, frozen, without behaviour beyond small look-ups."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Modality = Literal["image", "text", "audio"]
Task = Literal["single", "multi", "value"]
AnyTask = Literal["single", "multi", "value", "generate"]
"""A task with labels, or that of a language model, which has none."""
TASK_ALIASES = {"multiclass": "single", "multilabel": "multi", "regression": "value", "generation": "generate"}
"""The field's names of the tasks → the names used here."""
Severity = Literal["error", "warning", "info"]
SplitName = Literal["train", "valid", "test"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item with what is known about it."""

    id: str
    """Unique in its dataset, and steady: the path below the data folder, or the row's number."""
    item: Any
    """What the user has: a `Path`, bytes, a string, an array, or a PIL image."""
    labels: tuple[str, ...] = ()
    """One label (single), any number (multi), none (value)."""
    value: float | None = None
    """The number to predict, for the value task only."""
    group: str | None = None
    """Samples of one group never lie on both sides of a split."""
    split: SplitName | None = None
    """The side the data itself puts the sample on, if it says."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples and their label space, as read; the order of `labels` is decided here and nowhere else."""

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    """Every label of any sample once, sorted naturally ('2' before '10'); empty for the value task."""
    task: Task
    modality: Modality
    source: str
    """Where it came from, in words a report can show."""
    offset: float = 0.0
    """Regression: what models subtract from the values before they learn, and add to their answers in float64."""

    @cached_property
    def by_id(self) -> dict[str, Sample]:
        """Each sample under its id."""
        return {sample.id: sample for sample in self.samples}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing wrong, or worth knowing, about the data."""

    kind: str
    severity: Severity
    items: tuple[str, ...]
    """Ids of the samples it is about; may be empty."""
    message: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which sample ids train, and which evaluate."""

    train: tuple[str, ...]
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)
    """The group of each sample that has one: the user's, or that of its duplicates."""
    origin: str = ""
    """How it came about, in words: 'the data's own test split', 'random 80/20 by group, seed 0', …"""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one item."""

    item: str
    label: str | None = None
    """The likeliest label; None for the value task."""
    probability: float | None = None
    """Of `label`, calibrated, in [0, 1]."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """Of every label, highest first."""
    labels: tuple[str, ...] = ()
    """For the multi task: the labels at or above their thresholds."""
    value: float | None = None
    """For the value task: the predicted number."""
    set: tuple[str, ...] = ()
    """The conformal set, once the model has one."""
    outlier: bool = False
    """Whether the item looks like nothing the model was adapted on, once the model can tell."""
