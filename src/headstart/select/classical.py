"""The contest of a text's features: the backbone's, the classical ones (words and pieces of words), or both.

All three answer out of fold, in the same folds. The terms and how rare they are come from all texts that train, as the scale
of other features does: they know no label, and no text of the test split has a part in them. `both` adds the two heads'
scores, each in its own unit, in the shares that the answers out of fold are for (`mixture`).

`both` is what stands unless the proportion leaves one side out, or one side alone is better by more than one standard error of
the paired difference: where little is known, two witnesses are safer than one. But a witness must have seen something: terms
that by themselves tell no more than how frequent the classes are, by one standard error, have no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.heads.choose import HeadChoice
from headstart.heads.descent import Link
from headstart.heads.judge import Judge, Mark
from headstart.heads.ridge import balanced_class_weights
from headstart.heads.term_counts import TermCounts
from headstart.heads.term_solver import TermsProblem, held_out_term_scores, pose_terms, solve_terms, subset
from headstart.heads.terms import TermsHead
from headstart.records import Task
from headstart.select.mixture import knowledge, likely_shares, mix, unit_of
from headstart.select.trial import question, tell_gain

QUESTION = "features: the backbone's, words and pieces of words (terms), or both"


@dataclass(frozen=True, kw_only=True)
class Entrants:
    """The texts of a contest."""

    task: Task
    ids: tuple[str, ...]
    """N, all that train."""
    targets: np.ndarray
    """As `encode_targets` gives them."""
    num_labels: int
    """K; 0 for the value task."""
    groups: np.ndarray | None
    """(N,) group of each text, if any has one."""
    weighted: bool
    """Whether classes weigh alike."""


@dataclass(frozen=True, kw_only=True)
class Blend:
    """What won: how the backbone's scores and those of the terms make one."""

    kept: str
    """'backbone', 'terms' or 'both'."""
    factor: float
    """Of the backbone head's scores; 0 where the terms answer alone."""
    terms: TermsHead | None
    """With its own factor in its weights; None where the backbone answers alone."""
    scores: np.ndarray
    """(M, K) float64: out of fold, of the contest's rows."""
    question: dict[str, Any]
    """Candidates, reason, and what the pretrained part was worth, for the report."""
    accuracy: float | None
    """Out of fold; None for the value task."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One candidate's out-of-fold scores, as the judge saw them."""

    name: str
    scores: np.ndarray
    mark: Mark
    share: float
    """Of the backbone in them."""
    note: str = ""


def hold_term_contest(counts: TermCounts, choice: HeadChoice, entrants: Entrants) -> Blend:
    """Let the terms of the texts compete with the backbone's features, and with both together.

    Args:
        counts: of all texts.
        choice: the backbone's head, with its contest.
        entrants: the texts that train.

    Returns:
        What won.
    """
    problem, vocabularies, unit = _pose(counts, entrants)
    rows, folds = choice.rows, choice.folds
    table = _table(entrants)
    groups = None if entrants.groups is None else entrants.groups[rows]
    judge = Judge.of(entrants.task, table[rows], folds, groups, class_weights=_class_weights(entrants))
    backbone = choice.scores.astype(np.float64)
    penalty, alone = _best_penalty(subset(problem, rows), folds, judge, unit)
    sides = _sides(judge, backbone, alone)
    kept, told = _decide(judge, sides)
    asked = _question(judge, sides, kept, told)
    winner = sides[kept]
    if kept == "backbone":
        return Blend(kept=kept, factor=1.0, terms=None, scores=backbone, question=asked, accuracy=winner.mark.accuracy)
    weight, bias = solve_terms(problem, penalty)
    mean, deviation = unit
    head = TermsHead(vocabularies=vocabularies, weight=weight, bias=bias).scaled(deviation)
    head = TermsHead(vocabularies=vocabularies, weight=head.weight, bias=(head.bias + mean).astype(np.float32))
    return Blend(
        kept=kept,
        factor=winner.share / unit_of(entrants.task, backbone),
        terms=head.scaled((1 - winner.share) / unit_of(entrants.task, alone)),
        scores=winner.scores,
        question=asked,
        accuracy=winner.mark.accuracy,
    )


def _pose(counts: TermCounts, entrants: Entrants) -> tuple[TermsProblem, Any, tuple[float, float]]:
    """The problem of all texts, the vocabularies, and mean and deviation by which values are made small numbers."""
    vocabularies = counts.learn(entrants.ids, num_outputs=max(entrants.num_labels, 1))
    rows = counts.weigh(vocabularies, entrants.ids)
    weights, targets, unit = np.ones(len(entrants.ids)), _table(entrants), (0.0, 1.0)
    link: Link
    match entrants.task:
        case "single":
            weights, link = _class_weights(entrants)[targets], "softmax"
            targets = np.eye(entrants.num_labels)[targets]
        case "multi":
            link = "sigmoid"
        case "value":
            unit, link = (float(targets.mean()), float(targets.std()) or 1.0), "identity"
            targets = (targets - unit[0]) / unit[1]
    return pose_terms(rows, targets.T, weights, link=link), vocabularies, unit


def _table(entrants: Entrants) -> np.ndarray:
    return entrants.targets[:, None] if entrants.targets.ndim == 1 and entrants.task == "value" else entrants.targets


def _class_weights(entrants: Entrants) -> np.ndarray:
    if entrants.weighted:
        return balanced_class_weights(entrants.targets, entrants.num_labels)
    return np.ones(max(entrants.num_labels, 1))


def _best_penalty(
    problem: TermsProblem, folds: np.ndarray, judge: Judge, unit: tuple[float, float]
) -> tuple[float, np.ndarray]:
    """The penalty of the least out-of-fold loss, and its scores; weaker ones than the first that does worse are not tried."""
    best: tuple[float, float, np.ndarray] | None = None
    for penalty, found in held_out_term_scores(problem, folds):
        scores = found.astype(np.float64) * unit[1] + unit[0]
        loss = judge.criterion(judge.mark(scores))
        if best is not None and loss >= best[0]:
            break
        best = (loss, penalty, scores)
    assert best is not None, "there are penalties"
    return best[1], best[2]


def _sides(judge: Judge, backbone: np.ndarray, terms: np.ndarray) -> dict[str, Side]:
    """The three candidates, plainest first: terms need no network, the backbone's features no vocabulary."""
    alone = {"terms": terms, "backbone": backbone}
    marks = {name: judge.mark(scores) for name, scores in alone.items()}
    in_units = {name: scores / unit_of(judge.task, scores) for name, scores in alone.items()}
    sides = {
        # The saved terms are in this unit, whether they answer alone or with the backbone, which alone keeps its own.
        "terms": Side(name="terms", scores=in_units["terms"], mark=marks["terms"], share=0.0),
        "backbone": Side(name="backbone", scores=backbone, mark=marks["backbone"], share=1.0),
    }
    both = [in_units["backbone"], in_units["terms"]]
    share = round(float(likely_shares(judge, both)[0]), 1)
    mixed = mix(both, np.array([share, 1 - share]))
    note = f", {share:.0%} of the backbone"
    return sides | {"both": Side(name="both", scores=mixed, mark=judge.mark(mixed), share=share, note=note)}


def _decide(judge: Judge, sides: dict[str, Side]) -> tuple[str, str]:
    """Both together, unless one alone has all of the mixture or is better by more than one standard error of the difference."""
    knowing, error = knowledge(judge, sides["terms"].scores)
    if knowing <= error:
        return (
            "backbone",
            f"the terms alone tell next to nothing: loss lower than by frequency alone by {knowing:.4f} ± {error:.4f}",
        )
    for name, share in (("terms", 0.0), ("backbone", 1.0)):
        if sides["both"].share == share:
            return name, f"out of fold, no mixture does better than {name} alone"
    alone = min((sides["terms"], sides["backbone"]), key=lambda side: judge.criterion(side.mark))
    gain, error = judge.compare(sides["both"].mark, alone.mark)
    told = f"{alone.name} alone against both: {tell_gain(gain, error)}"
    return (alone.name if gain > error else "both"), told


def _question(judge: Judge, sides: dict[str, Side], kept: str, told: str) -> dict[str, Any]:
    """What was compared, and what the pretrained part was worth."""
    worth = []
    for name in ("backbone", "both"):
        gap, error = judge.compare(sides[name].mark, sides["terms"].mark)
        worth.append(f"{name} {-gap:+.4f} ± {error:.4f}{_gain(sides[name].mark, sides['terms'].mark)}")
    reason = f"{told}; what the pretrained part is worth over the terms alone, out of fold: {', '.join(worth)}"
    candidates = [
        {
            "name": side.name,
            "score": round(float(side.mark.accuracy or side.mark.rmse or 0.0), 4),
            "note": f"{'RMSE, loss' if side.mark.accuracy is None else 'log-loss'} {judge.criterion(side.mark):.4f}{side.note}",
        }
        for side in sides.values()
    ]
    gap, error = judge.compare(sides["backbone"].mark, sides["terms"].mark)
    network = {"loss_gain": round(-float(gap), 6), "standard_error": round(float(error), 6)}
    return question(QUESTION, kept, reason) | {"candidates": candidates, "network_over_terms": network}


def _gain(mark: Mark, over: Mark) -> str:
    """By how much the accuracy is higher, in words; nothing for the value task."""
    if mark.accuracy is None or over.accuracy is None:
        return ""
    return f" (accuracy {mark.accuracy - over.accuracy:+.3f})"


def term_scores(head: TermsHead, counts: TermCounts, ids: Sequence[str]) -> np.ndarray:
    """Scores of counted texts.

    Args:
        head: on terms.
        counts: of all texts.
        ids: of N texts.

    Returns:
        (N, K) float64, what `TermsHead.scores` gives for the texts themselves.
    """
    return counts.weigh(head.vocabularies, ids) @ head.weight.astype(np.float64) + head.bias
