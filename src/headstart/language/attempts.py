"""Strategies tried one after the other, and the one that is kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.artifact.store import HISTORY
from headstart.backbones.causal import CausalBackbone
from headstart.config import FitSettings
from headstart.language.judging import Losses, Verdict, changed, compare, measure
from headstart.language.packing import Blocks
from headstart.language.rules import BUDGET_OF_FIRST, LEAST_BUDGET_SECONDS, plan_for, strategies_for
from headstart.language.training import Trained, train
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.logs import CSVLogger, ProgressBar
from headstart.tuning.callbacks.stopping import TimeBudget
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.plan import TuningPlan

# An epoch of everything, by one of some of the layers: their share of it, and what the frozen ones cost at least.
WHOLE_EPOCH = 1.5


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What every strategy stands on."""

    backbone: CausalBackbone
    train: Blocks
    watch: Blocks
    valid: Blocks
    settings: FitSettings
    folder: Path
    checkpoints: Path
    data: str
    """What the corpus is called, for a checkpoint that must not be of another."""
    callbacks: tuple[Callback, ...] = ()
    progress: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A strategy that was tried, or not."""

    strategy: str
    told: str
    trained: Trained | None = None
    verdict: Verdict | None = None

    def as_json(self, *, kept: bool) -> dict[str, Any]:
        """As the report holds it."""
        found = self.trained
        return {
            "strategy": self.strategy,
            "kept": kept,
            "told": self.told,
            "history": [] if found is None else found.history,
            "plan": {} if found is None else found.plan.as_json(),
            "kept_epoch": None if found is None else found.kept_epoch,
            "why_stopped": "" if found is None else found.why_stopped,
            "states": "" if found is None else found.told,
            "seconds": 0.0 if found is None else found.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was kept of all attempts."""

    attempts: tuple[Attempt, ...]
    kept: Attempt | None
    """None where the model stays as it was."""
    reason: str


def choose(ground: Ground) -> Choice:
    """Try what is asked for; for 'auto' keep the best of what is better than the model as it was, if any is.

    Args:
        ground: corpus, model and settings.

    Returns:
        The attempts and the choice.
    """
    settings = ground.settings
    strategies = strategies_for(ground.backbone, settings)
    if not strategies:
        return Choice(attempts=(), kept=None, reason="nothing was tuned, as asked")
    before = measure(ground.backbone, ground.valid)
    ends = time.perf_counter() + settings.budget_seconds if settings.budget_seconds else None
    attempts: list[Attempt] = []
    for strategy in strategies:
        why_not = _why_not(ground, strategy, attempts, ends)
        attempts.append(Attempt(strategy=strategy, told=why_not) if why_not else _try(ground, strategy, before, ends))
    if settings.strategy != "auto":
        return Choice(attempts=tuple(attempts), kept=attempts[0], reason=f"as asked; {attempts[0].told}")
    passed = [attempt for attempt in attempts if attempt.verdict is not None and attempt.verdict.passed]
    if not passed:
        return Choice(
            attempts=tuple(attempts), kept=None, reason="no strategy was better than the model as it was beyond doubt"
        )
    best = max(passed, key=lambda attempt: attempt.verdict.gain if attempt.verdict else 0.0)
    return Choice(attempts=tuple(attempts), kept=best, reason=best.told)


def _why_not(ground: Ground, strategy: str, before: Sequence[Attempt], ends: float | None) -> str:
    """Why a further strategy is not tried; '' where it is."""
    trained = next((attempt.trained for attempt in before if attempt.trained), None)
    if trained is None or _checkpoint_path(ground, strategy).is_file():
        return ""
    layers = int(trained.strategy[5:])
    epoch = max(row["seconds"] for row in trained.history) * WHOLE_EPOCH * ground.backbone.num_layers / layers
    room = max(LEAST_BUDGET_SECONDS, BUDGET_OF_FIRST * trained.seconds) if ends is None else ends - time.perf_counter()
    needed = 2 * epoch if ends is not None else trained.plan.epochs * epoch
    return f"not tried: it takes about {needed:.0f} s, and {max(room, 0):.0f} s are left (--budget)" if needed > room else ""


def _try(ground: Ground, strategy: str, before: Losses, ends: float | None) -> Attempt:
    plan = plan_for(strategy, num_blocks=len(ground.train), width=ground.backbone.info.width, settings=ground.settings)
    callbacks: list[Callback] = [*ground.callbacks]
    if ends is not None and ground.settings.epochs is None:
        callbacks.append(TimeBudget(max(ends - time.perf_counter(), 1e-3)))
    callbacks.append(CSVLogger(ground.folder / HISTORY))
    progress = ground.progress
    if progress is not None:
        callbacks.append(ProgressBar(lambda done, total: progress(f"tuning {strategy}", done, total)))
    found = train(
        ground.backbone,
        (ground.train, ground.watch),
        plan,
        folder=ground.folder,
        callbacks=callbacks,
        checkpoint=_checkpoint(ground, plan),
    )
    with changed(ground.backbone, found.changes) as tuned:
        verdict = compare(measure(tuned, ground.valid), before, ground.settings.seed)
    return Attempt(strategy=strategy, told=verdict.told, trained=found, verdict=verdict)


def _checkpoint(ground: Ground, plan: TuningPlan) -> Checkpoint:
    info = ground.backbone.info
    tokens = hashlib.sha256(ground.train.read.tobytes() + ground.train.following.tobytes()).hexdigest()[:12]
    about = {
        "backbone": f"{info.name} ({info.sha256[:12]})",
        "data": f"{ground.data} ({tokens})",
        "context": str(ground.train.read.shape[1]),
        **{name: str(value) for name, value in plan.as_json().items() if name != "reasons"},
    }
    return Checkpoint(path=_checkpoint_path(ground, plan.strategy), about=about, resume=ground.settings.resume)


def _checkpoint_path(ground: Ground, strategy: str) -> Path:
    return ground.checkpoints / f"{strategy.replace(':', '-')}.pt"
