"""Trying a strategy: out of fold at the gate, within a budget, and in the end on all that trains. Loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.data.folds import cross_validation_folds, group_names, split_off_valid
from headstart.data.targets import encode_targets
from headstart.features.extract import Progress
from headstart.select.calibration import Calibration, calibrate
from headstart.select.contrastive import train_strategy
from headstart.select.cost import HOLD_OUT_FOLDS, fold_choices
from headstart.select.floor import Floor, FloorPlan, find_floor
from headstart.select.futility import LEAST_CHANCE, chance_to_pass
from headstart.select.gate import Verdict, hold_gate
from headstart.select.rules import with_epochs, with_rate
from headstart.select.scoring import scores_of
from headstart.select.tuned import Prepared, build_network, train, training_set
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.rate_range import find_learning_rate

# A measurement of how fast a strategy trains takes about so long.
MEASURED_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a strategy did out of fold."""

    verdict: Verdict
    ids: tuple[str, ...]
    answers: np.ndarray
    """(N, K) of the tuned networks, calibrated, each to items it had not seen."""
    calibration: Calibration
    """Fitted on the scores of those answers."""
    shares: tuple[float, ...]


def try_strategy(
    prepared: Prepared,
    floor_plan: FloorPlan,
    labels: tuple[str, ...],
    *,
    num_folds: int,
    checkpoints: Sequence[Checkpoint],
    progress: Progress | None = None,
    may_stop: bool = False,
) -> Trial:
    """Hold the gate: in each fold floor and tuned network learn from the rest, and answer the items held out.

    Args:
        prepared: the strategy.
        floor_plan: how the floor of each fold is sought.
        labels: K labels, in order.
        num_folds: F; 1 holds out a single part.
        checkpoints: one a fold, or none.
        progress: told of the folds done.
        may_stop: end a fold's training early where it does worse than the floor, and leave the other folds out as soon as those
            done leave it next to no chance to pass.

    Returns:
        The trial.
    """
    ground = prepared.ground
    dataset, ids = ground.dataset, ground.splits.train
    dealt = num_folds if num_folds > 1 else HOLD_OUT_FOLDS
    (folds,) = cross_validation_folds(dataset, ids, seed=floor_plan.seed + 1, groups=ground.splits.groups, num_folds=dealt)
    tuned, plain, shares = [], [], []
    given_up = False
    asked: list[str] = []
    for fold in range(num_folds):
        if progress is not None:
            progress(fold, num_folds)
        held = tuple(id_ for id_, place in zip(ids, folds, strict=True) if place == fold)
        rest = tuple(id_ for id_, place in zip(ids, folds, strict=True) if place != fold)
        floor = find_floor(ground.table, dataset, replace(ground.splits, train=rest), labels, floor_plan)
        checkpoint = checkpoints[fold] if checkpoints else None
        trained = train_strategy(prepared, floor_plan, labels, rest, checkpoint=checkpoint, may_stop=may_stop)
        tuned.append(scores_of(trained.network, prepared.inputs, held))
        plain.append(floor.tempered_scores(ground.table, held))
        asked += held
        shares.append(trained.share)
        given_up = given_up or trained.given_up
        basis = f"{len(asked)} items of {_folds_in_words(fold + 1, num_folds)}"
        scores, targets = np.concatenate(tuned), encode_targets(dataset, asked, labels)
        groups = group_names(ground.splits.groups, asked)
        verdict = hold_gate(
            scores, np.concatenate(plain), targets, dataset.task, groups=groups, seed=floor_plan.seed, basis=basis
        )
        # The last training runs to its end, so what a fold's half a training says is nothing in its favour.
        verdict = replace(verdict, passed=verdict.passed and not given_up)
        if may_stop and chance_to_pass(verdict, (fold + 1) / num_folds) < LEAST_CHANCE:
            break
    if progress is not None:
        progress(num_folds, num_folds)
    calibration = calibrate(scores, targets, task=dataset.task, num_labels=len(labels))
    return Trial(
        verdict=verdict,
        ids=tuple(asked),
        answers=calibration.answers(scores, dataset.task),
        calibration=calibration,
        shares=tuple(shares),
    )


def _folds_in_words(done: int, num_folds: int) -> str:
    if num_folds == 1:
        return "a fifth held out"
    if done == num_folds:
        return f"{num_folds} folds"
    return f"the first{'' if done == 1 else f' {done}'} of {num_folds} folds, the others left out"


def with_found_rate(prepared: Prepared, floor: Floor) -> Prepared:
    """The strategy with the learning rate that range tests find.

    Args:
        prepared: the strategy, with the rules' plan.
        floor: whose head training begins with.

    Returns:
        The strategy, with what the tests said in its plan's reasons.
    """
    ground, plan, floor = prepared.ground, prepared.plan, floor.network_alone
    learning, valid = split_off_valid(ground.dataset, ground.splits, ground.splits.train, plan.seed)
    found = find_learning_rate(
        lambda: build_network(prepared, floor, learning, valid),
        training_set(prepared, floor, learning),
        training_set(prepared, floor, valid),
        task=ground.dataset.task,
        plan=plan,
    )
    rated = with_rate(plan, found.rate)
    return replace(prepared, plan=replace(rated, reasons=rated.reasons | {"head_rate": found.told}))


def fit_in_budget(prepared: Prepared, *, seconds_an_item: float, seconds: float) -> tuple[Prepared, int] | None:
    """Choose folds and epochs so that the gate and the last training fit what is left of the budget.

    Args:
        prepared: the strategy, with the rules' plan.
        seconds_an_item: that training takes, forward and backward.
        seconds: left.

    Returns:
        The strategy with as many epochs as fit, and the number of folds; None where not even the fewest fit.
    """
    plan, splits = prepared.plan, prepared.ground.splits
    count = len(splits.train)
    for num_folds, share, least in fold_choices(plan, count, has_valid=bool(splits.valid)):
        fitting = int(seconds / (seconds_an_item * count * share))
        if fitting >= min(least, plan.epochs):
            epochs = min(plan.epochs, fitting)
            told = plan if epochs == plan.epochs else with_epochs(plan, epochs, f"what fits {seconds:.0f} s")
            return replace(prepared, plan=told), num_folds
    return None


def seconds_an_item(prepared: Prepared, floor: Floor, *, expected: float) -> float:
    """How long training takes for each item and epoch, measured on a few batches.

    Args:
        prepared: the strategy.
        floor: whose head training begins with.
        expected: about what it is, so that the measurement stays short.
    """
    ids = prepared.ground.splits.train
    most = min(len(ids), 2 * prepared.plan.batch_size)
    few = ids[: max(min(most, int(MEASURED_SECONDS / max(expected, 1e-9))), min(most, 4))]
    quick = replace(prepared, plan=replace(prepared.plan, epochs=1, interpolations=(1.0,), averaging="none"))
    train(quick, floor, few[: max(len(few) // 4, 2)], few[:2])  # the first steps of a network are slower
    (epoch,) = train(quick, floor, few, few[:2]).outcome.history
    return float(epoch["seconds"]) / len(few)
