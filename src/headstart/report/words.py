"""Numbers and labels in words, as the page and the card show them."""

from __future__ import annotations

import math
import unicodedata
from typing import Any, TypeGuard

ITEMS = {"image": ("image", "images"), "text": ("text", "texts"), "audio": ("sound clip", "sound clips")}
CLIPS, MIXED = ("clip", "clips"), ("image or clip", "images and clips")
_SPACE = "\N{NO-BREAK SPACE}"
_DASH = "\N{EN DASH}"


def show(label: object) -> str:
    """Make a label's invisible characters visible, so that what is shown is what is there.

    Args:
        label: any text.

    Returns:
        The text with line breaks, tabs and other control or direction marks as symbols; an empty one as "(empty)".
    """
    text = "".join(_show_character(character) for character in str(label))
    return text or "(empty)"


def shorten(label: object, width: float) -> str:
    """Cut a label to fit a chart.

    Args:
        label: any text.
        width: in characters of usual width; wide ones (emoji, Chinese) count two.

    Returns:
        The label as `show` gives it, with an ellipsis where it was cut.
    """
    text = show(label)
    if measure(text) <= width:
        return text
    kept = ""
    for character in text:
        if measure(kept + character) > width - 1:
            break
        kept += character
    return kept.rstrip() + "…"


def measure(text: str) -> int:
    """Width of a text in characters of usual width.

    Args:
        text: any.

    Returns:
        At least the number of characters; wide ones count two.
    """
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def percent(share: float, num_items: int | None = None) -> str:
    """Say a share in percent, never rounded up to all or down to none.

    Args:
        share: in [0, 1].
        num_items: what it is a share of; from 1,000 on, one decimal is shown.

    Returns:
        Such as "93 %", with a no-break space.
    """
    return f"{_percent_number(share, num_items)}{_SPACE}%"


def percent_range(interval: list[float], num_items: int | None = None) -> str:
    """Say an interval of shares.

    Args:
        interval: [low, high] in [0, 1].
        num_items: as in `percent`.

    Returns:
        Such as "87–97 %".
    """
    return f"{_percent_number(interval[0], num_items)}{_DASH}{_percent_number(interval[1], num_items)}{_SPACE}%"


def number(value: float) -> str:
    """Say a number to three significant digits, in full where it is large.

    Args:
        value: any finite number.

    Returns:
        Such as "0.312", "1.30" or "12,300".
    """
    size = abs(value)
    if value != 0 and not 0.001 <= size < 1e9:
        return f"{value:.3g}"
    digits = 3 - sum(size >= limit for limit in (1, 10, 100))
    return f"{value:,.{digits}f}"


def capitalize_first(text: str) -> str:
    """Begin a sentence, and leave all else as it is.

    Args:
        text: any.

    Returns:
        The text with its first letter large.
    """
    return text[:1].upper() + text[1:]


def signed(value: float, form: str = ".1f") -> str:
    """Say a difference, with its sign.

    Args:
        value: any finite number.
        form: as in a format string, without the sign.

    Returns:
        Such as "+1.0", with a true minus sign where it is below 0.
    """
    return f"{value:+{form}}".replace("-", "\N{MINUS SIGN}")


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value out of report.json can be shown as a number.

    Args:
        value: anything.

    Returns:
        True for a finite int or float.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def duration(seconds: float) -> str:
    """Say a time.

    Args:
        seconds: at least 0.

    Returns:
        Such as "34 ms", "6.7 s" or "2 min 5 s".
    """
    if seconds < 0.1:
        return f"{seconds * 1000:.0f}{_SPACE}ms"
    if seconds < 99.5:
        return f"{seconds:.1f}{_SPACE}s" if seconds < 9.95 else f"{seconds:.0f}{_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_SPACE}min {rest}{_SPACE}s"
    return f"{minutes // 60}{_SPACE}h {minutes % 60}{_SPACE}min"


def rough_duration(seconds: float) -> str:
    """Say a time that was predicted: "30 s", "4 min" or "2 h"."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f}{_SPACE}s"
    return f"{seconds / 60:.0f}{_SPACE}min" if seconds < 5400 else f"{seconds / 3600:.0f}{_SPACE}h"


def name_items(summary: dict[str, Any], count: int) -> str:
    """Name the items by what they are.

    Args:
        summary: the `fit --json` object; its counts say how many image items are clips.
        count: how many, for the plural.

    Returns:
        Such as "image", "texts", "images and clips" or "items".
    """
    names, counts = ITEMS.get(summary.get("modality", ""), ("item", "items")), summary.get("counts") or {}
    if counts.get("clips"):
        names = CLIPS if counts["clips"] == (counts.get("train") or 0) + (counts.get("test") or 0) else MIXED
    return names[count != 1]


def headline(report: dict[str, Any]) -> str:
    """Say in one sentence how good the model is, how sure that is, and what the simplest answer would get.

    Args:
        report: what report.json holds.

    Returns:
        Plain text; labels in it are as `show` gives them.
    """
    test = report["summary"].get("test") or {}
    if is_number(test.get("accuracy")):
        return _headline_single(report, test)
    if is_number(test.get("micro_f1")) or is_number(test.get("mean_average_precision")):
        return _headline_multi(report, test)
    if is_number(test.get("mae")):
        return _headline_value(report, test)
    return "Saved, but not evaluated: there is no evidence yet of how good it is."


def _headline_single(report: dict[str, Any], test: dict[str, Any]) -> str:
    summary, count = report["summary"], _count_test(report)
    told = f"{percent(test['accuracy'], count)} of {_describe_basis(report)} labelled right"
    told += _describe_interval(percent_range(test["accuracy_ci95"], count)) if test.get("accuracy_ci95") else ""
    majority = (report.get("evaluation") or {}).get("majority") or {}
    share = majority.get("accuracy", summary.get("majority_accuracy"))
    if share is None:
        return f"{told}."
    answer = f"‘{show(majority['label'])}’" if "label" in majority else "the most frequent label"
    return f"{told}; always answering {answer} would get {percent(share, count)}."


def _headline_multi(report: dict[str, Any], test: dict[str, Any]) -> str:
    name, words = (
        ("micro_f1", "F1") if is_number(test.get("micro_f1")) else ("mean_average_precision", "mean average precision")
    )
    told = f"{words} {test[name]:.2f} over all labels of {_describe_basis(report)}"
    interval = test.get(f"{name}_ci95")
    told += _describe_interval(f"{interval[0]:.2f}{_DASH}{interval[1]:.2f}") if interval else ""
    return f"{told}; 1 is perfect."


def _headline_value(report: dict[str, Any], test: dict[str, Any]) -> str:
    told = f"Off by {number(test['mae'])} on average on {_describe_basis(report)}"
    interval = test.get("mae_ci95")
    told += _describe_interval(f"{number(interval[0])}{_DASH}{number(interval[1])}") if interval else ""
    if not is_number(test.get("r2")):
        return f"{told}."
    if test["r2"] <= 0:
        return f"{told}; always answering the mean would do no worse."
    return f"{told}; it explains {percent(test['r2'])} of the variance, and always answering the mean explains none."


def _describe_interval(words: str) -> str:
    return f" (95{_SPACE}% interval {words})"


def _count_test(report: dict[str, Any]) -> int:
    return int((report["summary"].get("counts") or {}).get("test") or 0)


def _describe_basis(report: dict[str, Any]) -> str:
    count = _count_test(report)
    if count:
        return f"{count:,} test {name_items(report['summary'], count)}"
    basis = (report.get("evaluation") or {}).get("basis")
    items = name_items(report["summary"], 2)
    return f"{items} ({show(basis)})" if basis else items


def _percent_number(share: float, num_items: int | None) -> str:
    digits = 1 if (num_items or 0) >= 1000 else 0
    smallest = 10.0**-digits
    value = round(share * 100, digits)
    if share < 1 and value >= 100:
        value = 100 - smallest
    if share > 0 and value <= 0:
        value = smallest
    return f"{value:.{digits}f}"


def _show_character(character: str) -> str:
    if character == "\n":
        return "⏎"
    code = ord(character)
    if code < 32:
        return chr(0x2400 + code)
    category = unicodedata.category(character)
    # A zero-width joiner makes one emoji of several; the other format marks turn or hide the text around them.
    if category in {"Cc", "Cs", "Zl", "Zp"} or (category == "Cf" and character != "\N{ZERO WIDTH JOINER}"):
        return "\N{REPLACEMENT CHARACTER}"
    return character
