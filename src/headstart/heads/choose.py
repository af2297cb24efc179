"""Which exact head: all candidates cross-validated on the same folds, the plainest of the best ones kept.

The rule is one standard error, with two amendments that nested cross-validation on 643 photos in 10 classes asked for (40 outer
fits). The criterion is the log-loss after a fitted temperature, because accuracy on a few hundred rows moves in steps too
coarse to tell penalties apart; and the standard error is that of the *difference* to the best candidate, row by row, because
the error of one candidate alone is mostly the hardness of the rows, which all candidates share. Mean test accuracy of the
choice: this rule 0.877, least log-loss 0.877, best accuracy 0.875, one standard error unpaired 0.872.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.errors import SettingError
from headstart.heads.candidates import Contest, candidate_kinds, held_out_scores, is_iterative_too_dear, pose_contest, refit
from headstart.heads.folds import NUM_FOLDS, make_folds
from headstart.heads.judge import Judge, Mark
from headstart.heads.linear import (
    HeadKind,
    LinearHead,
    check_features,
    check_indicators,
    check_labels,
    check_targets,
)
from headstart.heads.ridge import check_class_weights
from headstart.heads.scaling import ScalingKind, learn_scaling
from headstart.inference import ordered_map
from headstart.records import Task

KEPT_NUMBERS = 1_000_000
CONTEST_NUMBERS = 5_000_000


@dataclass(frozen=True, kw_only=True)
class ChoicePlan:
    """How the contest is held."""

    seed: int = 0
    """Deals the rows to folds."""
    candidates: tuple[HeadKind, ...] | None = None
    """The heads to try; all that the task allows if None."""
    scaling: ScalingKind | None = None
    """None means "network" where the features are of several networks, "root" where they have several blocks, else
    "global"."""
    block_widths: tuple[int, ...] | None = None
    """The widths of the blocks whose features lie side by side."""
    network_widths: tuple[int, ...] | None = None
    """The columns of each network, where the features are of several; each is then scaled on its own."""
    num_folds: int = NUM_FOLDS
    """At least 2."""
    num_workers: int = 1
    """How many kinds of heads are tried side by side; more than one pays where numpy keeps to one thread each
    (`inference.one_blas_thread`)."""
    max_rows: int = 20_000
    """The contest is held on no more rows than this (a stratified part of the data, groups whole), and on no more than
    5,000,000 / K; the winner is fitted on all rows."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One head in the contest, as cross-validation saw it."""

    kind: HeadKind
    penalty: float | None
    cv_accuracy: float | None
    """Share of right labels (single) or of right yes-or-no answers (multi) of known rows; None for the value task."""
    cv_log_loss: float | None
    """Mean negative log-probability after the temperature, in nats; None for the value task."""
    cv_rmse: float | None
    """Root mean squared error in the targets' units, for the value task only."""
    temperature: float
    """Fitted on the same out-of-fold scores; 1 for the value task."""
    gap: float
    """How much more of the criterion (log-loss, or squared error for the value task) than the best candidate."""
    standard_error: float
    """Of the gap, over rows (over groups where there are some)."""


@dataclass(frozen=True, kw_only=True)
class HeadChoice:
    """The winner, and how it came to win."""

    head: LinearHead
    """Fitted on all rows."""
    chosen: Candidate
    scores: np.ndarray
    """(M, K) float32: the winner's out-of-fold scores of `rows`, before the temperature."""
    rows: np.ndarray
    """(M,) int64: the rows the contest was held on; all N of them up to `max_rows`."""
    folds: np.ndarray
    """(M,) int64: the fold each of `rows` was left out with."""
    known: np.ndarray
    """(M,) bool: the rows that counted; the others are mostly of one group with their class (`heads.folds.known_rows`)."""
    losses: np.ndarray
    """(M,) float64: the winner's criterion of each row, at its temperature."""
    scaling: ScalingKind
    candidates: tuple[Candidate, ...]
    """Plainest first: kinds in order, strong penalties before weak ones."""
    reason: str


def choose_head(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    task: Task,
    num_classes: int | None = None,
    groups: np.ndarray | None = None,
    balance: np.ndarray | None = None,
    plan: ChoicePlan | None = None,
) -> HeadChoice:
    """Cross-validate nearest mean, LDA, ridge and logistic over their penalties, and fit the winner on all rows.

    Args:
        features: (N, D) float32 or float64 of the training rows; not modified. Memory: about three more copies of them and
            min(N, D)^2 numbers, whatever N.
        targets: (N,) int64 in [0, num_classes) (single), (N, K) of 0 and 1 (multi), (N,) or (N, T) numbers (value).
        task: what the targets mean.
        num_classes: K, for the single task.
        groups: (N,) integers or strings; rows of one group are left out together.
        balance: (K,) class weights for the single task, for instance `balanced_class_weights(labels, K)`; fits and criterion
            are weighted by them.
        plan: seed, candidates, scaling, size of the contest.

    Returns:
        The head with the table of all candidates and the winner's out-of-fold scores.

    Raises:
        DataError: if features or targets cannot be used, or all rows are in one group.
        SettingError: if a candidate, scaling or class weight cannot work.
    """
    plan = plan or ChoicePlan()
    features = check_features(features)
    table = _checked(targets, len(features), task, num_classes)
    weights = None if balance is None or num_classes is None else check_class_weights(balance, num_classes)
    kinds = _checked_kinds(plan.candidates, task)
    if plan.candidates is None and num_classes and is_iterative_too_dear(len(features), features.shape[1], num_classes):
        kinds = tuple(each for each in kinds if each != "logistic")
    kind = plan.scaling or _scaling_of(plan)
    rows = _contest_rows(table, task, groups, plan)
    contest = _pose(
        features[rows] if len(rows) < len(features) else features, table[rows], (task, num_classes, weights, kind), plan
    )
    own_groups = None if groups is None else np.asarray(groups)[rows]
    folds = make_folds(table[rows], task=task, seed=plan.seed, groups=own_groups, num_folds=plan.num_folds)
    judge = Judge.open(contest, folds, own_groups)
    entries, kept = _hold(contest, kinds, folds, judge, plan.num_workers)
    candidates, winner = _decide(entries, judge)
    chosen = candidates[winner]
    scores = kept[winner] if kept else _again(contest, chosen, folds)
    everything = contest if len(rows) == len(features) else _pose(features, table, (task, num_classes, weights, kind), plan)
    return HeadChoice(
        head=refit(everything, chosen.kind, chosen.penalty),
        chosen=chosen,
        scores=scores.astype(np.float32),
        rows=rows,
        folds=folds,
        known=judge.known,
        losses=entries[winner][2].losses,
        scaling=kind,
        candidates=candidates,
        reason=_reason(candidates, winner, int(folds.max()) + 1),
    )


def _checked(targets: np.ndarray, num_rows: int, task: Task, num_classes: int | None) -> np.ndarray:
    match task:
        case "single":
            return check_labels(targets, num_rows=num_rows, num_classes=num_classes or 0)
        case "multi":
            return check_indicators(targets, num_rows=num_rows)
        case "value":
            return check_targets(targets, num_rows=num_rows)


def _scaling_of(plan: ChoicePlan) -> ScalingKind:
    if plan.network_widths is not None and len(plan.network_widths) > 1:
        return "network"
    return "root" if plan.block_widths is not None and len(plan.block_widths) > 1 else "global"


def _checked_kinds(wanted: Sequence[HeadKind] | None, task: Task) -> tuple[HeadKind, ...]:
    possible = candidate_kinds(task)
    if wanted is None:
        return possible
    unknown = [kind for kind in wanted if kind not in possible]
    if unknown or not wanted:
        raise SettingError(
            f"candidates {list(wanted)} cannot be tried for the {task} task.",
            expected=f"one or more of {', '.join(possible)}.",
            mend="leave candidates out to try them all.",
        )
    return tuple(kind for kind in possible if kind in wanted)


def _contest_rows(targets: np.ndarray, task: Task, groups: np.ndarray | None, plan: ChoicePlan) -> np.ndarray:
    """All rows, or one fold of so many that it has about as many rows as the contest may have."""
    num_outputs = int(targets.max()) + 1 if task == "single" else targets.shape[1]
    most = max(min(plan.max_rows, CONTEST_NUMBERS // num_outputs), 10)
    if len(targets) <= most:
        return np.arange(len(targets))
    parts = make_folds(targets, task=task, seed=plan.seed, groups=groups, num_folds=-(-len(targets) // most))
    return np.flatnonzero(parts == 0)


def _pose(
    features: np.ndarray,
    targets: np.ndarray,
    setting: tuple[Task, int | None, np.ndarray | None, ScalingKind],
    plan: ChoicePlan,
) -> Contest:
    task, num_classes, weights, kind = setting
    scaling = learn_scaling(features, kind, block_widths=plan.block_widths, network_widths=plan.network_widths)
    classes = num_classes if task == "single" else None
    return pose_contest(features, targets, task=task, num_classes=classes, class_weights=weights, scaling=scaling)


def _hold(
    contest: Contest, kinds: tuple[HeadKind, ...], folds: np.ndarray, judge: Judge, num_workers: int
) -> tuple[list[tuple[HeadKind, float | None, Mark]], list[np.ndarray]]:
    """Every candidate's marks; its scores too where they are small enough to keep."""

    def hold(kind: HeadKind) -> list[tuple[tuple[HeadKind, float | None, Mark], np.ndarray | None]]:
        return [
            ((kind, penalty, judge.mark(scores)), scores if scores.size <= KEPT_NUMBERS else None)
            for penalty, scores in held_out_scores(contest, kind, folds)
        ]

    # The dearest first, so that the others fit beside it.
    dearest_first = sorted(kinds, key=candidate_kinds(contest.task).index, reverse=True)
    done = dict(zip(dearest_first, ordered_map(hold, dearest_first, num_workers=num_workers), strict=True))
    held = [entry for kind in kinds for entry in done[kind]]
    return [entry for entry, _ in held], [scores for _, scores in held if scores is not None]


def _decide(entries: list[tuple[HeadKind, float | None, Mark]], judge: Judge) -> tuple[tuple[Candidate, ...], int]:
    """The table, and the first candidate whose gap to the best is within one standard error of that gap."""
    best = min((mark for _, _, mark in entries), key=judge.criterion)
    candidates = []
    for kind, penalty, mark in entries:
        gap, error = judge.compare(mark, best)
        candidates.append(
            Candidate(
                kind=kind,
                penalty=penalty,
                cv_accuracy=mark.accuracy,
                cv_log_loss=mark.log_loss,
                cv_rmse=mark.rmse,
                temperature=mark.temperature,
                gap=gap,
                standard_error=error,
            )
        )
    winner = next(index for index, candidate in enumerate(candidates) if candidate.gap <= candidate.standard_error)
    return tuple(candidates), winner


def _again(contest: Contest, chosen: Candidate, folds: np.ndarray) -> np.ndarray:
    """The chosen candidate's out-of-fold scores once more: with many rows and classes, holding everyone's takes gigabytes."""
    return next(scores for penalty, scores in held_out_scores(contest, chosen.kind, folds) if penalty == chosen.penalty)


def _reason(candidates: tuple[Candidate, ...], winner: int, num_folds: int) -> str:
    chosen = candidates[winner]
    best = min(candidates, key=lambda candidate: candidate.gap)
    value = chosen.cv_log_loss is None
    measure = "mean squared error" if value else "log-loss"
    found = f"RMSE {chosen.cv_rmse:.4g}" if value else f"log-loss {chosen.cv_log_loss:.3f}, accuracy {chosen.cv_accuracy:.3f}"
    start = f"{_named(chosen)}: {found} over {num_folds} folds, {len(candidates)} candidates;"
    if chosen == best:
        return f"{start} the least {measure}, and nothing plainer comes within one standard error of it."
    return (
        f"{start} the plainest within one standard error of the best, {_named(best)} "
        f"({measure} {chosen.gap:.3g} more, ± {chosen.standard_error:.3g})."
    )


def _named(candidate: Candidate) -> str:
    return candidate.kind if candidate.penalty is None else f"{candidate.kind} with penalty {candidate.penalty:.4g}"
