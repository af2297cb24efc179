"""Trying strategies one after the other within the budget, and taking up the one that is kept. Loads torch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from headstart import runtime
from headstart.api.adaptation import DECIDED, Adaptation, Bottom, cost_of, floor_kept, over_budget, plan_for
from headstart.api.checkpoints import make_checkpoint
from headstart.api.planning import default_callbacks
from headstart.api.taking_up import take_up
from headstart.api.views import rate_of
from headstart.backbones.catalog import open_source
from headstart.data.targets import encode_targets
from headstart.errors import TuningError
from headstart.memory import require_addresses
from headstart.preprocess.image import ImagePreprocess
from headstart.report.attempted import describe_skipped
from headstart.select.contrastive import train_strategy
from headstart.select.cost import Cost, Rate, keep_rate
from headstart.select.gate import Verdict, hold_gate
from headstart.select.mirror import mirror_keeps_labels
from headstart.select.rules import Circumstances, with_epochs
from headstart.select.scoring import scores_of
from headstart.select.strategy import Attempt
from headstart.select.trials import Trial, fit_in_budget, seconds_an_item, try_strategy, with_found_rate
from headstart.select.tuned import Ground, Prepared, Trained, prepare
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.plan import TuningPlan

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A strategy that the gate let pass."""

    trial: Trial
    plan: TuningPlan
    seconds: float
    """That its last training will take."""


# Beside the weights: activations, threads and their arenas. A fit of a small network on images of 64 pixels takes 0.45 GB.
_LEAST_BYTES = 384 << 20


def _least_bytes(bottom: Bottom) -> int:
    """The least that a training takes: float32 weights, their gradients and the two moments of an optimiser, and more."""
    return _LEAST_BYTES + 4 * 4 * sum(block.num_parameters for block in bottom.prefix.spec.info.blocks)


class Attempts:
    """The strategies of one fit, on common ground."""

    def __init__(
        self,
        bottom: Bottom,
        folder: Path,
        facts: Circumstances,
        *,
        callbacks: Sequence[Callback] = (),
        progress: Progress | None = None,
    ) -> None:
        self.bottom, self.folder, self.callbacks, self.progress = bottom, folder, tuple(callbacks), progress
        started = time.perf_counter()
        runtime.raise_malloc_thresholds()
        # A table of vectors does so little for a batch that threads wait for each other longer than they work.
        torch.set_num_threads(1 if bottom.source.static else runtime.num_cores())
        preprocess = bottom.table.preprocess
        side = preprocess.image_size if isinstance(preprocess, ImagePreprocess) else None
        backbone = open_source(bottom.source, image_size=side)
        require_addresses(_least_bytes(bottom))
        self.facts = replace(facts, transformer=backbone.mostly_linear)
        self._rated: set[str] = set()
        """Strategies whose learning rate was found by a range test."""
        self.ground = Ground(
            source=bottom.source,
            backbone=backbone,
            table=bottom.table,
            dataset=bottom.dataset,
            splits=bottom.splits,
            image_size=bottom.settings.image_size,
        )
        self._start_seconds = time.perf_counter() - started

    def as_asked(self, strategy: str) -> Adaptation:
        """Train the strategy the user asked for; it is kept, and compared with the floor all the same."""
        started = time.perf_counter()
        trial = None
        with self._prepare(self._plan(strategy)) as prepared:
            prepared = self._within_budget(prepared)
            # Features learned from every label say nothing of how sure their answers should be.
            if prepared.plan.by_pairs or not self.bottom.splits.test:
                trial = self._hold_out(prepared, num_folds=5)
            trained = self._train(prepared)
            verdict = trial.verdict if trial else self._on_valid(prepared, trained)
            attempt = _attempt(prepared, trained, verdict, f"as asked; {verdict.told}", started)
            return self._take_up(prepared, trained, (attempt,), trial)

    def in_turn(self, strategies: Sequence[str], budget: float) -> Adaptation:
        """Try each strategy at the gate as long as the budget lasts, and keep the best that passes."""
        ends = time.perf_counter() + budget
        tried: list[Attempt] = []
        passed: list[Passed] = []
        for strategy in strategies:
            reserved = max((found.seconds for found in passed), default=0.0)
            attempt, found = self._try(strategy, ends - reserved)
            tried.append(attempt)
            if found is not None:
                passed.append(found)
        if not passed:
            skipped = [attempt for attempt in tried if attempt.code]
            why = describe_skipped([one.as_json() for one in skipped]) if len(skipped) == len(tried) else _why_floor(tried)
            code = "over_budget" if len(skipped) == len(tried) else "not_better"
            return replace(floor_kept(self.bottom, why, code=code), attempts=tuple(tried))
        best = max(passed, key=lambda found: found.trial.verdict.loss_gain)
        plan, verdict = best.plan, best.trial.verdict
        started = time.perf_counter()
        with self._prepare(plan) as prepared:
            trained = self._train(prepared)
            kept = _attempt(prepared, trained, verdict, verdict.told, started)
            others = [attempt for attempt in tried if attempt.strategy != plan.strategy]
            spent = next(attempt.seconds for attempt in tried if attempt.strategy == plan.strategy)
            return self._take_up(prepared, trained, (*others, replace(kept, seconds=kept.seconds + spent)), best.trial)

    def _try(self, strategy: str, ends: float) -> tuple[Attempt, Passed | None]:
        """Try one strategy at the gate."""
        started = time.perf_counter()
        plan = self._plan(strategy)
        cost = cost_of(self.bottom, plan, started=True)
        if started + cost.least_seconds > ends:
            return over_budget(plan, cost.least_seconds + self._start_seconds), None
        with self._prepare(plan) as prepared:
            decided = self._decided().get(strategy) if self.bottom.settings.resume else None
            if decided is None:
                each = cost.seconds_an_item if cost.measured else self._measure(prepared, cost)
                fitted = fit_in_budget(prepared, seconds_an_item=each, seconds=ends - time.perf_counter())
                if fitted is None:
                    needed = self._start_seconds + cost_of(self.bottom, plan).least_seconds
                    return replace(over_budget(plan, needed), seconds=time.perf_counter() - started), None
                prepared, num_folds = fitted
                decided = {"epochs": prepared.plan.epochs, "num_folds": num_folds, "seconds_an_item": each}
                self._decide(strategy, decided)
            plan = with_epochs(prepared.plan, int(decided["epochs"]), prepared.plan.reasons.get("epochs", ""))
            prepared = replace(prepared, plan=plan)
            trial = self._hold_out(prepared, num_folds=int(decided["num_folds"]), may_stop=bool(self.bottom.splits.test))
        seconds = time.perf_counter() - started
        attempt = Attempt(
            strategy=strategy,
            kept=False,
            reason=trial.verdict.told,
            seconds=seconds,
            plan=plan.as_json(),
            verdict=trial.verdict,
        )
        if not trial.verdict.passed:
            return attempt, None
        last = decided["seconds_an_item"] * len(self.bottom.splits.train) * plan.epochs
        return attempt, Passed(trial=trial, plan=plan, seconds=last)

    def _within_budget(self, prepared: Prepared) -> Prepared:
        """With as many epochs of a strategy that was asked for as fit the budget, where there is one; the same when resumed."""
        settings, plan = self.bottom.settings, prepared.plan
        if settings.budget is None or settings.epochs is not None:
            return prepared
        decided = self._decided().get(plan.strategy) if settings.resume else None
        if decided is None:
            each = self._measure(prepared, cost_of(self.bottom, plan)) * len(self.bottom.splits.train)
            decided = {"epochs": max(1, min(plan.epochs, int(settings.budget_seconds / each)))}
            self._decide(plan.strategy, decided)
        epochs = int(decided["epochs"])
        if epochs == plan.epochs:
            return prepared
        return replace(prepared, plan=with_epochs(plan, epochs, f"what fits {settings.budget_seconds:.0f} s"))

    def _measure(self, prepared: Prepared, cost: Cost) -> float:
        """Seconds of training an item, measured, and kept beside the compiled network for later fits."""
        bottom = self.bottom
        each = seconds_an_item(prepared, bottom.floor, expected=cost.seconds_an_item)
        passes = each * rate_of(bottom.table, bottom.prefix, bottom.dataset)
        keep_rate(bottom.prefix.model_path, prepared.plan.strategy, Rate(passes=passes, start_seconds=self._start_seconds))
        return each

    def _hold_out(self, prepared: Prepared, *, num_folds: int, may_stop: bool = False) -> Trial:
        names = [f"{prepared.plan.strategy} fold {fold + 1}" for fold in range(num_folds)]
        checkpoints = [self._checkpoint(prepared, name) for name in names]
        bottom, told = self.bottom, partial(self._tell, f"trying {prepared.plan.strategy}")
        return try_strategy(
            prepared,
            bottom.plan,
            bottom.floor.labels,
            num_folds=num_folds,
            checkpoints=checkpoints,
            progress=told,
            may_stop=may_stop,
        )

    def _train(self, prepared: Prepared) -> Trained:
        checkpoint = self._checkpoint(prepared, prepared.plan.strategy)
        callbacks = (*self.callbacks, *default_callbacks(self.folder, self.progress))
        bottom = self.bottom
        how = {"callbacks": callbacks, "checkpoint": checkpoint}
        return train_strategy(prepared, bottom.plan, bottom.floor.labels, bottom.splits.train, **how)

    def _on_valid(self, prepared: Prepared, trained: Trained) -> Verdict:
        """A comparison on the validation items, where the strategy was asked for and is kept in any case."""
        ids, task, floor = trained.valid_ids, self.bottom.dataset.task, trained.start
        scores = scores_of(trained.network, prepared.inputs, ids)
        verdict = hold_gate(
            scores,
            floor.tempered_scores(self.bottom.table, ids),
            encode_targets(self.bottom.dataset, ids, floor.labels),
            task,
            groups=None,
            seed=prepared.plan.seed,
            basis=f"{len(ids)} validation items, which chose the weights, too",
        )
        return replace(verdict, passed=False, chosen=True)

    def _take_up(self, prepared: Prepared, trained: Trained, attempts: tuple[Attempt, ...], trial: Trial | None) -> Adaptation:
        """Compile the tuned network, and put it in the frozen one's place."""
        told = partial(self._tell, "features of the tuned network")
        calibration = trial.calibration if trial else None
        prefix, table, answering = take_up(self.bottom, self.folder, prepared, trained, calibration=calibration, progress=told)
        return Adaptation(
            strategy=prepared.plan.strategy,
            cut=prepared.cut,
            reason=attempts[-1].reason,
            code="better" if trial and trial.verdict.passed else "as_asked",
            attempts=attempts,
            prefix=prefix,
            table=table,
            answering=answering,
            trial=trial,
            notes=(prepared.note,) if prepared.note else (),
        )

    def _plan(self, strategy: str) -> TuningPlan:
        plan = plan_for(self.bottom, strategy, self.facts)
        if not plan.num_views:
            return plan
        mirrored, why = self._mirror
        return replace(plan, mirrored=mirrored, reasons=plan.reasons | {"mirrored": why})

    @cached_property
    def _mirror(self) -> tuple[bool, str]:
        bottom = self.bottom
        return mirror_keeps_labels(bottom.prefix, bottom.table, bottom.dataset, bottom.splits, bottom.plan)

    @contextmanager
    def _prepare(self, plan: TuningPlan) -> Iterator[Prepared]:
        told = partial(self._tell, f"features for {plan.strategy}")
        with prepare(self.ground, plan, told) as prepared:
            if self.bottom.settings.find_learning_rate and not plan.by_pairs and plan.strategy not in self._rated:
                self._rated.add(plan.strategy)
                prepared = with_found_rate(prepared, self.bottom.floor)
            yield prepared

    def _checkpoint(self, prepared: Prepared, name: str) -> Checkpoint:
        return make_checkpoint(self.bottom, self.folder, prepared.plan, cut=prepared.cut, name=name)

    def _decided(self) -> dict[str, dict[str, float]]:
        path = self.folder / DECIDED
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _decide(self, strategy: str, numbers: dict[str, float]) -> None:
        told = json.dumps(self._decided() | {strategy: numbers})
        runtime.atomic_write_text(self.folder / DECIDED, told, error=TuningError)

    def _tell(self, step: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(step, done, total)


def _attempt(prepared: Prepared, trained: Trained, verdict: Verdict, reason: str, started: float) -> Attempt:
    plan = prepared.plan.as_json() | {"share_of_tuned_weights": trained.share, "kept_epoch": trained.kept_epoch}
    return Attempt(
        strategy=prepared.plan.strategy,
        kept=True,
        reason=reason,
        seconds=time.perf_counter() - started,
        plan=plan,
        verdict=verdict,
        history=tuple(trained.outcome.history),
    )


def _why_floor(tried: Sequence[Attempt]) -> str:
    return "; ".join(f"{attempt.strategy}: {attempt.reason}" for attempt in tried)
