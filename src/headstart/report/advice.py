"""Advice in plain words, from the floor, the curves of a training, and the gate."""

from __future__ import annotations

import math
from typing import Any

from headstart.report.attempted import list_attempts, was_held
from headstart.report.curve_advice import Advice, judge_curves, judge_start
from headstart.report.words import is_number, number, percent

CHANCE_ERRORS = 2.0
"""Standard errors above the most frequent label's share, up to which an accuracy is chance."""


def advise(report: dict[str, Any]) -> list[Advice]:
    """Say what the floor, the curves and the gate advise, the gravest first.

    Args:
        report: what report.json holds; without `tuning`, only the floor is looked at.

    Returns:
        Any number of pieces of advice, each kind at most once.
    """
    kept = next((attempt for attempt in list_attempts(report) if attempt.get("kept")), None)
    found = [judge_floor(report), judge_terms(report)]
    if kept is not None:
        labels = len(report["summary"].get("labels") or [])
        lost = judge_start(kept)
        curves = judge_curves(kept.get("history") or [], kept.get("plan") or {}, num_labels=labels)
        found += [*([lost] if lost else curves), judge_gate(kept, (report.get("tuning") or {}).get("on_test") or {})]
    return [advice for advice in found if advice is not None]


def judge_floor(report: dict[str, Any]) -> Advice | None:
    """Whether the exact head on frozen features does no better than the most frequent label.

    Args:
        report: what report.json holds.

    Returns:
        Advice for items of one label each, where the cross-validated accuracy is chance.
    """
    summary = report["summary"]
    accuracy = (summary.get("floor") or {}).get("cv_accuracy")
    counts = [row.get("train") or 0 for row in (report.get("data") or {}).get("classes") or []]
    total = sum(counts)
    if summary.get("task") != "single" or not is_number(accuracy) or not total or len(counts) < 2:
        return None
    weighted = any(asked.get("question") == "class weights" and asked.get("kept") == "weights" for asked in _choices(report))
    # With class weights the head is not meant to favour the most frequent label.
    chance = 1 / len(counts) if weighted else max(counts) / total
    if accuracy > chance + CHANCE_ERRORS * math.sqrt(chance * (1 - chance) / total):
        return None
    name = str((report.get("summary") or {}).get("backbone", ""))
    if name.startswith("random:"):
        return Advice(
            kind="at chance",
            message=f"The exact head on untrained features gets {percent(accuracy, total)} in cross-validation, and chance "
            f"alone {percent(chance, total)}: as is to be expected of a network that has learned nothing yet.",
            mend="pretrained weights (--backbone auto), or many more epochs and labels.",
        )
    return Advice(
        kind="at chance",
        message=f"The exact head on frozen features gets {percent(accuracy, total)} in cross-validation, and chance alone "
        f"{percent(chance, total)}: the features tell nothing about these labels.",
        mend="check that the labels belong to the items, and that the preprocess keeps what tells the labels apart"
        f"{_describe_lost(report)}; if both are right, the labels need a network trained on more similar items (--backbone).",
    )


def judge_terms(report: dict[str, Any]) -> Advice | None:
    """Whether words and pieces of words alone (TF-IDF) do better than the network.

    Args:
        report: what report.json holds.

    Returns:
        Advice for texts, where the network's loss is higher by more than two standard errors of the paired difference.
    """
    asked = next((each for each in _choices(report) if each.get("network_over_terms")), {})
    found = asked.get("network_over_terms") or {}
    gain, error = found.get("loss_gain"), found.get("standard_error")
    if not (is_number(gain) and is_number(error)) or gain >= -2 * error:
        return None
    scores = {each.get("name"): each.get("score") for each in asked.get("candidates") or []}
    told = ""
    if all(is_number(scores.get(name)) for name in ("terms", "backbone")):
        name = "RMSE" if report["summary"].get("task") == "value" else "accuracy"
        told = f": {name} {number(scores['terms'])} against {number(scores['backbone'])}"
    return Advice(
        kind="terms better",
        message=f"In cross-validation words and pieces of words alone (TF-IDF) do better than the network's features{told}. "
        "The network adds little or nothing on these texts.",
        mend="a backbone for this language and kind of text (--backbone), or fine-tuning (--strategy full).",
    )


def _describe_lost(report: dict[str, Any]) -> str:
    """What the preprocess is known to drop, in brackets; labels that differ in nothing else cannot be learned."""
    lost = []
    if (report.get("preprocess") or {}).get("lower_cases"):
        lost.append("the tokenizer lower-cases: upper and lower case are not told apart")
    if (report["summary"].get("counts") or {}).get("clips"):
        lost.append("the frames of a clip are averaged: their order and motion are not seen")
    return f" ({'; '.join(lost)})" if lost else ""


def judge_gate(attempt: dict[str, Any], on_test: dict[str, Any] | None = None) -> Advice | None:
    """Whether a strategy that was kept, because it was asked for, is worth it.

    Args:
        attempt: that was kept, with its gate.
        on_test: its comparison with the floor on the test items, if there is one; it counts for more than the validation items
            that chose the weights.

    Returns:
        Advice where the tuned network is worse than the floor, or not better beyond doubt.
    """
    gate = attempt.get("gate") or {}
    if gate.get("passed") or not was_held(gate):
        return None
    exact = "--head linear" if attempt.get("strategy") == "head" else "--strategy extract"
    code = (on_test or {}).get("code") if gate.get("chosen") else None
    if code == "better":
        return None
    if code == "worse" or (code is None and gate["loss_high"] < 0):
        return Advice(
            kind="floor better",
            message="The exact head on frozen features does better than what was trained, beyond doubt.",
            mend=f"{exact}; with --strategy auto the better of the two is kept.",
        )
    seen = "both answer them alike" if gate["low"] == gate["high"] else "the gain may be chance"
    if code is None and gate.get("chosen") and gate["loss_low"] > 0 and gate["gain"] >= 0:
        return None
    if code == "unsure":
        basis = f"{on_test['num_items']:,} test items" if on_test else ""
        seen = "the difference may be chance"
    else:
        basis = _describe_items(gate)
    return Advice(
        kind="gain unsure",
        message=f"Whether training gained anything cannot be told from {basis}: {seen}.",
        mend=f"more labelled items tell more; {exact} is as good by all that is known, and quicker.",
    )


def _describe_items(gate: dict[str, Any]) -> str:
    return str(gate.get("basis") or f"{gate.get('num_items', 'these')} items")


def _choices(report: dict[str, Any]) -> list[dict[str, Any]]:
    return list(report.get("choices") or [])
