"""From the floor to what is kept: strategies proposed, tried at the gate, trained, and put in the floor's place or not."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones import BackboneSource
from headstart.config import FitSettings
from headstart.errors import MissingPackageError
from headstart.features import FeatureTable
from headstart.features.device import accelerator
from headstart.features.prefix import Prefix
from headstart.records import Dataset, Finding, Splits
from headstart.select.floor import Floor, FloorPlan
from headstart.select.geometry import GeometryChoice
from headstart.select.rules import Circumstances
from headstart.select.strategy import Attempt, check_strategy, propose

if TYPE_CHECKING:
    from headstart.select.trials import Trial
    from headstart.tuning.callbacks.base import Callback

HISTORY, LOGS, CHECKPOINTS = "history.csv", "logs", "checkpoints"
# What was decided by the clock is kept here while a fit runs, so that a resumed one decides the same.
DECIDED = "tuning.json"


@dataclass(frozen=True, kw_only=True)
class Bottom:
    """The floor, and all it stands on."""

    source: BackboneSource
    settings: FitSettings
    dataset: Dataset
    prefix: Prefix
    geometry: GeometryChoice
    table: FeatureTable
    flips: list[dict[str, Any]]
    """Whether mirrored views were added, as a question asked of the data."""
    findings: list[Finding]
    splits: Splits
    floor: Floor
    plan: FloorPlan
    seconds: float
    """That it took, features included."""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What answers in the end, and how it came to."""

    strategy: str
    cut: str | None
    """The last frozen block; None where the strategy freezes all or none."""
    reason: str
    attempts: tuple[Attempt, ...]
    prefix: Prefix
    table: FeatureTable
    """Features of all items by the network that answers."""
    answering: Floor
    trial: Trial | None = None
    """Out-of-fold answers, where there is no test split to evaluate on."""
    notes: tuple[str, ...] = ()


def adapt(
    bottom: Bottom,
    folder: Path,
    *,
    callbacks: Sequence[Callback] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Adaptation:
    """Try what the settings, the data and the budget allow beyond the floor, and keep what is better.

    Args:
        bottom: the floor.
        folder: where weights, history, logs and checkpoints go.
        callbacks: of the user's, told of the last training.
        progress: told of each step's items.

    Returns:
        What is kept: the floor itself, or a tuned network.

    Raises:
        SettingError: if the strategy is none for this backbone.
        TuningError: if a training fails.
        MissingPackageError: if a strategy is asked for and its packages are not installed.
    """
    settings = bottom.settings
    strategy = check_strategy(settings.strategy, bottom.prefix.spec.info)
    if strategy == "extract":
        return floor_kept(bottom, "as asked: the exact head on frozen features")
    facts = _circumstances(bottom)
    proposed, why_none = propose(bottom.dataset, bottom.splits, facts) if strategy == "auto" else ((strategy,), "")
    if not proposed:
        return floor_kept(bottom, why_none)
    missing = next((name for name in ("torch", "accelerate") if importlib.util.find_spec(name) is None), None)
    if missing and strategy == "auto":
        return floor_kept(bottom, f"tuning needs {missing}, which is not installed")
    if missing:
        raise MissingPackageError(missing, extra="train", purpose="tuning")
    from headstart.api.attempts import Attempts

    attempts = Attempts(bottom, folder, facts, callbacks=callbacks, progress=progress)
    return attempts.as_asked(strategy) if strategy != "auto" else attempts.in_turn(proposed)


def floor_kept(bottom: Bottom, reason: str) -> Adaptation:
    """The floor answers."""
    return Adaptation(
        strategy="extract",
        cut=None,
        reason=reason,
        attempts=(),
        prefix=bottom.prefix,
        table=bottom.table,
        answering=bottom.floor,
    )


def _circumstances(bottom: Bottom) -> Circumstances:
    return Circumstances(
        num_items=len(bottom.splits.train),
        num_classes=len(bottom.floor.labels),
        device=accelerator(),
        pretrained=bottom.source.kind != "random" or bottom.source.changes_path is not None,
        transformer=False,
    )


def clear_traces(folder: Path) -> None:
    """Remove what only a resumed fit needs."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / DECIDED).unlink(missing_ok=True)
