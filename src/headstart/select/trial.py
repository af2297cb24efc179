"""One trial: a ridge head cross-validated on some features, and what two trials on the same items say of each other.

Ridge is the yardstick wherever features are compared (geometry, blocks, views): one decomposition gives every item's
out-of-fold scores, so that a comparison costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.features import FeatureTable
from headstart.heads.choose import ChoicePlan, choose_head
from headstart.heads.judge import mean_and_error
from headstart.records import Task


@dataclass(frozen=True, kw_only=True)
class Contestants:
    """The items that features are compared on."""

    task: Task
    targets: np.ndarray
    """As `encode_targets` gives them."""
    num_classes: int
    groups: np.ndarray | None = None
    """(N,) group of each item, if any has one; groups are left out together."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How well one kind of features did."""

    name: str
    losses: np.ndarray
    """(N,) out-of-fold loss of each known item (`heads.folds.known_rows`): log-loss in nats, or squared error (value task)."""
    score: float
    """Accuracy in [0, 1]; R² for the value task."""
    note: str = ""
    clusters: np.ndarray | None = None
    """(N,) int64, the group of each of these items, if any has one."""

    @property
    def loss(self) -> float:
        """Mean over the items."""
        return float(self.losses.mean())

    def as_json(self) -> dict[str, object]:
        """As a candidate of the report's choices."""
        return {"name": self.name, "score": round(self.score, 4), "note": self.note or f"loss {self.loss:.4f}"}


def hold_block_trial(
    name: str, table: FeatureTable, block: str, items: Contestants, *, seed: int, ids: Sequence[str] | None = None
) -> Trial:
    """Cross-validate ridge on a block's features, whatever networks and kinds of numbers they are of.

    Args:
        name: what the features are called.
        table: of the items.
        block: the name of its features.
        items: what they are to tell.
        seed: as for `hold_trial`.
        ids: of the items, in their order; None for all of the table.

    Returns:
        The trial.
    """
    spec = table.spec
    return hold_trial(
        name, table.features(block, ids), spec.widths(block), items, seed=seed, network_widths=spec.network_widths(block)
    )


def hold_trial(
    name: str,
    features: np.ndarray,
    block_widths: tuple[int, ...],
    items: Contestants,
    *,
    seed: int,
    network_widths: tuple[int, ...] | None = None,
) -> Trial:
    """Cross-validate ridge on some features.

    Args:
        name: what the features are called.
        features: (N, D) float32.
        block_widths: widths of the blocks side by side in them.
        items: what they are to tell.
        seed: deals the items to folds; the same for every trial of a comparison.
        network_widths: columns of each network, where the features are of several.

    Returns:
        The trial.
    """
    plan = ChoicePlan(seed=seed, candidates=("ridge",), block_widths=block_widths, network_widths=network_widths)
    choice = choose_head(
        features, items.targets, task=items.task, num_classes=items.num_classes or None, groups=items.groups, plan=plan
    )
    if items.task != "value":
        score, losses = float(choice.chosen.cv_accuracy or 0.0), choice.losses[choice.known]
        return Trial(name=name, losses=losses, score=score, clusters=_clusters(items, choice.rows[choice.known]))
    targets, scores = items.targets[choice.rows], choice.scores.astype(np.float64)
    losses = (scores[:, 0] - targets) ** 2
    score = float(1.0 - losses.mean() / max(float(targets.var()), 1e-300))
    return Trial(name=name, losses=losses, score=score, clusters=_clusters(items, choice.rows))


def _clusters(items: Contestants, rows: np.ndarray) -> np.ndarray | None:
    return None if items.groups is None else np.unique(items.groups[rows], return_inverse=True)[1]


def better(challenger: Trial, holder: Trial, *, errors: float = 1.0) -> tuple[bool, str]:
    """Whether a challenger's loss is lower by more than `errors` standard errors of the paired difference, and so in words."""
    gain, error = mean_and_error(holder.losses - challenger.losses, holder.clusters)
    return gain > errors * error, f"{challenger.name} against {holder.name}: {tell_gain(gain, error)}"


def tell_gain(gain: float, error: float) -> str:
    """By how much a loss is lower, or higher where the gain is below 0, and its standard error, in words."""
    return f"loss {'higher' if gain < 0 else 'lower'} by {abs(gain):.4f} ± {error:.4f}"


def question(asked: str, kept: str, reason: str, trials: Any = ()) -> dict[str, Any]:  # noqa: ANN401 - any iterable of trials
    """One question asked of the data, as the report shows it."""
    return {"question": asked, "kept": kept, "reason": reason, "candidates": [trial.as_json() for trial in trials]}
