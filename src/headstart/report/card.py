"""The model card: the README.md in a saved model's folder."""

from __future__ import annotations

import re
from typing import Any

from headstart.report.adaptation import describe_tuning
from headstart.report.attempted import list_attempted, unit_of_gain
from headstart.report.facts import describe_model, list_facts, write_usage
from headstart.report.words import headline, is_number, number, number_range, show

_MOST_LABELS = 50
_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "mean_average_precision": "Mean average precision",
    "log_loss": "Log-loss",
    "ece": "Expected calibration error",
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "r2": "R²",
}


def model_card(report: dict[str, Any]) -> str:
    """Write the card: what the model is, its labels, its evidence, its limits, its licence, and how to use it.

    Args:
        report: what report.json holds; only `summary` must be there.

    Returns:
        Markdown; every text of the user's in it is escaped, and shows as it is.
    """
    summary = report["summary"]
    shell, python = write_usage(summary)
    parts = [
        f"# {_escape(_name(summary))}",
        _escape(headline(report)),
        f"{_escape(describe_model(report))}." if describe_model(report) else "",
        "## Use",
        _fence(shell, "sh"),
        _fence(python, "python"),
        _write_labels(summary.get("labels") or []),
        _write_evidence(report),
        _write_tuning(report),
        _write_limits(report),
        _write_backbone(report),
        "The whole evidence is in `report.html`, and as data in `report.json`.",
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.encode("utf-8", "replace").decode()


def _write_labels(labels: list[str]) -> str:
    if not labels:
        return ""
    rows = [f"- {_escape(show(label))}" for label in labels[:_MOST_LABELS]]
    if len(labels) > _MOST_LABELS:
        rows.append(f"- and {len(labels) - _MOST_LABELS:,} more, all in `headstart.json`")
    return "## Labels\n\n" + "\n".join(rows)


def _write_evidence(report: dict[str, Any]) -> str:
    test, evaluation = report["summary"].get("test") or {}, report.get("evaluation") or {}
    rows = [
        f"| {title} | {number(test[name], test.get(f'{name}_ci95'))} | {_write_interval(test.get(f'{name}_ci95'))} |"
        for name, title in _NAMES.items()
        if name in test
    ]
    if not rows:
        return ""
    basis = f"Measured on {_escape(show(evaluation['basis']))}.\n\n" if evaluation.get("basis") else ""
    return f"## Evidence\n\n{basis}| Metric | Value | 95 % interval |\n|---|---:|---:|\n" + "\n".join(rows)


def _write_tuning(report: dict[str, Any]) -> str:
    told = describe_tuning(report)
    if not told:
        return ""
    tuning = report["tuning"]
    facts = [f"Strategy: {_escape(show(tuning['kept']))}"]
    if tuning.get("cut"):
        facts.append(f"Cut: behind {_escape(show(tuning['cut']))}; what is before it is frozen")
    for attempt in list_attempted(report):
        gain = (
            f" Gain over the floor {attempt.measured} {unit_of_gain(report)}, on {attempt.basis}." if attempt.measured else ""
        )
        facts.append(f"{_escape(attempt.name)}: {_escape(f'{attempt.told}.{gain}')}")
    return f"## How it was adapted\n\n{_escape(told)}\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _write_limits(report: dict[str, Any]) -> str:
    summary = report["summary"]
    limits = ["It was measured on data like the data it learned from; on other data it can do worse than these numbers say."]
    if summary.get("labels") and summary.get("task") != "multi":
        limits.insert(0, "It gives one of its labels to anything, also to what is none of them.")
    warnings = report.get("warnings")
    limits += [_escape(show(warning)) for warning in (summary.get("warnings") or [] if warnings is None else warnings)]
    weak = [
        row
        for row in (report.get("evaluation") or {}).get("per_class") or []
        if row.get("support") and is_number(row.get("recall")) and row["recall"] < 0.5
    ]
    if weak:
        weak.sort(key=lambda row: row["recall"])
        names = ", ".join(f"{_escape(show(row['label']))} ({row['recall']:.2f})" for row in weak[:10])
        limits.append(f"It finds less than half of the items of: {names}.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _write_backbone(report: dict[str, Any]) -> str:
    backbone = report.get("backbone") or {}
    rows = list_facts({name: value for name, value in backbone.items() if name != "blocks"})
    if not rows:
        return ""
    told = "The model contains, or was computed with, these pretrained weights; their licence applies to them."
    return f"## Backbone and licence\n\n{told}\n\n" + "\n".join(f"- {_escape(name)}: {_escape(value)}" for name, value in rows)


def _write_interval(interval: list[float] | None) -> str:
    return number_range(interval) if interval else ""


def _name(summary: dict[str, Any]) -> str:
    artifact = str(summary.get("artifact") or "model").rstrip("/\\")
    return show(re.split(r"[/\\]", artifact)[-1])


def _escape(text: str) -> str:
    """Keep Markdown and HTML from seeing anything in a text; `show` has already put line breaks away."""
    escaped = re.sub(r"([\\`*_{}\[\]<>|~&$@]|:(?=//)|(?<=www)\.)", r"\\\1", text)
    # What would start a list or a heading does so only at the front.
    escaped = re.sub(r"^(\d*)([-+#.)=])", r"\1\\\2", escaped)
    return re.sub(r"^ +", lambda found: "\N{NO-BREAK SPACE}" * len(found.group()), escaped)


def _fence(code: str, language: str) -> str:
    # A fence longer than any run of backticks inside it cannot be closed from inside.
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"
