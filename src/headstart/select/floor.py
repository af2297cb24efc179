"""The floor: the best exactly solved head on frozen features. Always computed, always the thing to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.data.folds import group_names
from headstart.data.targets import encode_targets
from headstart.evidence.metrics import count_confusion, macro_f1
from headstart.features import FeatureTable
from headstart.heads.choose import ChoicePlan, HeadChoice, choose_head
from headstart.heads.linear import HeadKind, LinearHead
from headstart.heads.mlp import Head
from headstart.heads.ridge import balanced_class_weights
from headstart.heads.terms import TermsHead
from headstart.inference import ordered_map
from headstart.records import Dataset, Splits, Task
from headstart.select.calibration import Calibration, calibrate
from headstart.select.classical import Entrants, hold_term_contest, term_scores
from headstart.select.geometry import contestants
from headstart.select.trial import Trial, better, hold_block_trial, question

# From this ratio of the largest class to the smallest, 'auto' asks cross-validation whether classes should weigh alike.
IMBALANCE = 10.0


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The chosen head, the features it stands on, and how both were chosen."""

    block: str
    head: Head
    calibration: Calibration
    choice: HeadChoice
    labels: tuple[str, ...]
    choices: tuple[dict[str, Any], ...]
    """Questions asked of the data, with candidates and reasons, for the report."""
    cv_accuracy: float | None = None
    """Out of fold; None for the value task."""
    terms: TermsHead | None = None
    """What is added to the head's scores: those of the texts' terms, where they are part."""
    alone: Floor | None = None
    """The head without the terms, where they are part: what tuning a network begins with."""

    @property
    def network_alone(self) -> Floor:
        """The floor of the network's features, whether or not the terms of texts are part of this one."""
        return self.alone or self

    def scores(self, table: FeatureTable, ids: Sequence[str]) -> np.ndarray:
        """Scores before any temperature.

        Args:
            table: features of the items, with their terms where these are part.
            ids: of N items.

        Returns:
            (N, K) float64.
        """
        scores = self.head.scores(table.features(self.block, ids)).astype(np.float64)
        if self.terms is None:
            return scores
        assert table.terms is not None, "a floor with terms answers on a table with terms"
        return scores + term_scores(self.terms, table.terms, ids)

    def answers_to(self, table: FeatureTable, ids: Sequence[str], task: Task) -> np.ndarray:
        """Calibrated answers.

        Args:
            table: as for `scores`.
            ids: of N items.
            task: what the head tells.

        Returns:
            (N, K) float64: probabilities (single: rows sum to 1; multi: one a label), or (N, 1) values.
        """
        return self.calibration.answers(self.scores(table, ids), task)

    def tempered_scores(self, table: FeatureTable, ids: Sequence[str]) -> np.ndarray:
        """Scores in units of the temperature, in which those of every kind of head are alike.

        Args:
            table: as for `scores`.
            ids: of N items.

        Returns:
            (N, K) float64.
        """
        return self.scores(table, ids) / self.calibration.temperatures


@dataclass(frozen=True, kw_only=True)
class FloorPlan:
    """How the floor is sought."""

    balance: str
    """'auto', 'weights' or 'none'."""
    seed: int
    """Deals the items to folds."""
    num_workers: int = 1
    """Pieces of work done side by side, as `inference.blas_threads_for` gives it."""
    classical: bool = True
    """Whether the terms of texts take part, where the table has them."""


def find_floor(table: FeatureTable, dataset: Dataset, splits: Splits, labels: tuple[str, ...], plan: FloorPlan) -> Floor:
    """Choose block, class weights, head and penalty by cross-validation within train, and fit the head on all of train.

    Args:
        table: features of all items.
        dataset: the samples.
        splits: who trains, and the groups that stay together.
        labels: K labels of the train side, in order.
        plan: how to seek it.

    Returns:
        The floor.
    """
    ids = list(splits.train)
    targets = encode_targets(dataset, ids, labels)
    groups = group_names(splits.groups, ids)
    block, questions = _choose_block(table, dataset, splits, plan)
    features, spec = table.features(block, ids), table.spec

    def solve(weights: np.ndarray | None, kinds: tuple[HeadKind, ...] | None = None) -> HeadChoice:
        contest = ChoicePlan(seed=plan.seed, candidates=kinds, num_workers=plan.num_workers)
        contest = replace(contest, block_widths=spec.widths(block), network_widths=spec.network_widths(block))
        count = len(labels) if dataset.task == "single" else None
        return choose_head(
            features, targets, task=dataset.task, num_classes=count, groups=groups, balance=weights, plan=contest
        )

    choice, asked = _choose_balance(solve, dataset, targets, labels, plan.balance)
    questions += [*asked, _head_question(choice)]
    floor = Floor(
        block=block,
        head=choice.head,
        calibration=calibrate(
            choice.scores, targets[choice.rows], task=dataset.task, num_labels=len(labels), known=choice.known
        ),
        choice=choice,
        labels=labels,
        choices=tuple(questions),
        cv_accuracy=choice.chosen.cv_accuracy,
    )
    return with_terms(floor, table, dataset, splits) if plan.classical else floor


def with_terms(floor: Floor, table: FeatureTable, dataset: Dataset, splits: Splits) -> Floor:
    """Let the terms of texts, where there are some, compete with the network's features.

    Args:
        floor: of the network's features.
        table: of all items.
        dataset: the samples.
        splits: who trains, and the groups that stay together.

    Returns:
        The floor with the terms where cross-validation is for them, and in any case with the question.
    """
    if table.terms is None:
        return floor
    ids = splits.train
    weighted = any(asked["question"] == "class weights" and asked["kept"] == "weights" for asked in floor.choices)
    entrants = Entrants(
        task=dataset.task,
        ids=ids,
        targets=encode_targets(dataset, ids, floor.labels),
        num_labels=len(floor.labels),
        groups=group_names(splits.groups, ids),
        weighted=weighted,
    )
    blend, head = hold_term_contest(table.terms, floor.choice, entrants), floor.head
    choices = (*floor.choices, blend.question)
    if blend.terms is None:
        return replace(floor, choices=choices)
    assert isinstance(head, LinearHead), "a floor's head is an exact one"
    weight, bias = (np.float32(blend.factor) * part for part in (head.weight, head.bias))
    truth = entrants.targets[floor.choice.rows]
    return replace(
        floor,
        head=replace(head, weight=weight, bias=bias),
        calibration=calibrate(
            blend.scores, truth, task=entrants.task, num_labels=entrants.num_labels, known=floor.choice.known
        ),
        choices=choices,
        cv_accuracy=blend.accuracy,
        terms=blend.terms,
        alone=floor,
    )


def choosable_blocks(table: FeatureTable) -> tuple[str, ...]:
    """Names of the features that a floor may stand on: 'last', and 'multi' where that is more."""
    return ("last", "multi") if table.spec.width > sum(table.spec.widths("last")) else ("last",)


def _choose_block(table: FeatureTable, dataset: Dataset, splits: Splits, plan: FloorPlan) -> tuple[str, list[dict[str, Any]]]:
    """The last block's features alone, or every block's together."""
    names = choosable_blocks(table)
    items = contestants(dataset, splits.train, splits.groups)
    if len(names) == 1 or items is None:
        return "last", []

    def hold(name: str) -> Trial:
        return hold_block_trial(name, table, name, items, seed=plan.seed, ids=splits.train)

    trials = dict(zip(names, ordered_map(hold, names, num_workers=plan.num_workers), strict=True))
    wins, told = better(trials["multi"], trials["last"])
    kept = "multi" if wins else "last"
    return kept, [question("features: the last block's, or all blocks' together", kept, told, trials.values())]


def _choose_balance(
    solve: Callable[..., HeadChoice],
    dataset: Dataset,
    targets: np.ndarray,
    labels: tuple[str, ...],
    balance: str,
) -> tuple[HeadChoice, list[dict[str, Any]]]:
    if dataset.task != "single" or balance == "none":
        return solve(None), []
    weights = balanced_class_weights(targets, len(labels))
    if balance == "weights":
        return solve(weights), [question("class weights", "weights", "as asked")]
    counts = np.bincount(targets, minlength=len(labels))
    plain = solve(None)
    if counts.max() < IMBALANCE * counts.min():
        return plain, []
    weighted = solve(weights, (plain.chosen.kind,))
    marks = {
        name: _macro_and_accuracy(choice, targets, len(labels)) for name, choice in (("none", plain), ("weights", weighted))
    }
    gained = marks["weights"][0] - marks["none"][0]
    lost = marks["none"][1] - marks["weights"][1]
    kept = "weights" if gained > 0.01 and gained > lost else "none"
    told = f"weights change the macro-F1 by {gained:+.3f} and the accuracy by {-lost:+.3f}, out of fold"
    trials = [{"name": name, "score": round(mark[0], 4), "note": f"accuracy {mark[1]:.4f}"} for name, mark in marks.items()]
    return (weighted if kept == "weights" else plain), [question("class weights", kept, told) | {"candidates": trials}]


def _macro_and_accuracy(choice: HeadChoice, targets: np.ndarray, num_labels: int) -> tuple[float, float]:
    said, truth = choice.scores.argmax(axis=1)[choice.known], targets[choice.rows][choice.known]
    return macro_f1(count_confusion(truth, said, num_labels)), float((said == truth).mean())


def _head_question(choice: HeadChoice) -> dict[str, Any]:
    best: dict[str, Any] = {}
    for candidate in choice.candidates:
        if candidate.kind not in best or candidate.gap < best[candidate.kind].gap:
            best[candidate.kind] = candidate
    value = choice.chosen.cv_rmse is not None
    rows = [
        {
            "name": kind if candidate.penalty is None else f"{kind}, penalty {candidate.penalty:.3g}",
            "score": round(candidate.cv_rmse if value else candidate.cv_accuracy, 4),
            "note": f"{'RMSE' if value else f'log-loss {candidate.cv_log_loss:.4f}'}, ± {candidate.standard_error:.4f}",
        }
        for kind, candidate in best.items()
    ]
    return question("head", choice.chosen.kind, choice.reason) | {"candidates": rows}
