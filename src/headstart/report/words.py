"""Numbers and labels in words, as the page and the card show them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
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


def decimals_of(width: float) -> int:
    """How many decimals the ends of an interval need: rounding moves an end by at most a tenth of the interval's width.

    Args:
        width: of the interval, in the unit that is written; at least 0.

    Returns:
        From 0, also for a width of 0, to 6.
    """
    return min(6, max(0, math.ceil(-math.log10(width / 5) - 1e-9))) if width > 0 else 0


def percent(share: float, num_items: int | None = None, *, interval: Sequence[float] | None = None) -> str:
    """Say a share in percent, never rounded up to all or down to none.

    Args:
        share: in [0, 1].
        num_items: what it is a share of; from 1,000 on, one decimal is shown.
        interval: of the share, [low, high] in [0, 1]; then its width says how many decimals are shown.

    Returns:
        Such as "93 %", with a no-break space.
    """
    digits = _percent_digits(interval) if interval else int((num_items or 0) >= 1000)
    return f"{_percent_number(share, digits)}{_SPACE}%"


def percent_range(interval: Sequence[float]) -> str:
    """Say an interval of shares.

    Args:
        interval: [low, high] in [0, 1].

    Returns:
        With the decimals that its width needs, such as "87–97 %" or "98.8–99.9 %".
    """
    low, high = (_percent_number(end, _percent_digits(interval)) for end in interval)
    return f"{low}{_DASH}{high}{_SPACE}%"


def number(value: float, interval: Sequence[float] | None = None) -> str:
    """Say a number to three significant digits, in full where it is large.

    Args:
        value: any finite number.
        interval: [low, high] of it; then there are as many decimals as its width needs, where these are more.

    Returns:
        Such as "0.312", "1.30" or "12,300".
    """
    size = abs(value)
    if value != 0 and not 0.001 <= size < 1e9:
        return f"{value:.3g}"
    digits = 3 - sum(size >= limit for limit in (1, 10, 100))
    return f"{value:,.{max(digits, decimals_of(interval[1] - interval[0]) if interval else 0)}f}"


def number_range(interval: Sequence[float]) -> str:
    """Say an interval of numbers, with the decimals that its width needs.

    Args:
        interval: [low, high], finite.

    Returns:
        Such as "0.81–0.93", and "−0.12 to 0.31" where a dash would not be read as one before a minus sign.
    """
    between = _DASH if interval[0] >= 0 else " to "
    return between.join(number(end, interval) for end in interval)


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
    interval = test.get("accuracy_ci95")
    told = f"{percent(test['accuracy'], count, interval=interval)} of {_describe_basis(report)} labelled right"
    told += _describe_interval(percent_range(interval)) if interval else ""
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
    interval = test.get(f"{name}_ci95")
    told = f"{words} {number(test[name], interval)} over all labels of {_describe_basis(report)}"
    told += _describe_interval(number_range(interval)) if interval else ""
    return f"{told}; 1 is perfect."


def _headline_value(report: dict[str, Any], test: dict[str, Any]) -> str:
    interval = test.get("mae_ci95")
    told = f"Off by {number(test['mae'], interval)} on average on {_describe_basis(report)}"
    told += _describe_interval(number_range(interval)) if interval else ""
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


def _percent_digits(interval: Sequence[float]) -> int:
    return decimals_of(100 * (interval[1] - interval[0]))


def _percent_number(share: float, digits: int) -> str:
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
