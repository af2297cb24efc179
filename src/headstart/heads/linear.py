"""A linear head, and the checks every exact solver makes of what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.errors import DataError

HeadKind = Literal["nearest-mean", "lda", "ridge", "logistic", "tuned", "mixture"]


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """The last layer for the user's labels: `features @ weight.T + bias`, on raw features.

    Whatever centring and scaling the solver used is folded into weight and bias.
    """

    kind: HeadKind
    """The solver it came from."""
    weight: np.ndarray
    """(K, D) float32; K classes, labels (multi) or targets (value)."""
    bias: np.ndarray
    """(K,) float32."""
    penalty: float | None = None
    """The L2 penalty it was solved with, on scaled features; None where the solver has none."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits of raw features.

        Args:
            features: (N, D) float32 or float64, from the backbone the head was fitted on.

        Returns:
            (N, K) float32: for the single task the highest is the label, for the multi task a positive one is a yes, for the
            value task it is the value.

        Raises:
            DataError: if the features are not (N, D).
        """
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise DataError(
                f"the head got features of shape {features.shape}.",
                expected=f"(N, {self.weight.shape[1]}), the width it was fitted on.",
                mend="extract the features with the backbone, block and preprocess the head was fitted with.",
            )
        return features.astype(np.float32, copy=False) @ self.weight.T + self.bias


def check_features(features: np.ndarray) -> np.ndarray:
    """Make sure features can be solved on.

    Args:
        features: (N, D) numbers, N >= 2.

    Returns:
        The same array where it is float32 or float64, a float64 copy otherwise.

    Raises:
        DataError: if the shape is wrong, or a value is NaN or infinite.
    """
    features = np.asarray(features)
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1:
        raise DataError(
            f"features have the shape {features.shape}.",
            expected="(N, D) with at least two rows and one column.",
            mend="pass one row of features for each sample; reshape(-1, 1) makes one number a row of one.",
        )
    if features.dtype not in {np.dtype(np.float32), np.dtype(np.float64)}:
        features = features.astype(np.float64)
    # A sum is finite only if every term is; the slower look for the place is taken only when it is not.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(features.sum(dtype=np.float64))
    if suspicious and not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise DataError(
            f"features contain NaN or infinity, first in row {row}, column {column}: {features[row, column]}.",
            expected="finite numbers.",
            mend="look at the item of that row with `headstart check`, or drop it.",
        )
    return features


def check_labels(labels: np.ndarray, *, num_rows: int, num_classes: int) -> np.ndarray:
    """Make sure class numbers fit the features and that every class has a sample.

    Args:
        labels: (N,) integers in [0, num_classes).
        num_rows: N of the features.
        num_classes: K, at least 2.

    Returns:
        The labels as int64.

    Raises:
        DataError: if K < 2, the lengths differ, a label is out of range, or a class is empty.
    """
    labels = np.asarray(labels)
    if num_classes < 2:
        raise DataError(
            f"there are {num_classes} classes.",
            expected="at least 2: with one there is nothing to tell apart.",
            mend="add samples of another class, or use the value task for numbers.",
        )
    if labels.shape != (num_rows,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels have the shape {labels.shape} and the type {labels.dtype}.",
            expected=f"({num_rows},) integers: one class number for each row of features.",
            mend="number the classes from 0, for instance with np.unique(names, return_inverse=True).",
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}.",
            expected=f"class numbers in [0, {num_classes}).",
            mend=f"pass num_classes={int(labels.max()) + 1}, or number the classes from 0.",
        )
    empty = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(empty):
        raise DataError(
            f"{len(empty)} of {num_classes} classes have no sample: {', '.join(str(k) for k in empty[:10])}.",
            expected="at least one sample of every class.",
            mend="add samples of these classes, or number only the classes that have some.",
        )
    return labels.astype(np.int64, copy=False)


def check_targets(targets: np.ndarray, *, num_rows: int) -> np.ndarray:
    """Make sure numbers to predict fit the features.

    Args:
        targets: (N,) or (N, T) finite numbers.
        num_rows: N of the features.

    Returns:
        (N, T) float64.

    Raises:
        DataError: if the shapes do not fit, or a target is NaN or infinite.
    """
    table = np.asarray(targets, dtype=np.float64)
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or table.shape[0] != num_rows or table.shape[1] < 1:
        raise DataError(
            f"targets have the shape {np.shape(targets)}.",
            expected=f"({num_rows},) or ({num_rows}, T): a row for each row of features.",
            mend="pass one row of targets for each sample.",
        )
    if not np.isfinite(table).all():
        row = int(np.argwhere(~np.isfinite(table))[0][0])
        raise DataError(
            f"the target of row {row} is NaN or infinite.",
            expected="finite numbers.",
            mend="drop the samples without a value, or fill them in.",
        )
    return table


def check_indicators(targets: np.ndarray, *, num_rows: int) -> np.ndarray:
    """Make sure a multi-label table fits the features.

    Args:
        targets: (N, K) of 0 and 1.
        num_rows: N of the features.

    Returns:
        (N, K) float64.

    Raises:
        DataError: if the shape does not fit, a value is neither 0 nor 1, or a label is never given.
    """
    table = check_targets(targets, num_rows=num_rows)
    if np.ndim(targets) != 2 or not np.isin(table, (0, 1)).all():
        raise DataError(
            f"multi-label targets have the shape {np.shape(targets)} and values from {table.min():g} to {table.max():g}.",
            expected=f"({num_rows}, K) of 0 and 1.",
            mend="make one column for each label, 1 where the sample has it.",
        )
    empty = np.flatnonzero(table.sum(axis=0) == 0)
    if len(empty):
        raise DataError(
            f"{len(empty)} of {table.shape[1]} labels are given to no sample: {', '.join(str(k) for k in empty[:10])}.",
            expected="at least one sample with each label.",
            mend="add such samples, or drop these labels.",
        )
    return table
