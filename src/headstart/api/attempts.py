"""Trying strategies one after the other within the budget, and taking up the one that is kept. Loads torch."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from headstart import runtime
from headstart.api.adaptation import DECIDED, HISTORY, LOGS, Adaptation, Bottom, floor_kept
from headstart.api.checkpoints import make_checkpoint
from headstart.api.views import rate_of
from headstart.api.writing import require_compiled
from headstart.backbones.catalog import open_source
from headstart.backbones.files import CHANGES
from headstart.data.targets import encode_targets
from headstart.errors import TuningError
from headstart.features import compile_prefix, extract
from headstart.select.floor import calibrate
from headstart.select.gate import Verdict, hold_gate
from headstart.select.mirror import mirror_keeps_labels
from headstart.select.rules import Circumstances, make_plan, with_epochs
from headstart.select.strategy import Attempt, budget_seconds
from headstart.select.trials import Trial, fit_in_budget, least_passes, seconds_an_item, try_strategy, with_found_rate
from headstart.select.tuned import Ground, Prepared, Trained, answers_of, changed_tensors, prepare, scores_of, train_from_floor
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.logs import CSVLogger, ProgressBar
from headstart.tuning.callbacks.stopping import kept_epoch
from headstart.tuning.callbacks.tensor_board import TensorBoard
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.plan import TuningPlan

Progress = Callable[[str, int, int], None]
# The states that tuning saw are rounded to float16, and the saved network's are not.
SAME_SCORES = 0.05


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
        runtime.raise_malloc_thresholds()
        torch.set_num_threads(runtime.num_cores())
        image_size = bottom.table.preprocess.image_size
        backbone = open_source(bottom.source, image_size=image_size)
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

    def as_asked(self, strategy: str) -> Adaptation:
        """Train the strategy the user asked for; it is kept, and compared with the floor all the same."""
        started = time.perf_counter()
        trial = None
        with self._prepare(self._plan(strategy)) as prepared:
            if not self.bottom.splits.test:
                trial = self._hold_out(prepared, num_folds=5)
            trained = self._train(prepared)
            verdict = trial.verdict if trial else self._on_valid(prepared, trained)
            ended = kept_epoch(self.callbacks, len(trained.outcome.history))
            attempt = _attempt(prepared, trained, verdict, f"as asked; {verdict.told}", started, ended)
            return self._take_up(prepared, trained, (attempt,), trial)

    def in_turn(self, strategies: Sequence[str]) -> Adaptation:
        """Try each strategy at the gate as long as the budget lasts, and keep the best that passes."""
        settings = self.bottom.settings
        budget = budget_seconds(settings, floor_seconds=self.bottom.seconds, device=self.facts.device)
        ends = time.perf_counter() + budget
        tried: list[Attempt] = []
        passed: list[tuple[Verdict, TuningPlan]] = []
        reserved = 0.0
        for strategy in strategies:
            attempt, plan, last = self._try(strategy, ends - reserved, budget)
            tried.append(attempt)
            if plan is not None and attempt.verdict is not None and attempt.verdict.passed:
                passed.append((attempt.verdict, plan))
                reserved = max(reserved, last)
        if not passed:
            return replace(floor_kept(self.bottom, _why_floor(tried)), attempts=tuple(tried))
        verdict, plan = max(passed, key=lambda found: found[0].gain)
        started = time.perf_counter()
        with self._prepare(plan) as prepared:
            trained = self._train(prepared)
            ended = kept_epoch(self.callbacks, len(trained.outcome.history))
            kept = _attempt(prepared, trained, verdict, verdict.told, started, ended)
            others = [attempt for attempt in tried if attempt.strategy != plan.strategy]
            spent = next(attempt.seconds for attempt in tried if attempt.strategy == plan.strategy)
            return self._take_up(prepared, trained, (*others, replace(kept, seconds=kept.seconds + spent)), None)

    def _try(self, strategy: str, ends: float, budget: float) -> tuple[Attempt, TuningPlan | None, float]:
        """Try one strategy at the gate; gives its plan and the seconds its last training will take, too."""
        started = time.perf_counter()
        plan = self._plan(strategy)
        least = self._least_seconds(plan)
        if started + least > ends:
            why = f"not tried: it takes {least:.0f} s at least, and {max(ends - started, 0):.0f} of {budget:.0f} s are left"
            return Attempt(strategy=strategy, kept=False, reason=why, seconds=0.0, plan=plan.as_json()), None, 0.0
        with self._prepare(plan) as prepared:
            decided = self._decided().get(strategy) if self.bottom.settings.resume else None
            if decided is None:
                each = seconds_an_item(prepared, self.bottom.floor)
                fitted = fit_in_budget(prepared, seconds_an_item=each, seconds=ends - time.perf_counter())
                if fitted is None:
                    why = f"not tried: not even a few epochs fit what is left of {budget:.0f} s"
                    spent = time.perf_counter() - started
                    return Attempt(strategy=strategy, kept=False, reason=why, seconds=spent, plan=plan.as_json()), None, 0.0
                prepared, num_folds = fitted
                decided = {"epochs": prepared.plan.epochs, "num_folds": num_folds, "seconds_an_item": each}
                self._decide(strategy, decided)
            plan = with_epochs(prepared.plan, int(decided["epochs"]), prepared.plan.reasons.get("epochs", ""))
            prepared = replace(prepared, plan=plan)
            trial = self._hold_out(prepared, num_folds=int(decided["num_folds"]))
        seconds = time.perf_counter() - started
        attempt = Attempt(
            strategy=strategy,
            kept=False,
            reason=trial.verdict.told,
            seconds=seconds,
            plan=plan.as_json(),
            verdict=trial.verdict,
        )
        return attempt, plan, decided["seconds_an_item"] * len(self.bottom.splits.train) * plan.epochs

    def _least_seconds(self, plan: TuningPlan) -> float:
        """What the strategy takes at least, by the rate at which the frozen network runs."""
        return least_passes(plan) * len(self.bottom.splits.train) / rate_of(self.bottom.table, self.bottom.prefix)

    def _hold_out(self, prepared: Prepared, *, num_folds: int) -> Trial:
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
            may_stop=bool(bottom.splits.test),
        )

    def _train(self, prepared: Prepared) -> Trained:
        checkpoint = self._checkpoint(prepared, prepared.plan.strategy)
        callbacks = (*self.callbacks, *default_callbacks(self.folder, self.progress))
        bottom = self.bottom
        how = {"callbacks": callbacks, "checkpoint": checkpoint}
        return train_from_floor(prepared, bottom.plan, bottom.floor.labels, bottom.splits.train, **how)

    def _on_valid(self, prepared: Prepared, trained: Trained) -> Verdict:
        """A comparison on the validation items, where the strategy was asked for and is kept in any case."""
        ids, task, floor = trained.valid_ids, self.bottom.dataset.task, trained.start
        scores = scores_of(trained.network, prepared.inputs, ids)
        return hold_gate(
            answers_of(scores, task),
            floor.answers(self.bottom.table.features(floor.block, ids), task),
            encode_targets(self.bottom.dataset, ids, floor.labels),
            task,
            groups=None,
            seed=prepared.plan.seed,
            basis=f"{len(ids)} validation items, which chose the weights, too",
        )

    def _take_up(self, prepared: Prepared, trained: Trained, attempts: tuple[Attempt, ...], trial: Trial | None) -> Adaptation:
        """Compile the tuned network, and put it in the frozen one's place."""
        bottom = self.bottom
        scores = scores_of(trained.network, prepared.inputs, trained.valid_ids)
        earlier = load_file(bottom.source.changes_path) if bottom.source.changes_path else {}
        changes = earlier | changed_tensors(prepared, trained)
        path = self.folder / CHANGES
        save_file(changes, path)
        prefix = compile_prefix(bottom.source.with_changes(path), image_size=bottom.settings.image_size).wait()
        require_compiled(prefix)
        samples = [bottom.dataset.by_id[id_] for id_ in bottom.table.ids]
        told = None if self.progress is None else lambda done, total: self._tell("features of the tuned network", done, total)
        table = extract(prefix, bottom.table.preprocess, samples, views=bottom.table.views, progress=told)
        floor, task = trained.start, bottom.dataset.task
        head = trained.network.head.as_head()
        _compare(scores, head.scores(replace(table, vectors=table.vectors[:, :1]).features(floor.block, trained.valid_ids)))
        truth = encode_targets(bottom.dataset, trained.valid_ids, floor.labels)
        found = head.scores(table.features(floor.block, trained.valid_ids)).astype(np.float64)
        calibration = calibrate(found, truth, task=task, num_labels=len(floor.labels))
        return Adaptation(
            strategy=prepared.plan.strategy,
            cut=prepared.cut,
            reason=attempts[-1].reason,
            attempts=attempts,
            prefix=prefix,
            table=table,
            answering=replace(floor, head=head, calibration=calibration),
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
        return mirror_keeps_labels(bottom.prefix, bottom.table, bottom.dataset, bottom.splits, bottom.floor)

    @contextmanager
    def _prepare(self, plan: TuningPlan) -> Iterator[Prepared]:
        told = partial(self._tell, f"features for {plan.strategy}")
        with prepare(self.ground, plan, told) as prepared:
            if self.bottom.settings.find_learning_rate and plan.strategy not in self._rated:
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


def plan_for(bottom: Bottom, strategy: str, facts: Circumstances) -> TuningPlan:
    """The rules' plan, with class weights where the floor found them worth having."""
    plan = make_plan(strategy, facts, bottom.settings)
    weighted = any(asked["question"] == "class weights" and asked["kept"] == "weights" for asked in bottom.floor.choices)
    return replace(plan, balance="weights") if weighted else plan


def default_callbacks(folder: Path, progress: Progress | None) -> list[Callback]:
    """What every last training is watched by, after the user's callbacks, and so with what those add to the logs.

    That is history.csv, TensorBoard's files where its package is installed, and the progress bar.
    """
    found: list[Callback] = [CSVLogger(folder / HISTORY)]
    if importlib.util.find_spec("tensorboard") is not None:
        found.append(TensorBoard(folder / LOGS))
    if progress is not None:
        found.append(ProgressBar(lambda done, total: progress("tuning", done, total)))
    return found


def _attempt(prepared: Prepared, trained: Trained, verdict: Verdict, reason: str, started: float, ended: int | None) -> Attempt:
    plan = prepared.plan.as_json() | {"share_of_tuned_weights": trained.share, "kept_epoch": ended}
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


def _compare(trained: np.ndarray, saved: np.ndarray) -> None:
    """The compiled network must score as the trained one did."""
    worst = float(np.abs(trained - saved).max() / max(1.0, float(np.abs(trained).max())))
    if not worst <= SAME_SCORES:
        raise RuntimeError(f"the compiled network scores otherwise than the trained one, by {worst:.1e} of the largest score")
