"""Centring and scaling before a solver, and its way back into the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from headstart.errors import SettingError
from headstart.heads.linear import HeadKind, LinearHead

ScalingKind = Literal["global", "root", "standard", "block", "network"]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """`(features - mean) * factor`; learned from the training rows, folded into the head afterwards."""

    mean: np.ndarray
    """(D,) float64."""
    factor: np.ndarray
    """(D,) float64, > 0."""

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Scaled copy of (N, D) features, in their own dtype."""
        scaled = features - self.mean.astype(features.dtype)
        scaled *= self.factor.astype(features.dtype)
        return scaled

    def fold(self, kind: HeadKind, weight: np.ndarray, bias: np.ndarray, *, penalty: float | None = None) -> LinearHead:
        """Turn a solution on scaled features into a head on raw ones.

        Args:
            kind: the solver's name.
            weight: (K, D) on scaled features.
            bias: (K,).
            penalty: as the head shall report it.

        Returns:
            The head whose scores on raw features equal the solution's on scaled features.
        """
        raw_weight = weight * self.factor
        raw_bias = bias - raw_weight @ self.mean
        return LinearHead(kind=kind, weight=raw_weight.astype(np.float32), bias=raw_bias.astype(np.float32), penalty=penalty)


def learn_scaling(
    features: np.ndarray,
    kind: ScalingKind = "global",
    *,
    weights: np.ndarray | None = None,
    block_widths: Sequence[int] | None = None,
    network_widths: Sequence[int] | None = None,
) -> Scaling:
    """Learn the centre and the scale of features; the scaled mean square over all columns is 1 in every kind.

    Args:
        features: (N, D) float32 or float64.
        kind: "global" divides everything by one number, and keeps the backbone's own weighing of its features; "standard"
            divides each column by its deviation; "root" by the square root of its deviation, half-way between the two;
            "block" divides each block of columns by one number such that a block of width d has the mean square d^-1/2,
            so that neither many columns nor large numbers make one block drown the others; "network" scales each network's
            columns as if they were alone, by "root" where they are of several blocks and by "global" where they are of one,
            and gives each network's the mean square 1.
        weights: (N,) >= 0, the weight of each row in mean and deviation; equal if left out.
        block_widths: the widths of the blocks, side by side, for "block" and "network".
        network_widths: for "network", the columns of each network; every one holds whole blocks.

    Returns:
        The scaling; columns that never vary get the factor of the others' mean, so that they do no harm.

    Raises:
        SettingError: if the kind is unknown, or the block widths do not add up to D.
    """
    if kind not in get_args(ScalingKind):
        raise SettingError(
            f"unknown scaling {kind!r}.",
            expected=f"one of {', '.join(get_args(ScalingKind))}.",
            mend='pass scaling="global".',
        )
    mean, variance = _moments(features, weights)
    match kind:
        case "global":
            factor = np.ones_like(variance)
        case "standard":
            factor = 1 / np.sqrt(_filled(variance))
        case "root":
            factor = _filled(variance) ** -0.25
        case "block":
            factor = _block_factors(variance, block_widths)
        case "network":
            factor = _network_factors(variance, block_widths, network_widths)
    total = float((variance * factor**2).mean())
    return Scaling(mean=mean, factor=factor / np.sqrt(total) if total > 0 else factor)


def _moments(features: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and variance of each column, in float64, a few rows at a time."""
    shares = np.full(len(features), 1 / len(features)) if weights is None else weights / weights.sum()
    mean = np.zeros(features.shape[1])
    for part in row_parts(features.shape):
        mean += shares[part] @ features[part].astype(np.float64)
    variance = np.zeros_like(mean)
    for part in row_parts(features.shape):
        variance += shares[part] @ np.square(features[part] - mean)
    # Rounding leaves a column of equal numbers a variance that is tiny, not zero.
    variance[variance <= 1e-20 * np.square(mean)] = 0
    return mean, variance


def row_parts(shape: tuple[int, ...], max_numbers: int = 8_000_000) -> list[slice]:
    """Slices of rows that hold at most `max_numbers` numbers each, so that float64 copies stay small."""
    rows = max(1, max_numbers // max(1, shape[1]))
    return [slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows)]


def _filled(variance: np.ndarray) -> np.ndarray:
    positive = variance > 0
    return np.where(positive, variance, variance[positive].mean() if positive.any() else 1.0)


def _block_factors(variance: np.ndarray, block_widths: Sequence[int] | None) -> np.ndarray:
    _check_widths("block", block_widths, len(variance))
    assert block_widths is not None, "checked"
    factors = []
    for block in np.split(variance, np.cumsum(block_widths)[:-1]):
        power = block.mean()
        factors.append(np.full(len(block), len(block) ** -0.25 / np.sqrt(power) if power > 0 else 1.0))
    return np.concatenate(factors)


def _network_factors(
    variance: np.ndarray, block_widths: Sequence[int] | None, network_widths: Sequence[int] | None
) -> np.ndarray:
    _check_widths("block", block_widths, len(variance))
    _check_widths("network", network_widths, len(variance))
    assert block_widths is not None and network_widths is not None, "checked"
    ends = np.cumsum(block_widths)
    factors, start = [], 0
    for width in network_widths:
        own, stop = variance[start : start + width], start + width
        one = int(((ends > start) & (ends <= stop)).sum()) == 1
        factor = np.ones_like(own) if one else _filled(own) ** -0.25
        power = float((own * factor**2).mean())
        factors.append(factor / np.sqrt(power) if power > 0 else factor)
        start = stop
    return np.concatenate(factors)


def _check_widths(of: str, widths: Sequence[int] | None, num_columns: int) -> None:
    if widths is None or sum(widths) != num_columns or min(widths) < 1:
        raise SettingError(
            f"scaling by {of} got {of}_widths={None if widths is None else list(widths)}.",
            expected=f"positive widths that add up to the {num_columns} columns of the features.",
            mend=f'pass {of}_widths with the width of each {of}, or scaling="root", which needs none.',
        )
