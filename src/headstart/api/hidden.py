"""A head with hidden layers on frozen features: compared with the exact heads on their own folds, and kept as asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart import runtime
from headstart.api.adaptation import Adaptation, Bottom, plan_for
from headstart.api.checkpoints import make_checkpoint
from headstart.api.planning import default_callbacks
from headstart.data.folds import group_names, split_off_valid
from headstart.data.targets import encode_targets
from headstart.heads.judge import Judge
from headstart.select.calibration import Calibration, calibrate
from headstart.select.gate import hold_gate
from headstart.select.hidden import HiddenHead, train_hidden
from headstart.select.rules import Circumstances
from headstart.select.strategy import Attempt
from headstart.select.trials import Trial
from headstart.tuning.callbacks.base import Callback

NAME = "head"


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The items of the exact heads' contest, as the trained head answered them."""

    ids: tuple[str, ...]
    targets: np.ndarray
    scores: np.ndarray
    """(M, K) of heads that had not seen the item."""
    calibration: Calibration


def with_hidden_head(
    bottom: Bottom,
    folder: Path,
    facts: Circumstances,
    *,
    callbacks: Sequence[Callback] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Adaptation:
    """Train a head with hidden layers in place of the exact one.

    Args:
        bottom: the floor.
        folder: where history, logs and checkpoints go.
        facts: of data and device.
        callbacks: of the user's, told of the last training.
        progress: told of each step's items.

    Returns:
        The frozen network with the trained head; the question of the head tells how it did beside the exact ones.
    """
    started = time.perf_counter()
    runtime.raise_malloc_thresholds()
    # The products are so small that two threads wait for each other longer than they work, above all on a busy machine.
    torch.set_num_threads(1)
    plan = plan_for(bottom, "head", facts)
    floor, splits, dataset = bottom.floor, bottom.splits, bottom.dataset
    task = HiddenHead(table=bottom.table, dataset=dataset, block=floor.block, labels=floor.labels, plan=plan)
    contest = _hold_contest(bottom, task, progress)
    trial = _trial(bottom, contest)
    learning, valid = split_off_valid(dataset, splits, splits.train, bottom.plan.seed)
    trained = train_hidden(
        task,
        learning,
        valid,
        callbacks=(*callbacks, *default_callbacks(folder, progress)),
        checkpoint=make_checkpoint(bottom, folder, plan, cut=None, name=NAME),
    )
    reason = f"as asked; {trial.verdict.told}"
    attempt = Attempt(
        strategy=NAME,
        kept=True,
        reason=reason,
        seconds=time.perf_counter() - started,
        plan=plan.as_json(),
        verdict=trial.verdict,
        history=tuple(trained.outcome.history),
    )
    return Adaptation(
        strategy="extract",
        cut=None,
        reason=reason,
        code="as_asked",
        attempts=(attempt,),
        prefix=bottom.prefix,
        table=bottom.table,
        answering=replace(floor, head=trained.head.as_head(), calibration=contest.calibration),
        trial=None if splits.test else trial,
        trained_head=_as_candidate(bottom, contest, plan.hidden),
    )


def _hold_contest(bottom: Bottom, task: HiddenHead, progress: Callable[[str, int, int], None] | None) -> Contest:
    """Answer the items of the exact heads' contest, in the same folds, by heads trained on the rest."""
    choice, splits = bottom.floor.choice, bottom.splits
    ids = tuple(splits.train[row] for row in choice.rows)
    targets = encode_targets(bottom.dataset, ids, task.labels)
    scores = np.zeros(choice.scores.shape)
    num_folds = int(choice.folds.max()) + 1
    for fold in range(num_folds):
        if progress is not None:
            progress("trying the head", fold, num_folds)
        held = np.flatnonzero(choice.folds == fold)
        rest = [id_ for id_, place in zip(ids, choice.folds, strict=True) if place != fold]
        learning, valid = split_off_valid(bottom.dataset, splits, rest, bottom.plan.seed)
        head = train_hidden(task, learning, valid).head.as_head()
        scores[held] = head.scores(task.table.features(task.block, [ids[row] for row in held]))
    calibration = calibrate(scores, targets, task=bottom.dataset.task, num_labels=len(task.labels), known=choice.known)
    return Contest(ids=ids, targets=targets, scores=scores, calibration=calibration)


def _trial(bottom: Bottom, contest: Contest) -> Trial:
    """The paired comparison with the exact head, on the same items of the same folds."""
    floor, kind, groups = bottom.floor, bottom.dataset.task, bottom.splits.groups
    num_folds = int(floor.choice.folds.max()) + 1
    verdict = hold_gate(
        contest.scores,
        floor.choice.scores.astype(np.float64),
        contest.targets,
        kind,
        groups=group_names(groups, contest.ids),
        seed=bottom.plan.seed,
        basis=f"{len(contest.ids)} items of {num_folds} folds",
    )
    calibration = contest.calibration
    answers = calibration.answers(contest.scores, kind)
    return Trial(verdict=verdict, ids=contest.ids, answers=answers, calibration=calibration, shares=())


def _as_candidate(bottom: Bottom, contest: Contest, hidden: tuple[int, ...]) -> dict[str, Any]:
    """The trained head as the question of the head shows the exact ones."""
    kind, choice = bottom.dataset.task, bottom.floor.choice
    targets = contest.targets[:, None] if kind == "value" else contest.targets
    judge = Judge.of(kind, targets, choice.folds, None)
    mark, exact = judge.mark(contest.scores), judge.mark(choice.scores.astype(np.float64))
    gap, error = judge.compare(mark, exact)
    told = "RMSE" if mark.log_loss is None else f"log-loss {mark.log_loss:.4f}"
    score = mark.rmse if mark.accuracy is None else mark.accuracy
    layers = ", ".join(str(width) for width in hidden)
    note = f"{told}, {gap:+.4f} ± {error:.4f} against {choice.chosen.kind}"
    return {"name": f"mlp, hidden layers {layers}", "score": round(float(score or 0.0), 4), "note": note}
