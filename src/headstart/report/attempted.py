"""The strategies that were tried, in words: what each gained, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.report.words import (
    decimals_of,
    duration,
    is_number,
    number,
    number_range,
    percent,
    percent_range,
    rough_duration,
    show,
    signed,
)

# The code of an attempt that was skipped for lack of time.
OVER_BUDGET = "over_budget"


@dataclass(frozen=True, kw_only=True)
class Attempted:
    """One strategy, as page and terminal tell it."""

    name: str
    kept: bool
    told: str
    """Why it was kept, dropped, or not tried: a sentence without its full stop."""
    seconds: str
    gain: float | None
    """Over the floor, in `unit_of_gain`; None where it did not come to the gate."""
    low: float | None
    high: float | None
    basis: str
    """Which items the gain was measured on."""

    @property
    def measured(self) -> str:
        """The gain with its interval, or nothing."""
        if self.gain is None or self.low is None or self.high is None:
            return ""
        form = f".{max(1, decimals_of(self.high - self.low))}f"
        return f"{signed(self.gain, form)} [{signed(self.low, form)}, {signed(self.high, form)}]"


def list_attempts(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The strategies that were tried, none for a report that knows of no tuning.

    Args:
        report: what report.json holds.
    """
    return list((report.get("tuning") or {}).get("attempts") or [])


def unit_of_gain(report: dict[str, Any]) -> str:
    """What gains are counted in.

    Args:
        report: what report.json holds.

    Returns:
        In words; a hundredth of the gate's score each.
    """
    match report["summary"].get("task"):
        case "value":
            return "points of explained variance"
        case "multi":
            return "points of right yes-or-no answers"
        case _:
            return "points of accuracy"


def was_held(gate: dict[str, Any]) -> bool:
    """Whether a strategy came to the gate.

    Args:
        gate: of an attempt, or nothing.
    """
    return all(is_number(gate.get(name)) for name in ("gain", "low", "high", "loss_gain", "loss_low", "loss_high"))


def describe_skipped(attempts: Sequence[dict[str, Any]]) -> str:
    """Say in one line what the strategies that do not fit the budget would take.

    Args:
        attempts: as `list_attempts` gives them.

    Returns:
        The line; "" where all were tried.
    """
    needs = sorted(
        (float(attempt.get("needed_seconds") or 0.0), show(attempt.get("strategy", "")))
        for attempt in attempts
        if attempt.get("code") == OVER_BUDGET
    )
    if not needs:
        return ""
    first, *others = needs
    told = [f"{first[1]} would take about {rough_duration(first[0])}"]
    told += [f"{name} about {rough_duration(seconds)}" for seconds, name in others]
    return f"fine-tuning {', '.join(told)}: --budget {suggest_budget(first[0])}"


def suggest_budget(least_seconds: float) -> str:
    """A budget, as `--budget` takes it, that leaves some room above the least.

    Args:
        least_seconds: the least that will do.
    """
    seconds = 1.25 * least_seconds
    return f"{math.ceil(seconds / 10) * 10}s" if seconds <= 90 else f"{math.ceil(seconds / 60)}m"


def list_attempted(report: dict[str, Any]) -> list[Attempted]:
    """Every strategy that was tried, in words.

    Args:
        report: what report.json holds.

    Returns:
        In the order they were tried; none where only the floor was.
    """
    attempts = [attempt for attempt in list_attempts(report) if attempt.get("code") != OVER_BUDGET]
    kept = next((show(attempt.get("strategy", "")) for attempt in attempts if attempt.get("kept")), "")
    return [_describe_attempt(attempt, kept) for attempt in attempts]


def _describe_attempt(attempt: dict[str, Any], kept: str) -> Attempted:
    gate = attempt.get("gate") or {}
    known = was_held(gate)
    # A gain on the items that chose the weights is no evidence: the scores on the test items are told instead.
    gain, low, high = (100 * gate[name] if known and not gate.get("chosen") else None for name in ("gain", "low", "high"))
    name = show(attempt.get("strategy", ""))
    told = _judge(attempt, gate, kept) if known else show(attempt.get("reason") or "not tried")
    seconds = attempt.get("seconds")
    return Attempted(
        name=name,
        kept=bool(attempt.get("kept")),
        told=told,
        seconds=duration(seconds) if is_number(seconds) and seconds > 0 else "",
        gain=gain,
        low=low,
        high=high,
        basis=show(gate["basis"]) if gate.get("basis") and not gate.get("chosen") else "",
    )


def _judge(attempt: dict[str, Any], gate: dict[str, Any], kept: str) -> str:
    found = f"{compare_with_floor(gate)}{'' if gate.get('chosen') else _measure_loss(gate)}"
    if attempt.get("kept"):
        asked = str(attempt.get("reason", "")).startswith("as asked")
        return f"{'kept, as asked' if asked else 'kept'}: {found}"
    if gate.get("passed"):
        return f"dropped: {found}; {kept or 'another'} gained more"
    return f"dropped: {found}"


def describe_on_test(report: dict[str, Any]) -> str:
    """Say how the baseline does on the test items, beside what was trained.

    Args:
        report: what report.json holds.

    Returns:
        A sentence; "" where the baseline answers, or there is no test split.
    """
    found = (report.get("tuning") or {}).get("on_test") or {}
    title = _METRICS.get(found.get("metric", ""))
    if title is None or not all(is_number(found.get(name)) for name in ("tuned", "baseline")):
        return ""
    told = f"{title} on the same {found['num_items']:,} test items: {_write_score(found, 'tuned')}; "
    told += f"the floor, without training: {_write_score(found, 'baseline')}"
    if not found.get("gain_ci95"):
        return f"{told}."
    return f"{told}. {_ON_TEST.get(str(found.get('code')), '')} ({_write_gain(found)})."


_METRICS = {"accuracy": "Accuracy", "micro_f1": "F1 over all labels", "mae": "Mean absolute error"}
_ON_TEST = {
    "better": "Training made it better",
    "worse": "Training made it worse",
    "unsure": "Whether training made it better cannot be told from so many items",
}


def _write_score(found: dict[str, Any], name: str) -> str:
    interval = found[f"{name}_ci95"]
    if found["metric"] == "accuracy":
        return f"{percent(found[name], interval=interval)} ({percent_range(interval)})"
    return f"{number(found[name], interval)} ({number_range(interval)})"


def _write_gain(found: dict[str, Any]) -> str:
    if found["metric"] != "accuracy":
        return f"error lower by {number(found['gain'])}, 95 % interval {number_range(found['gain_ci95'])}"
    gain, low, high = (100 * value for value in (found["gain"], *found["gain_ci95"]))
    form = f".{max(1, decimals_of(high - low))}f"
    return f"{signed(gain, form)} points, 95 % interval {signed(low, form)} to {signed(high, form)}"


def compare_with_floor(gate: dict[str, Any]) -> str:
    """Say how a tuned network stands to the floor.

    Args:
        gate: of an attempt, with its intervals.
    """
    if gate.get("passed"):
        return "better than the floor beyond doubt"
    if gate.get("chosen"):
        return "compared with the floor on the test items only, since the validation items chose its weights"
    if gate["loss_high"] < 0:
        return "worse than the floor beyond doubt"
    if gate["loss_low"] > 0:
        return "surer of the truth than the floor, yet less often right"
    return "not better than the floor beyond doubt"


def _measure_loss(gate: dict[str, Any]) -> str:
    if gate["loss"] != "log-loss":  # an error of values is told already, by the gain
        return ""
    low, high = (signed(gate[name], ".3f") for name in ("loss_low", "loss_high"))
    return f" (log-loss {gate['tuned_loss']:.3f} against {gate['floor_loss']:.3f}, lower by {low} to {high})"
