"""What the model is worth: the test items, read once; or repeated cross-validation where there are too few to hold out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from headstart.api.adaptation import Adaptation, Bottom
from headstart.data.folds import cross_validation_folds, group_names
from headstart.data.targets import encode_targets
from headstart.errors import DataError
from headstart.evidence.comparison import Comparison, compare, item_scores
from headstart.evidence.evaluate import evaluate_multi, evaluate_repeated, evaluate_single, evaluate_value
from headstart.evidence.evaluation import Evaluation
from headstart.features import FeatureTable
from headstart.records import Dataset, Splits
from headstart.select.floor import Floor, FloorPlan
from headstart.select.fusion import find_footing

if TYPE_CHECKING:
    from headstart.select.trials import Trial

NUM_FOLDS = 5
MOST_REPEATS = 3
# Repeats make a small sample's estimate steadier; a large one's is steady, and a repeat of it takes long.
REPEATED_ITEMS = 500
# Items times labels from which three folds are enough: each costs as much as the whole choice of a head.
MANY_ANSWERS, FEWER_FOLDS = 200_000, 3


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """An evaluation, and the answers it rests on."""

    evaluation: Evaluation
    ids: tuple[str, ...]
    answers: np.ndarray
    """(N, K) float64: calibrated answers to `ids`, by models that did not learn from them."""
    without_leaks: Evaluation | None = None
    """The same on the test items of which no copy is in train, where the data's own split has such copies."""
    num_leaks: int = 0
    against_baseline: Comparison | None = None
    """With the baseline on the test items, where something else than the baseline answers."""


def gather_evidence(adaptation: Adaptation, bottom: Bottom) -> Evidence:
    """Evaluate on the test split, or by cross-validation where there is none.

    Args:
        adaptation: what answers.
        bottom: the floor, with data and splits.

    Returns:
        The evidence.
    """
    dataset, splits, floor, plan = bottom.dataset, bottom.splits, adaptation.answering, bottom.plan
    if not splits.test and adaptation.trial is not None:
        return _out_of_fold(adaptation.trial, dataset, floor, plan)
    if not splits.test:
        return _cross_validate(bottom.contest, dataset, splits, floor.labels, plan)
    ids = splits.test
    answers = floor.answers_to(adaptation.table, ids, dataset.task)
    evaluation = evaluate(dataset, ids, answers, floor, seed=plan.seed)
    against = _compare_with_baseline(adaptation, bottom, answers, evaluation)
    clean = _without_leaks(dataset, splits)
    if len(clean) in {0, len(ids)}:
        leaks = len(ids) - len(clean)
        return Evidence(evaluation=evaluation, ids=ids, answers=answers, num_leaks=leaks, against_baseline=against)
    rows = [row for row, id_ in enumerate(ids) if id_ in clean]
    kept = [ids[row] for row in rows]
    return Evidence(
        evaluation=evaluation,
        ids=ids,
        answers=answers,
        without_leaks=evaluate(dataset, kept, answers[rows], floor, seed=plan.seed),
        num_leaks=len(ids) - len(clean),
        against_baseline=against,
    )


def _compare_with_baseline(
    adaptation: Adaptation, bottom: Bottom, answers: np.ndarray, evaluation: Evaluation
) -> Comparison | None:
    """The baseline's score on the test items beside that of what answers; None where the baseline answers."""
    if adaptation.answering is bottom.floor:
        return None
    dataset, splits, floor, seed = bottom.dataset, bottom.splits, bottom.floor, bottom.plan.seed
    ids = splits.test
    theirs = floor.answers_to(bottom.table, ids, dataset.task)
    truth = encode_targets(dataset, ids, floor.labels)
    return compare(
        (evaluation, item_scores(answers, truth, dataset.task)),
        (evaluate(dataset, ids, theirs, floor, seed=seed), item_scores(theirs, truth, dataset.task)),
        seed=seed,
        groups=group_names(splits.groups, ids),
    )


def evaluate(
    dataset: Dataset,
    ids: Sequence[str],
    answers: np.ndarray,
    floor: Floor,
    *,
    seed: int,
    basis: str | None = None,
) -> Evaluation:
    """Evaluate calibrated answers to some items, whatever the task.

    Args:
        dataset: the samples.
        ids: of N samples the model did not learn from.
        answers: (N, K) float64.
        floor: for labels and thresholds.
        seed: of the bootstrap.
        basis: what the numbers rest on, in words.

    Returns:
        The evaluation.
    """
    truth = encode_targets(dataset, ids, floor.labels)
    match dataset.task:
        case "single":
            return evaluate_single(answers, truth, floor.labels, seed=seed, basis=basis)
        case "multi":
            thresholds = floor.calibration.thresholds
            return evaluate_multi(answers, truth > 0.5, floor.labels, seed=seed, thresholds=thresholds, basis=basis)
        case "value":
            return evaluate_value(answers[:, 0], truth, seed=seed, basis=basis)


def _without_leaks(dataset: Dataset, splits: Splits) -> set[str]:
    """Test items that share no group of copies with train; a group of the user's own is no copy."""
    own = {sample.id: sample.group for sample in dataset.samples}
    trained = {splits.groups[id_] for id_ in splits.train if id_ in splits.groups and splits.groups[id_] != own[id_]}
    return {id_ for id_ in splits.test if splits.groups.get(id_) not in trained}


def _out_of_fold(trial: Trial, dataset: Dataset, floor: Floor, plan: FloorPlan) -> Evidence:
    """The answers of networks that were each tuned without the items they answer."""
    basis = f"{trial.verdict.basis}, each answered by a network tuned without them: an estimate, no separate test set"
    evaluation = evaluate(dataset, trial.ids, trial.answers, floor, seed=plan.seed, basis=basis)
    return Evidence(evaluation=evaluation, ids=trial.ids, answers=trial.answers)


def _cross_validate(
    table: FeatureTable,
    dataset: Dataset,
    splits: Splits,
    labels: tuple[str, ...],
    plan: FloorPlan,
) -> Evidence:
    """Everything that was chosen on all items is chosen again within each fold's train part."""
    ids = splits.train
    most_folds = FEWER_FOLDS if len(ids) * len(labels) > MANY_ANSWERS else NUM_FOLDS
    repeats, num_folds = max(1, min(MOST_REPEATS, REPEATED_ITEMS // len(ids))), max(2, min(most_folds, len(ids)))
    folds = cross_validation_folds(dataset, ids, seed=plan.seed, groups=splits.groups, num_folds=num_folds, num_repeats=repeats)
    answers = np.full((repeats, len(ids), max(len(labels), 1)), np.nan)
    floors: list[Floor] = []
    for repeat in range(repeats):
        for fold in range(int(folds[repeat].max()) + 1):
            held = np.flatnonzero(folds[repeat] == fold)
            if not len(held):
                continue
            learning = tuple(ids[row] for row in np.flatnonzero(folds[repeat] != fold))
            part = replace(splits, train=learning)
            found = find_footing(table, dataset, part, labels, replace(plan, seed=plan.seed + repeat))
            floors.append(found.floor)
            answers[repeat, held] = found.floor.answers_to(found.table, [ids[row] for row in held], dataset.task)
    tested = np.flatnonzero(np.isfinite(answers).all(axis=(0, 2)))
    if not len(tested):
        raise DataError(
            f"nothing can be held out of the {len(ids)} items: those of each class are one group, or copies of one item.",
            expected="in every class items of at least two groups, or two that are no copies of each other.",
            mend="add different items, or name the groups more finely.",
        )
    kept, answers = tuple(ids[row] for row in tested), answers[:, tested]
    times = f", repeated {repeats} times" if repeats > 1 else ""
    basis = f"{num_folds}-fold cross-validation{times} over {len(kept)} items: an estimate, no separate test set"
    mean = answers.mean(axis=0)
    if dataset.task == "single":
        truth = encode_targets(dataset, kept, labels)
        evaluation = evaluate_repeated([(each, truth) for each in answers], labels, seed=plan.seed, basis=basis)
    else:
        evaluation = evaluate(dataset, kept, mean, floors[0], seed=plan.seed, basis=basis)
    return Evidence(evaluation=evaluation, ids=kept, answers=mean)
