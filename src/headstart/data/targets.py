"""What a head learns from: the samples' labels or values as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.records import Dataset


def encode_targets(dataset: Dataset, ids: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Give the targets of some samples as an array.

    Args:
        dataset: as read.
        ids: of N samples.
        labels: the K labels, in the model's order; empty for the value task.

    Returns:
        (N,) int64 in [0, K) for the single task, (N, K) float32 of 0 and 1 for multi, (N,) float64 for value.
    """
    samples = [dataset.by_id[id_] for id_ in ids]
    index = {label: position for position, label in enumerate(labels)}
    match dataset.task:
        case "single":
            return np.array([index[sample.labels[0]] for sample in samples], dtype=np.int64)
        case "value":
            return np.array([sample.value for sample in samples], dtype=np.float64)
        case "multi":
            targets = np.zeros((len(samples), len(labels)), dtype=np.float32)
            for row, sample in enumerate(samples):
                targets[row, [index[label] for label in sample.labels if label in index]] = 1.0
            return targets


def labels_in(dataset: Dataset, ids: Sequence[str]) -> tuple[str, ...]:
    """The labels that at least one of some samples has, in the dataset's order."""
    present = {label for id_ in ids for label in dataset.by_id[id_].labels}
    return tuple(label for label in dataset.labels if label in present)
