"""What each part of the page shows, out of report.json; a part whose facts are missing is None or empty, never made up."""

from __future__ import annotations

import re
from typing import Any

from headstart.report.advice import judge_floor
from headstart.report.words import duration, is_number, number, number_range, percent, percent_range, show

MOST_MISTAKES = 24
MOST_PAIRS = 10
_STAGES = {
    "read": ("reading and checking", "#56b4e9"),
    "features": ("features", "#2f7fc1"),
    "head": ("head", "#0f9d76"),
    "tune": ("tuning", "#c277a6"),
    "evaluate": ("evaluation", "#e3a008"),
    "report": ("report", "#d9652b"),
}
_OTHER_COLOUR = "#8a929b"
_PICTURE = re.compile(r"data:image/(?:jpeg|png|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")
_SOUND = re.compile(r"data:audio/(?:wav|ogg|flac);base64,[A-Za-z0-9+/]+={0,2}")
_MEANINGS = {
    "accuracy": ("Accuracy", "labelled right"),
    "macro_f1": ("Macro F1", "every label counts alike, rare or not"),
    "micro_f1": ("Micro F1", "all answers pooled"),
    "mean_average_precision": ("Mean average precision", "how well each label's items are ranked first"),
    "log_loss": ("Log-loss", "lower is better; sure mistakes cost most"),
    "ece": ("Calibration error", "how far sureness and being right lie apart"),
    "mae": ("Mean absolute error", "average distance from the truth"),
    "rmse": ("Root mean squared error", "far misses count more"),
    "r2": ("R²", "share of the variance explained"),
}
_SHARES = {"accuracy", "macro_f1", "micro_f1", "mean_average_precision", "r2"}
_SEVERITY = {"error": "Error", "warning": "Warning", "info": "Note"}


def list_tiles(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Put the key figures in tiles: each metric with its interval, then speed.

    Args:
        report: what report.json holds.

    Returns:
        name, value, note, and for shares the places (percent of the width) of point, low, high and the majority answer.
    """
    test, evaluation = report["summary"].get("test") or {}, report.get("evaluation") or {}
    measured = {
        name: value for name, value in (evaluation.get("metrics") or test).items() if name in _MEANINGS and is_number(value)
    }
    intervals = {name: test.get(f"{name}_ci95") for name in measured} | (evaluation.get("intervals") or {})
    majority = (evaluation.get("majority") or {}).get("accuracy", report["summary"].get("majority_accuracy"))
    count = (report["summary"].get("counts") or {}).get("test")
    tiles = [_make_tile(name, value, intervals.get(name), count) for name, value in measured.items()]
    for tile in tiles:
        if tile["name"] == "Accuracy" and majority is not None and "range" in tile:
            tile["range"]["majority"] = round(100 * majority, 1)
    seconds, rate = _get_seconds(report), report["summary"].get("items_per_second")
    if not (report["summary"].get("cache") or {}).get("misses"):
        rate = None  # what was read from the store says nothing of the network's speed
    if seconds.get("total"):
        note = f"{number(rate)} items a second" if rate else "from data to saved model"
        tiles.append({"name": "Time", "value": duration(seconds["total"]), "note": note})
    return tiles


def list_notices(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Gather warnings, a floor at chance, and findings about the data, errors first.

    Args:
        report: what report.json holds.

    Returns:
        severity, kind, message, mend and items of each.
    """
    warnings = report.get("warnings")
    told = [
        {"severity": "warning", "kind": "Warning", "message": show(warning), "mend": "", "items": []}
        for warning in (report["summary"].get("warnings") or [] if warnings is None else warnings)
    ]
    chance = judge_floor(report)
    if chance is not None:
        told.append(
            {"severity": "warning", "kind": "Warning, at chance", "message": chance.message, "mend": chance.mend, "items": []}
        )
    for finding in (report.get("data") or {}).get("findings") or []:
        severity = finding.get("severity") if finding.get("severity") in _SEVERITY else "info"
        told.append({
            "severity": severity,
            "kind": f"{_SEVERITY[severity]}, {show(finding.get('kind', 'data')).replace('_', ' ')}",
            "message": show(finding.get("message", "")),
            "mend": show(finding["mend"]) if finding.get("mend") else "",
            "items": [show(item) for item in finding.get("items") or []],
        })  # fmt: skip
    order = list(_SEVERITY)
    return sorted(told, key=lambda notice: order.index(notice["severity"]))


def list_confusions(confusion: dict[str, Any]) -> list[dict[str, Any]]:
    """Find the pairs of classes most often taken one for the other.

    Args:
        confusion: labels and counts.

    Returns:
        Up to 10 of label, predicted, count and share of the label's items, most frequent first.
    """
    labels, counts = confusion.get("labels") or [], confusion.get("counts") or []
    totals = [sum(row) for row in counts]
    found = [
        (count, row, column)
        for row, cells in enumerate(counts)
        for column, count in enumerate(cells)
        if count and row != column
    ]
    found.sort(key=lambda pair: (-pair[0], -pair[0] / totals[pair[1]], pair[1], pair[2]))
    return [
        {"label": show(labels[row]), "predicted": show(labels[column]), "count": count, "share": percent(count / totals[row])}
        for count, row, column in found[:MOST_PAIRS]
    ]


def list_mistakes(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Gather the most confident mistakes.

    Args:
        report: what report.json holds.

    Returns:
        item, label, predicted, probability, picture and sound (data URIs, or "") and excerpt (of a text, or ""), up to 24.
    """
    mistakes = (report.get("evaluation") or {}).get("mistakes") or []
    return [
        {
            "item": show(mistake.get("item", "")),
            "label": show(mistake.get("label", "")),
            "predicted": show(mistake.get("predicted", "")),
            "probability": f"{mistake['probability']:.2f}" if is_number(mistake.get("probability")) else "",
            "picture": _check_picture(mistake.get("thumbnail")),
            "sound": _check_sound(mistake.get("sound")),
            "excerpt": show(mistake["excerpt"]) if mistake.get("excerpt") else "",
        }
        for mistake in mistakes[:MOST_MISTAKES]
    ]


def list_choices(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Tell what was tried and why it was kept.

    Args:
        report: what report.json holds.

    Returns:
        question, kept, reason, and candidates with name, score, note, kept, and the width of a bar in percent.
    """
    choices = []
    for choice in report.get("choices") or []:
        candidates = choice.get("candidates") or []
        scores = [candidate["score"] for candidate in candidates if candidate.get("score") is not None]
        shares = bool(scores) and 0 <= min(scores) and max(scores) <= 1
        rows = [
            {
                "name": show(candidate.get("name", "")),
                "score": number(candidate["score"]) if candidate.get("score") is not None else "",
                "note": show(candidate["note"]) if candidate.get("note") else "",
                "kept": candidate.get("name") == choice.get("kept"),
                "width": round(100 * candidate["score"], 1) if shares and candidate.get("score") is not None else None,
            }
            for candidate in candidates
        ]
        texts = {key: show(choice[key]) if choice.get(key) else "" for key in ("question", "kept", "reason")}
        choices.append({**texts, "candidates": rows, "notes": any(row["note"] for row in rows)})
    return choices


def list_stages(report: dict[str, Any]) -> list[tuple[str, float, str]]:
    """Tell where the time went.

    Args:
        report: what report.json holds.

    Returns:
        (name, seconds, colour) of each stage that took time, and "other" for what the stages leave of the total.
    """
    seconds = _get_seconds(report)
    stages = [
        (*_STAGES.get(name, (show(name), _OTHER_COLOUR)), float(spent))
        for name, spent in seconds.items()
        if name != "total" and spent
    ]
    rest = float(seconds.get("total") or 0.0) - sum(spent for *_, spent in stages)
    if rest > 0.02 * float(seconds.get("total") or 0.0):
        stages.append(("other", _OTHER_COLOUR, rest))
    return [(name, spent, colour) for name, colour, spent in stages]


def _make_tile(name: str, value: float, interval: list[float] | None, count: int | None) -> dict[str, Any]:
    title, note = _MEANINGS[name]
    tile: dict[str, Any] = {"name": title, "note": note, "value": number(value, interval)}
    if name == "accuracy":
        tile["value"] = percent(value, count, interval=interval)
    if interval:
        words = percent_range(interval) if name == "accuracy" else number_range(interval)
        tile["interval"] = f"95 % interval {words}"
        if name in _SHARES:
            low, high, point = (round(100 * min(1.0, max(0.0, share)), 1) for share in (*interval, value))
            tile["range"] = {"low": low, "width": round(high - low, 1), "point": point}
    return tile


def _get_seconds(report: dict[str, Any]) -> dict[str, float]:
    return report.get("seconds") or report["summary"].get("seconds") or {}


def _check_sound(sound: object) -> str:
    return sound if isinstance(sound, str) and _SOUND.fullmatch(sound) else ""


def _check_picture(thumbnail: object) -> str:
    return thumbnail if isinstance(thumbnail, str) and _PICTURE.fullmatch(thumbnail) else ""
