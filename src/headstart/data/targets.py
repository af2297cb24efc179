"""What a head learns from: the samples' labels or values as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headstart.records import Dataset

OFFSET_FROM = 10.0
"""Standard deviations that the mean of values is away from 0, from which on it is an offset."""


def encode_targets(dataset: Dataset, ids: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Give the targets of some samples as an array.

    Args:
        dataset: as read.
        ids: of N samples.
        labels: the K labels, in the model's order; empty for the value task.

    Returns:
        (N,) int64 in [0, K) for the single task, (N, K) float32 of 0 and 1 for multi, (N,) float64 for value, less the
        dataset's offset.
    """
    samples = [dataset.by_id[id_] for id_ in ids]
    index = {label: position for position, label in enumerate(labels)}
    match dataset.task:
        case "single":
            return np.array([index[sample.labels[0]] for sample in samples], dtype=np.int64)
        case "value":
            return np.array([sample.value for sample in samples], dtype=np.float64) - dataset.offset
        case "multi":
            targets = np.zeros((len(samples), len(labels)), dtype=np.float32)
            for row, sample in enumerate(samples):
                targets[row, [index[label] for label in sample.labels if label in index]] = 1.0
            return targets


def centre_values(dataset: Dataset) -> Dataset:
    """Give a dataset of the value task an offset where float32 would lose digits of its values.

    A head and a network compute in float32, which has about seven digits: of values such as 1.7e9 ± 1 nothing would be left.
    Weights do not depend on the offset, so that it may be taken over all items, those of the test included.

    Args:
        dataset: as read.

    Returns:
        The same dataset, its offset the mean of the values where that is at least `OFFSET_FROM` times their deviation.
    """
    if dataset.task != "value":
        return dataset
    values = np.array([sample.value for sample in dataset.samples], dtype=np.float64)
    mean = float(values.mean())
    return replace(dataset, offset=mean) if abs(mean) >= OFFSET_FROM * float(values.std()) else dataset


def format_value(value: float) -> str:
    """Write a value for people: six digits, or all that a large one needs to be told from its neighbours."""
    return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.12g}"


def labels_in(dataset: Dataset, ids: Sequence[str]) -> tuple[str, ...]:
    """The labels that at least one of some samples has, in the dataset's order."""
    present = {label for id_ in ids for label in dataset.by_id[id_].labels}
    return tuple(label for label in dataset.labels if label in present)
