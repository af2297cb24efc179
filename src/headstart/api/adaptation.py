"""From the floor to what is kept: strategies proposed, tried at the gate, trained, and put in the floor's place or not."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.api.views import rate_of
from headstart.backbones import BackboneSource
from headstart.config import FitSettings
from headstart.errors import MissingPackageError, SettingError, TuningError, extra_of, install_command
from headstart.features import FeatureTable
from headstart.features.clips import why_not_tuned
from headstart.features.device import accelerator
from headstart.features.fusion import parts_of
from headstart.features.prefix import Prefix
from headstart.records import Dataset, Finding, Splits
from headstart.report.attempted import describe_skipped
from headstart.select.cost import Cost, predict_cost, read_rates
from headstart.select.floor import Floor, FloorPlan
from headstart.select.geometry import GeometryChoice
from headstart.select.precision import PrecisionChoice
from headstart.select.rules import Circumstances, make_plan
from headstart.select.strategy import (
    Attempt,
    budget_seconds,
    check_pairs,
    check_strategy,
    possible,
    propose,
    why_good_enough,
)
from headstart.tuning.plan import TuningPlan

if TYPE_CHECKING:
    from headstart.select.trials import Trial
    from headstart.tuning.callbacks.base import Callback

CHECKPOINTS = "checkpoints"
# What was decided by the clock is kept here while a fit runs, so that a resumed one decides the same.
DECIDED = "tuning.json"
NOT_TUNED = "several backbones together answer, and those are not tuned: to tune one, name it alone"


@dataclass(frozen=True, kw_only=True)
class Bottom:
    """The floor, and all it stands on."""

    source: BackboneSource
    settings: FitSettings
    dataset: Dataset
    prefix: Prefix
    geometry: GeometryChoice
    precision: PrecisionChoice
    table: FeatureTable
    flips: list[dict[str, Any]]
    """Whether mirrored views were added, as a question asked of the data."""
    findings: list[Finding]
    splits: Splits
    floor: Floor
    plan: FloorPlan
    seconds: float
    """That it took, features included."""
    contest: FeatureTable
    """What the floor was chosen from: `table`, or the features by several networks of which that is one's."""


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
    trained_head: dict[str, Any] | None = None
    """The candidate that the question of the head gains, where a trained head was asked for: name, score and note."""
    code: str = ""
    """Why it came to this, for programs: 'as_asked', 'nothing_to_gain', 'too_few_items', 'no_torch', 'over_budget',
    'not_tunable', 'not_better' or 'better'."""


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
    strategy, info = settings.strategy, bottom.prefix.spec.info
    trained_head = settings.head == "mlp"
    if strategy == "auto" and not trained_head and (why := NOT_TUNED if bottom.source.parts else why_not_tuned(bottom.prefix)):
        return floor_kept(bottom, why, code="not_tunable")
    strategy = check_strategy(strategy, info)
    check_pairs(strategy, bottom.dataset, bottom.splits)
    if settings.resume:
        _refuse_other_strategy(folder, strategy, settings)
    facts = _circumstances(bottom)
    if trained_head and strategy in {"auto", "extract"}:
        from headstart.api.hidden import with_hidden_head

        return with_hidden_head(bottom, folder, facts, callbacks=callbacks, progress=progress)
    if strategy == "extract":
        return floor_kept(bottom, "as asked: the exact head on frozen features", code="as_asked")
    if strategy == "auto":
        return _search(bottom, folder, facts, callbacks, progress)
    from headstart.api.attempts import Attempts

    return Attempts(bottom, folder, facts, callbacks=callbacks, progress=progress).as_asked(strategy)


def _search(
    bottom: Bottom,
    folder: Path,
    facts: Circumstances,
    callbacks: Sequence[Callback],
    progress: Callable[[str, int, int], None] | None,
) -> Adaptation:
    """What `auto` does: torch is loaded only for strategies that fit the budget."""
    if why := why_good_enough(bottom.floor.choice.chosen):
        return floor_kept(bottom, why, code="nothing_to_gain")
    proposed, why = propose(bottom.dataset, bottom.splits, facts)
    proposed = possible(proposed, bottom.prefix.spec.info)
    if not proposed:
        return floor_kept(bottom, why, code="too_few_items")
    if missing := _missing_package():
        command = install_command(extra_of(missing))
        return floor_kept(bottom, f"fine-tuning was not tried: it needs {missing}: {command}", code="no_torch")
    budget = budget_seconds(bottom.settings, floor_seconds=bottom.seconds, device=facts.device)
    costs = {name: cost_of(bottom, plan_for(bottom, name, facts)) for name in proposed}
    affordable = [name for name in proposed if costs[name].least_seconds <= budget]
    skipped = tuple(
        over_budget(plan_for(bottom, name, facts), costs[name].least_seconds) for name in proposed if name not in affordable
    )
    if not affordable:
        return replace(
            floor_kept(bottom, describe_skipped([one.as_json() for one in skipped]), code="over_budget"), attempts=skipped
        )
    from headstart.api.attempts import Attempts

    attempts = Attempts(bottom, folder, facts, callbacks=callbacks, progress=progress)
    found = attempts.in_turn(affordable, budget)
    return replace(found, attempts=(*skipped, *found.attempts))


def plan_for(bottom: Bottom, strategy: str, facts: Circumstances) -> TuningPlan:
    """The rules' plan, with class weights where the floor found them worth having."""
    plan = make_plan(strategy, facts, bottom.settings)
    weighted = any(asked["question"] == "class weights" and asked["kept"] == "weights" for asked in bottom.floor.choices)
    return replace(plan, balance="weights") if weighted else plan


def cost_of(bottom: Bottom, plan: TuningPlan, *, started: bool = False) -> Cost:
    """What a strategy will take on this machine.

    Args:
        bottom: the floor.
        plan: of the strategy.
        started: whether torch is loaded and the network open.
    """
    return predict_cost(
        plan,
        bottom.prefix.spec.info,
        num_items=len(bottom.splits.train),
        has_valid=bool(bottom.splits.valid),
        items_per_second=rate_of(bottom.table, bottom.prefix, bottom.dataset),
        rates=read_rates(bottom.prefix.model_path),
        started=started,
    )


def over_budget(plan: TuningPlan, needed_seconds: float) -> Attempt:
    """A strategy that was not tried for lack of time.

    Args:
        plan: of the strategy.
        needed_seconds: the least budget that it would take.
    """
    return Attempt(
        strategy=plan.strategy,
        kept=False,
        reason="it does not fit the budget",
        seconds=0.0,
        plan=plan.as_json(),
        code="over_budget",
        needed_seconds=needed_seconds,
    )


def require_tuning(settings: FitSettings) -> None:
    """Refuse a strategy or head that is trained where the packages for it are not installed, before any work.

    Args:
        settings: of the fit.

    Raises:
        MissingPackageError: naming what to install.
    """
    trains = settings.strategy not in {"auto", "extract"} or settings.head == "mlp"
    if trains and (missing := _missing_package()):
        purpose = f"strategy {settings.strategy!r}" if settings.head != "mlp" else "a head with hidden layers"
        raise MissingPackageError(missing, purpose=purpose)


def check_tunable(settings: FitSettings, prefix: Prefix) -> None:
    """Refuse to tune a network on items on which it cannot be tuned.

    Args:
        settings: of the fit.
        prefix: that the items go through.

    Raises:
        SettingError: if a strategy that trains the network is asked for.
    """
    why = " ".join({why_not_tuned(part) for part in parts_of(prefix)})
    if why and settings.strategy not in {"auto", "extract"}:
        raise SettingError(
            f"strategy is {settings.strategy!r}, and {why}.",
            expected="--strategy auto or extract; or pictures only.",
            mend="--strategy extract; or take frames out of the clips, and keep those of one clip together by --group-column.",
        )


def _refuse_other_strategy(folder: Path, strategy: str, settings: FitSettings) -> None:
    """A checkpoint of another strategy would be passed over in silence: each strategy's has a name of its own."""
    trained = "head" if settings.head == "mlp" and strategy in {"auto", "extract"} else strategy
    found = sorted(path.stem for path in (folder / CHECKPOINTS).glob("*.pt"))
    if trained == "auto" or any(name.startswith(checkpoint_name(trained)) for name in found):
        return
    raise TuningError(
        f"the checkpoints in {folder} are of another training: {', '.join(found)}; and the strategy is {strategy}"
        f"{', with head mlp' if settings.head == 'mlp' else ''}.",
        expected="the same data, backbone and options as when they were written.",
        mend="repeat them, or begin again without --resume.",
    )


def checkpoint_name(training: str) -> str:
    """The name of a training's checkpoint file, without its ending.

    Args:
        training: a strategy, and the fold it is tried in, if any.
    """
    return training.replace(":", "-").replace(" ", "-")


def _missing_package() -> str | None:
    return next((name for name in ("torch", "accelerate") if importlib.util.find_spec(name) is None), None)


def floor_kept(bottom: Bottom, reason: str, *, code: str) -> Adaptation:
    """The floor answers."""
    return Adaptation(
        strategy="extract",
        cut=None,
        reason=reason,
        code=code,
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
        modality=bottom.dataset.modality,
    )


def clear_traces(folder: Path) -> None:
    """Remove what only a resumed fit needs."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / DECIDED).unlink(missing_ok=True)
