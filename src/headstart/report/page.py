"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

import contextlib
import importlib
from functools import cache
from pathlib import Path
from typing import Any

from headstart.errors import ArtifactError, MissingPackageError
from headstart.report import charts, curves, facts, sections
from headstart.report.adaptation import (
    describe_losses,
    describe_rates,
    describe_scores,
    describe_tuning,
    list_plan,
)
from headstart.report.advice import advise
from headstart.report.attempted import list_attempted, list_attempts, unit_of_gain
from headstart.report.blocks import list_blocks
from headstart.report.words import capitalize_first, duration, headline, is_number, name_items, percent, show

_TEMPLATES = Path(__file__).parent / "templates"
_VOTED = " Each item counts once, as most of the repeats answered it; the scores above are means over the repeats."
_MOST_BESIDE = 14
_ROW = {"label", "precision", "recall", "f1", "support"}


def import_drawing() -> None:
    """Load what pages are drawn with, half a second's work, on a thread of its own while the cores wait for something else."""
    with contextlib.suppress(ImportError):  # said properly once a page is asked for
        importlib.import_module("jinja2")
        importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.backends.backend_svg")


def render_report(report: dict[str, Any]) -> str:
    """Make the page's markup.

    Args:
        report: what report.json holds, with at least `summary`.

    Returns:
        HTML; every text of the user's in it is escaped.

    Raises:
        ArtifactError: if there is no summary.
        MissingPackageError: if Jinja2 or matplotlib is not installed.
    """
    if not isinstance(report.get("summary"), dict):
        raise ArtifactError(
            "the report has no summary.",
            expected='an object with at least "summary", as report.json of a saved model holds.',
            mend="run headstart fit again to make the evidence anew.",
        )
    return _template().render(_gather(report))


@cache
def _template() -> Any:  # noqa: ANN401 - jinja2 is loaded only where a page is drawn
    """The page's template, compiled once a process."""
    try:
        import jinja2
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingPackageError("jinja2", purpose="writing the report's page") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = show
    environment.filters["capitalize_first"] = capitalize_first
    environment.filters["drawn"] = lambda chart: Markup(chart.svg)
    return environment.get_template("report.html.j2")


def _gather(report: dict[str, Any]) -> dict[str, Any]:
    summary = report["summary"]
    shell, python = facts.write_usage(summary)
    return {
        "title": _name_model(summary),
        "headline": headline(report),
        "about": facts.describe_model(report),
        "created": show(report["created"]) if report.get("created") else "",
        "version": show(report["headstart_version"]) if report.get("headstart_version") else "",
        "tiles": sections.list_tiles(report),
        "notices": sections.list_notices(report),
        "choices": sections.list_choices(report),
        "tuning": _gather_tuning(report),
        "gate": "" if report.get("tuning") else _describe_gate(summary),
        "mistakes": sections.list_mistakes(report),
        "times": _gather_times(report),
        "shell": shell,
        "python": python,
        **_gather_evidence(report),
        **_gather_origins(report),
    }


def _gather_evidence(report: dict[str, Any]) -> dict[str, Any]:
    evaluation = report.get("evaluation") or {}
    rows = [row for row in evaluation.get("per_class") or [] if _ROW <= row.keys()]
    confusion = evaluation.get("confusion") or {}
    several = "mean_average_precision" in (report["summary"].get("test") or {}) or report["summary"].get("task") == "multi"
    score = "f1" if several else "recall"
    temperature = evaluation.get("temperature")
    return {
        "basis": show(evaluation["basis"]) if evaluation.get("basis") else "",
        "score": score,
        "class_bars": charts.draw_class_bars(rows, score),
        "most_bars": charts.MOST_BARS,
        "per_class": [{**row, "label": show(row["label"])} for row in rows],
        "confusion": charts.draw_confusion(confusion.get("labels") or [], confusion.get("counts") or []),
        "confusion_note": _VOTED if "repeated" in str(evaluation.get("basis")) else "",
        "pairs": sections.list_confusions(confusion),
        "reliability": charts.draw_reliability(evaluation.get("reliability") or []),
        "temperature": f"{temperature:.2f}" if isinstance(temperature, int | float) else "",
        "values": charts.draw_values(evaluation.get("predictions_vs_targets") or []),
    }


def _describe_class(row: dict[str, Any], label: str) -> dict[str, Any]:
    """The row of a label, with its share of each side in percent where the report has it."""
    shares = {side: row.get(f"{side}_share") for side in ("train", "test")}
    told = {f"{side}_percent": percent(share) if is_number(share) else "" for side, share in shares.items()}
    return {**row, "label": label, **told}


def _gather_origins(report: dict[str, Any]) -> dict[str, Any]:
    summary, data, backbone = report["summary"], report.get("data") or {}, report.get("backbone") or {}
    counts = {name: count for name, count in (summary.get("counts") or {}).items() if count}
    about_data = {"source": data.get("source"), "split": data.get("split"), **counts}
    classes = [_describe_class(row, show(row.get("label", ""))) for row in data.get("classes") or []]
    if data.get("without_labels"):
        classes.append(_describe_class(data["without_labels"], "(no label)"))
    return {
        "data_facts": facts.list_facts(about_data),
        "classes": classes,
        "num_labels": len(data.get("classes") or []),
        "most_items": max((row.get("train") or 0 for row in classes), default=0) or 1,
        "backbone_facts": facts.list_facts({name: value for name, value in backbone.items() if name != "blocks"}),
        "blocks": None if _shows_blocks(report) else list_blocks(report),
        "preprocess_facts": facts.list_facts(report.get("preprocess") or {}),
        "items": name_items(summary, 2),
    }


def _gather_tuning(report: dict[str, Any]) -> dict[str, Any] | None:
    if not (report.get("tuning") or {}).get("kept"):
        return None
    attempted, attempts = list_attempted(report), list_attempts(report)
    measured = [
        {"name": attempt.name, "gain": attempt.gain, "low": attempt.low, "high": attempt.high, "kept": attempt.kept}
        for attempt in attempted
        if attempt.gain is not None
    ]
    drawn = _gather_curves(next((each for each in attempts if each.get("kept")), {}))
    blocks = list_blocks(report) if _shows_blocks(report) else None
    return {
        "told": describe_tuning(report),
        "floor": _describe_floor(report["summary"]),
        "advice": [advice for advice in advise(report) if advice.kind != "at chance"],
        "attempts": attempted,
        "gains": curves.draw_gains(measured, unit_of_gain(report)),
        "unit": unit_of_gain(report),
        "plans": [{"name": show(each.get("strategy", "")), "rows": list_plan(each)} for each in attempts if each.get("plan")],
        "curves": drawn,
        "blocks": blocks,
        # A short table fills the place that an odd number of charts leaves.
        "beside": blocks is not None and len(drawn) % 2 == 1 and len(blocks.rows) <= _MOST_BESIDE,
    }


def _gather_curves(attempt: dict[str, Any]) -> list[dict[str, Any]]:
    history, plan = attempt.get("history") or [], attempt.get("plan") or {}
    # Weights between the first and the tuned ones are those of no epoch.
    kept = plan.get("kept_epoch") if plan.get("share_of_tuned_weights", 1.0) == 1.0 else None
    scores = "Errors" if any("valid_rmse" in row for row in history) else "Right answers"
    drawn = (
        ("Loss", curves.draw_losses(history, kept=kept), describe_losses(plan)),
        (scores, curves.draw_scores(history, kept=kept), describe_scores(history)),
        ("Learning rate", curves.draw_rates(history, kept=kept), describe_rates(plan)),
    )
    return [{"title": title, "chart": chart, "caption": caption} for title, chart, caption in drawn if chart]


def _shows_blocks(report: dict[str, Any]) -> bool:
    """Whether the blocks stand beside what was tuned; otherwise they stand with the backbone's facts."""
    blocks = list_blocks(report)
    return blocks is not None and blocks.trained and bool((report.get("tuning") or {}).get("kept"))


def _gather_times(report: dict[str, Any]) -> dict[str, Any] | None:
    stages = sections.list_stages(report)
    total = sum(seconds for _, seconds, _ in stages)
    if total <= 0:
        return None
    legend = [
        {"name": name, "time": duration(seconds), "share": percent(seconds / total), "colour": colour}
        for name, seconds, colour in stages
    ]
    return {"chart": charts.draw_times(stages), "legend": legend, "total": duration(total)}


def _describe_floor(summary: dict[str, Any]) -> str:
    floor = summary.get("floor") or {}
    if not is_number(floor.get("cv_accuracy")):
        return ""
    head = f" ({show(floor['head'])} head)" if floor.get("head") else ""
    told = f"The floor, an exactly solved head on frozen features{head}, got {floor['cv_accuracy']:.3f} in cross-validation"
    return f"{told}, on the folds that chose it, which flatters it a little."


def _describe_gate(summary: dict[str, Any]) -> str:
    gate = summary.get("gate") or {}
    told = [_describe_floor(summary)]
    if gate.get("kept"):
        tried = ", ".join(show(name) for name in gate.get("tried") or [])
        told.append(f"Tried beside it: {tried}. Kept: {show(gate['kept'])}." if tried else f"Kept: {show(gate['kept'])}.")
    if gate.get("reason"):
        reason = show(gate["reason"])
        told.append(f"{capitalize_first(reason)}{'' if reason.endswith('.') else '.'}")
    return " ".join(part for part in told if part)


def _name_model(summary: dict[str, Any]) -> str:
    name = Path(str(summary.get("artifact") or "model")).name
    return show(name.removesuffix(".hs") or name or "model")
