"""The heads of several networks, and the one on all their features, answering as one linear head.

Cross-validation on a few dozen items takes one network's head for the best by accident as often as not. Their common answer, in
shares by likelihood (`mixture`), is rarely much worse than the best of them, and often better. As evidence grows the shares go
to one of them, which then answers alone. All are linear in the same features, so their sum is one head like any other.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.data.folds import group_names
from headstart.data.targets import encode_targets
from headstart.features import FeatureTable
from headstart.heads.choose import Candidate, HeadChoice
from headstart.heads.judge import Judge
from headstart.heads.linear import LinearHead
from headstart.records import Dataset, Splits
from headstart.select.calibration import calibrate
from headstart.select.floor import Floor, FloorPlan, find_floor, with_terms
from headstart.select.mixture import knowledge, likely_shares, mix, unit_of

TOGETHER = "all together"
# From this share on a head answers alone.
ALONE = 0.9


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """What came of the heads of several networks."""

    floor: Floor
    part: int | None
    """The number of the network whose head answers alone, from 0; None where all networks are needed."""
    mixed: bool
    """Whether more than one head answers."""
    told: str
    """The shares, in words."""


@dataclass(frozen=True, kw_only=True)
class _Voice:
    """One head among several."""

    name: str
    part: int | None
    """The number of its network; None for that of all together."""
    floor: Floor
    columns: np.ndarray
    """(D,) where its features lie among those of all networks."""
    scores: np.ndarray
    """(N, K) float64, out of fold."""
    unit: float
    """Of the scores."""


def mix_heads(
    table: FeatureTable, dataset: Dataset, splits: Splits, labels: tuple[str, ...], plan: FloorPlan, best: int
) -> Ensemble:
    """Solve a head for each network and one for all features together, and let them answer in common.

    Args:
        table: features of all items by several networks.
        dataset: the samples.
        splits: who trains, and the groups that stay together.
        labels: K labels of the train side, in order.
        plan: how to seek each head.
        best: the number of the network that did best alone, which answers where no head knows anything.

    Returns:
        The common answer, or the one head that has nearly all of it.
    """
    voices = _voices(table, dataset, splits, labels, replace(plan, classical=False))
    judge = _judge(voices[0].floor.choice, dataset, splits, labels)
    answering, shares, told = _shares(voices, judge, best)
    mixed = len(answering) > 1
    if mixed:
        floor, part = _common(answering, shares, judge, table), None
    else:
        floor, part = answering[0].floor, answering[0].part
    if plan.classical:
        floor = with_terms(floor, table, dataset, splits)
    return Ensemble(floor=floor, part=part, mixed=mixed, told=told)


def _shares(voices: Sequence[_Voice], judge: Judge, best: int) -> tuple[list[_Voice], np.ndarray, str]:
    """Who answers, the share of each, and why, in words."""
    knowing = [voice for voice in voices[:-1] if operator.gt(*knowledge(judge, voice.scores))]
    if len(knowing) < 2:
        alone = knowing[0] if knowing else voices[best]
        return [alone], np.ones(1), "of the others, none alone tells more than how frequent the answers are"
    able = [*knowing, voices[-1]]
    shares = likely_shares(judge, [voice.scores / voice.unit for voice in able])
    told = ", ".join(f"{voice.name} {share:.0%}" for voice, share in zip(able, shares, strict=True))
    told = f"shares by likelihood: {told}"
    first = int(shares.argmax())
    return ([able[first]], np.ones(1), told) if shares[first] >= ALONE else (able, shares, told)


def _voices(
    table: FeatureTable, dataset: Dataset, splits: Splits, labels: tuple[str, ...], plan: FloorPlan
) -> tuple[_Voice, ...]:
    """A head on each network's features, and one on all."""
    parts = [(part.info.name, index, table.of_part(index)) for index, part in enumerate(table.spec.parts)]
    found = []
    for name, part, own in (*parts, (TOGETHER, None, table)):
        floor = find_floor(own, dataset, splits, labels, plan)
        scores = floor.choice.scores.astype(np.float64)
        columns = _columns(own, floor.block) + (0 if part is None else table.spec.starts[part])
        unit = unit_of(dataset.task, scores)
        found.append(_Voice(name=name, part=part, floor=floor, columns=columns, scores=scores, unit=unit))
    return tuple(found)


def _columns(table: FeatureTable, block: str) -> np.ndarray:
    return np.concatenate([np.arange(run.start, run.stop) for run in table.spec.runs(block)])


def _judge(choice: HeadChoice, dataset: Dataset, splits: Splits, labels: tuple[str, ...]) -> Judge:
    ids = [splits.train[row] for row in choice.rows]
    targets = encode_targets(dataset, ids, labels)
    if dataset.task == "value":
        targets = targets[:, None]
    weights = np.ones(max(len(labels), 1))
    return Judge.of(dataset.task, targets, choice.folds, group_names(splits.groups, ids), class_weights=weights)


def _common(voices: Sequence[_Voice], shares: np.ndarray, judge: Judge, table: FeatureTable) -> Floor:
    """The floor of a sum of heads, on the last blocks' features where none needs more."""
    block = "multi" if any(voice.floor.block == "multi" for voice in voices) else "last"
    first, scores = voices[0].floor, mix([voice.scores / voice.unit for voice in voices], shares)
    weight, bias = np.zeros((scores.shape[1], table.spec.width)), np.zeros(scores.shape[1])
    for voice, share in zip(voices, shares, strict=True):
        head = voice.floor.head
        assert isinstance(head, LinearHead), "a floor's head is an exact one"
        weight[:, voice.columns] += share / voice.unit * head.weight
        bias += share / voice.unit * head.bias
    weight = weight[:, _columns(table, block)]
    head = LinearHead(kind="mixture", weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    mark = judge.mark(scores)
    chosen = Candidate(
        kind="mixture",
        penalty=None,
        cv_accuracy=mark.accuracy,
        cv_log_loss=mark.log_loss,
        cv_rmse=mark.rmse,
        temperature=mark.temperature,
        gap=0.0,
        standard_error=0.0,
    )
    choice = replace(
        first.choice, head=head, chosen=chosen, scores=scores.astype(np.float32), losses=mark.losses, candidates=(), reason=""
    )
    truth = judge.targets[:, 0] if judge.task == "value" else judge.targets
    calibration = calibrate(scores, truth, task=judge.task, num_labels=len(first.labels), known=judge.known)
    asked = [each | {"question": f"{each['question']}, {voice.name}"} for voice in voices for each in voice.floor.choices]
    return Floor(
        block=block,
        head=head,
        calibration=calibration,
        choice=choice,
        labels=first.labels,
        choices=tuple(asked),
        cv_accuracy=mark.accuracy,
    )
