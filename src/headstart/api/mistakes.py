"""Which answers were most wrong: what the report shows first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from headstart.api.evidence import Evidence
from headstart.data.targets import encode_targets, format_value
from headstart.records import Dataset
from headstart.select.floor import Floor


def mistakes(evidence: Evidence, dataset: Dataset, floor: Floor, *, count: int) -> list[dict[str, Any]]:
    """The most confident mistakes; for the value task the largest errors.

    Args:
        evidence: answers to items.
        dataset: the samples.
        floor: whose labels and thresholds the answers go by.
        count: how many at most.

    Returns:
        item, label and predicted of each, surest first, with the probability of what was wrong but for the value task. Several
        labels stand in one text with '|' between, as in a table.
    """
    truth = encode_targets(dataset, evidence.ids, floor.labels)
    match dataset.task:
        case "single":
            found = _wrong_labels(evidence.answers, truth, floor.labels)
        case "multi":
            found = _wrong_answers(evidence.answers, truth > 0, floor)
        case "value":
            found = _largest_errors(evidence.answers[:, 0] + dataset.offset, truth + dataset.offset)
    return [{"item": evidence.ids[row], **told} for row, told in itertools.islice(found, count)]


def _wrong_labels(answers: np.ndarray, truth: np.ndarray, labels: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    said, sure = answers.argmax(axis=1), answers.max(axis=1)
    for row in sorted(np.flatnonzero(said != truth), key=lambda row: -sure[row]):
        told = {"label": labels[truth[row]], "predicted": labels[said[row]]}
        yield int(row), told | {"probability": round(float(sure[row]), 4)}


def _wrong_answers(answers: np.ndarray, truth: np.ndarray, floor: Floor) -> Iterator[tuple[int, dict[str, Any]]]:
    """Items with a label too many or too few, by how sure the worst of these answers was."""
    said = answers >= floor.calibration.thresholds
    sure = np.where(said != truth, np.where(said, answers, 1 - answers), -1.0).max(axis=1)
    for row in sorted(np.flatnonzero(sure >= 0), key=lambda row: -sure[row]):
        given, right = (
            " | ".join(label for label, yes in zip(floor.labels, each, strict=True) if yes) for each in (said[row], truth[row])
        )
        yield int(row), {"label": right, "predicted": given, "probability": round(float(sure[row]), 4)}


def _largest_errors(answers: np.ndarray, truth: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in np.argsort(-np.abs(answers - truth), kind="stable"):
        yield int(row), {"label": format_value(truth[row]), "predicted": format_value(answers[row])}
