"""Scoring a saved model on other labelled data, and saying so where the data are not other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.artifact.store import learned_digests, load
from headstart.data.rows import ReadOptions
from headstart.data.source import read_with_findings
from headstart.data.targets import encode_targets
from headstart.errors import DataError
from headstart.evidence.evaluate import evaluate_multi, evaluate_single, evaluate_value
from headstart.evidence.evaluation import Evaluation
from headstart.model.items import unreadable_error
from headstart.model.model import Model
from headstart.preprocess.items import UnreadableItemError
from headstart.records import Dataset, Sample


def evaluate(model: Model | str | Path, data: Any, *, seed: int = 0, **columns: Any) -> Evaluation:  # noqa: ANN401
    """Score a saved model on labelled data.

    Items that the model learned from are counted by content, whatever their names are now, and a warning gives the score
    without them. Items that cannot be read are left out, and a warning names them.

    Args:
        model: opened, or its folder.
        data: as for `fit`; where it has a test split, only that is used.
        seed: of the bootstrap.
        **columns: item_column, label_column, … of a table.

    Returns:
        The evaluation.

    Raises:
        DataError: if no item can be read, or one has a label that the model does not know.
    """
    model = model if isinstance(model, Model) else load(model)
    manifest = model.manifest
    options = ReadOptions(
        modality=manifest.modality, task=manifest.task, least_classes=1, known_labels=manifest.labels, **columns
    )
    reading = read_with_findings(data, options)
    dataset = reading.dataset
    missing = [finding for finding in reading.findings if finding.kind == "missing"]
    own = [sample for sample in dataset.samples if sample.split == "test"]
    samples = own or list(dataset.samples)
    _check_labels(samples, manifest.labels)
    answers = model.answers_to([(sample.id, sample.item) for sample in samples])
    if not answers.items:
        raise unreadable_error(answers.unreadable)
    values = answers.values.astype(np.float64)
    evaluation = _evaluate(model, dataset, list(answers.items), values, seed)
    warnings = list(evaluation.warnings)
    if answers.unreadable:
        warnings.insert(0, unreadable_error(answers.unreadable).what + "\nThey are left out.")
    warnings += [finding.message for finding in missing]
    left_out = (*answers.unreadable, *(name for finding in missing for name in finding.items))
    learned = learned_digests(model.folder)
    new = [row for row, id_ in enumerate(answers.items) if _digest(model, dataset.by_id[id_]) not in learned]
    if len(new) < len(values):
        warnings.insert(
            0, _told_of_learned(model, dataset, [answers.items[row] for row in new], values[new], seed, len(values))
        )
    return replace(
        evaluation, warnings=tuple(warnings), left_out=left_out, basis=f"{len(values):,} item{'s' * (len(values) != 1)}"
    )


def _check_labels(samples: list[Sample], known: tuple[str, ...]) -> None:
    unknown = sorted({label for sample in samples for label in sample.labels} - set(known))
    if unknown:
        raise DataError(
            f"the data has labels that the model does not know: {', '.join(map(repr, unknown[:10]))}.",
            expected=f"labels among {', '.join(map(repr, known[:20]))}.",
            mend="correct the labels, or fit again with such items.",
        )


def _evaluate(model: Model, dataset: Dataset, ids: list[str], values: np.ndarray, seed: int) -> Evaluation:
    manifest = model.manifest
    truth = encode_targets(dataset, ids, manifest.labels)
    match manifest.task:
        case "single":
            return evaluate_single(values / values.sum(axis=1, keepdims=True), truth, manifest.labels, seed=seed)
        case "multi":
            thresholds = np.array(manifest.thresholds)
            return evaluate_multi(values, truth > 0.5, manifest.labels, seed=seed, thresholds=thresholds)
        case _:
            return evaluate_value(values[:, 0], truth, seed=seed)


def _digest(model: Model, sample: Sample) -> bytes:
    try:
        return model.preprocess.digest(model.preprocess.load(sample.item, name=sample.id), name=sample.id)
    except UnreadableItemError:  # vanished since it was answered
        return b""


def _told_of_learned(model: Model, dataset: Dataset, new: list[str], values: np.ndarray, seed: int, total: int) -> str:
    told = f"the model learned from {total - len(new)} of these {total} items, so the score is no evidence"
    if not new:
        return f"{told}. Evaluate on items that it has not seen."
    clean = _evaluate(model, dataset, new, values, seed)
    name, value = next(iter(clean.metrics.items()))
    low, high = clean.intervals[name]
    return f"{told}; on the {len(new)} others: {name} {value:.3f} [{low:.3f}, {high:.3f}]."
