"""The report's charts. Each takes plain lists out of report.json and gives a `Chart`, or None when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.report.drawing import ACCENT, INK, LINE, MUTED, ON_ACCENT, WARM, Texts, draw
from headstart.report.words import duration, measure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERED = 25
"""Classes up to which the confusion matrix names its rows and shows its counts."""
MOST_BARS = 40
"""Classes up to which each has its bar; with more, only the weakest have."""
_LABEL_WIDTH = 20
_CHARACTER = 7.2
_MOST_POINTS = 2000


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One drawn chart."""

    svg: str
    """Markup, safe as it is."""
    description: str
    """What it shows, in words."""
    wide: bool = False
    """Whether it needs the page's whole width."""


def draw_confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Chart | None:
    """Draw which class was taken for which: right answers in the accent colour, mistakes in the warm one.

    Args:
        labels: K names.
        counts: (K, K); rows are the truth.

    Returns:
        A matrix with names and counts up to 25 classes, beyond that a heat map without; None for no items.
    """
    matrix = np.asarray(counts, dtype=np.float64)
    if not matrix.size or not matrix.sum():
        return None
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    right = int(np.trace(matrix))
    description = (
        f"Confusion matrix of {len(labels)} classes: {right} of {int(matrix.sum())} items on the diagonal, where they belong."
    )
    if len(labels) > MOST_NUMBERED:
        return Chart(svg=_draw_heat_map(shares, description), description=description)
    wide = len(labels) > 12
    margin = 14 + _CHARACTER * max(measure(shorten(label, _LABEL_WIDTH)) for label in labels)
    side = min((760.0 if wide else 440.0) - margin - 8, 72.0 * len(labels))
    size = (margin + side + 8, margin * 0.82 + side + 14)

    def paint(figure: Figure, texts: Texts) -> None:
        axes = figure.add_axes((margin / size[0], 1 - (side + 8) / size[1], side / size[0], side / size[1]))
        _paint_cells(axes, matrix, shares)
        names = [shorten(label, _LABEL_WIDTH) for label in labels]
        axes.set_yticks(range(len(labels)), texts.keep_all(names), color=INK)
        axes.set_xticks(range(len(labels)), texts.keep_all(names), rotation=55, ha="right", rotation_mode="anchor", color=INK)
        axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5))
        axes.tick_params(length=0, pad=5)
        axes.spines[:].set_visible(False)

    return Chart(svg=draw("confusion", size, paint, description=description), description=description, wide=wide)


def draw_class_bars(rows: Sequence[dict[str, Any]], score: str) -> Chart | None:
    """Draw a bar for every class, weakest first.

    Args:
        rows: label, support, and the score of each class.
        score: which of the row's scores, "recall" or "f1".

    Returns:
        Up to 40 bars, the weakest where there are more; None without classes that have items.
    """
    known = sorted((row for row in rows if row.get("support")), key=lambda row: (row[score], -row["support"]))
    if not known:
        return None
    shown = known[:MOST_BARS]
    margin = 12 + _CHARACTER * max(measure(shorten(row["label"], _LABEL_WIDTH)) for row in shown)
    size = (440.0, 26.0 * len(shown) + 14)
    weakest = ", ".join(f"{shorten(row['label'], 40)} {row[score]:.2f}" for row in shown[:3])
    description = f"Bars of the {score} of {len(shown)} of {len(known)} classes, weakest first: {weakest}."

    def paint(figure: Figure, texts: Texts) -> None:
        width = size[0] - margin - 104
        axes = figure.add_axes((margin / size[0], 0, width / size[0], 1))
        places = range(len(shown))
        axes.barh(places, [1.0] * len(shown), height=0.56, color=LINE, alpha=0.55)
        axes.barh(places, [row[score] for row in shown], height=0.56, color=ACCENT)
        for place, row in enumerate(shown):
            noun = "item" if row["support"] == 1 else "items"
            axes.text(1 + 8 / width, place, f"{row[score]:.2f}", va="center_baseline", color=INK)
            axes.text(1 + 44 / width, place, f"{row['support']:,} {noun}", va="center_baseline", color=MUTED, size=11)
        axes.set_yticks(places, texts.keep_all([shorten(row["label"], _LABEL_WIDTH) for row in shown]), color=INK)
        axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -0.6), xticks=[])
        axes.tick_params(length=0, pad=6)
        axes.spines[:].set_visible(False)

    return Chart(svg=draw("classes", size, paint, description=description), description=description)


def draw_reliability(bins: Sequence[dict[str, float]]) -> Chart | None:
    """Draw how often the model was right against how sure it was.

    Args:
        bins: confidence, accuracy and count of each.

    Returns:
        The diagram; None without bins.
    """
    if not bins:
        return None
    most = max(row["count"] for row in bins)
    widest = max(bins, key=lambda row: abs(row["confidence"] - row["accuracy"]))
    description = (
        f"Reliability diagram with {len(bins)} groups of answers; the widest gap is where it was "
        f"{widest['confidence']:.0%} sure and right {widest['accuracy']:.0%} of the time."
    )
    size = (440.0, 330.0)

    def paint(figure: Figure, texts: Texts) -> None:
        axes = figure.add_axes((0.13, 0.15, 0.84, 0.82))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, dashes=(4, 4))
        for row in bins:
            axes.plot([row["confidence"]] * 2, [row["confidence"], row["accuracy"]], color=WARM, linewidth=1.5, alpha=0.7)
        confidences = [row["confidence"] for row in bins]
        axes.plot(confidences, [row["accuracy"] for row in bins], color=ACCENT, linewidth=1, alpha=0.5)
        areas = [18 + 40 * row["count"] / most for row in bins]
        axes.scatter(confidences, [row["accuracy"] for row in bins], s=areas, color=ACCENT, zorder=3, clip_on=False)
        low = max(0.0, min(*confidences, 0.9) - 0.05)
        axes.set(xlim=(low, 1.005), ylim=(-0.02, 1.02), xlabel="how sure the model was", ylabel="how often it was right")
        axes.text(0.97, 0.03, "below the line: too sure", transform=axes.transAxes, ha="right", color=MUTED, size=11)
        axes.text(0.03, 0.95, "above: not sure enough", transform=axes.transAxes, color=MUTED, size=11)
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
        inside = [tick / 10 for tick in range(11) if low <= tick / 10]
        axes.set_xticks(inside, [f"{tick:.0%}" for tick in inside])
        axes.tick_params(length=0)

    return Chart(svg=draw("reliability", size, paint, description=description), description=description)


def draw_values(pairs: Sequence[Sequence[float]]) -> Chart | None:
    """Draw what a value model said against the truth.

    Args:
        pairs: (target, predicted) of each item.

    Returns:
        A scatter of up to 2,000 items evenly taken; None without items.
    """
    if not pairs:
        return None
    points = pairs[:: -(-len(pairs) // _MOST_POINTS)]
    low, high = min(map(min, points)), max(map(max, points))
    room = (high - low) * 0.04 or 1.0
    description = f"Scatter of {len(points)} items, the predicted value against the true one; on the line they agree."
    size = (440.0, 400.0)

    def paint(figure: Figure, texts: Texts) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        axes = figure.add_axes((0.16, 0.13, 0.81, 0.85))
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, dashes=(4, 4))
        faint = 0.65 if len(points) <= 300 else 0.3
        axes.scatter(
            [point[0] for point in points], [point[1] for point in points], s=16, color=ACCENT, alpha=faint, linewidths=0
        )
        limits = (low - room, high + room)
        axes.set(xlim=limits, ylim=limits, xlabel="true value", ylabel="predicted value")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.tick_params(length=0)

    return Chart(svg=draw("values", size, paint, description=description), description=description)


def draw_times(stages: Sequence[tuple[str, float, str]]) -> Chart | None:
    """Draw where the time went as one stacked bar.

    Args:
        stages: (name, seconds, colour) of each, in order.

    Returns:
        The bar, its legend being the page's; None when no time was taken.
    """
    total = sum(seconds for _, seconds, _ in stages)
    if total <= 0:
        return None
    description = "Times: " + ", ".join(f"{name} {duration(seconds)}" for name, seconds, _ in stages) + "."
    size = (960.0, 26.0)

    def paint(figure: Figure, texts: Texts) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, total), ylim=(0, 1))
        axes.set_axis_off()
        start = 0.0
        for _, seconds, colour in stages:
            axes.barh(0.5, max(seconds - total * 0.002, seconds / 2), left=start, height=1.0, color=colour)
            start += seconds

    return Chart(svg=draw("times", size, paint, description=description), description=description, wide=True)


def _paint_cells(axes: Axes, matrix: np.ndarray, shares: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    num_classes = len(matrix)
    corners, colours = [], []
    small = 0.46
    for row in range(num_classes):
        for column in range(num_classes):
            corners.append([(column + x * small, row + y * small) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
            colour = ACCENT if row == column else WARM
            filled = matrix[row, column] > 0
            colours.append(to_rgba(colour, 0.12 + 0.88 * shares[row, column]) if filled else to_rgba(LINE, 0.3))
    axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))
    size = 12 if num_classes <= 14 else 10
    for row, column in zip(*matrix.nonzero(), strict=True):
        ink = ON_ACCENT if shares[row, column] > 0.5 else INK
        axes.text(column, row, f"{int(matrix[row, column]):,}", ha="center", va="center_baseline", color=ink, size=size)


def _draw_heat_map(shares: np.ndarray, description: str) -> str:
    # Middle tones of the page's two colours, which read on a light and on a dark ground alike.
    pixels = np.empty((*shares.shape, 4))
    pixels[..., :3] = np.array([0.85, 0.42, 0.11])
    pixels[np.arange(len(shares)), np.arange(len(shares)), :3] = np.array([0.23, 0.48, 0.85])
    pixels[..., 3] = shares**0.35
    size = (440.0, 440.0)

    def paint(figure: Figure, texts: Texts) -> None:
        axes = figure.add_axes((0.06, 0.06, 0.93, 0.93))
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.set(xticks=[], yticks=[], xlabel="what the model said", ylabel="what it is")
        axes.spines[:].set_visible(True)

    return draw("confusion", size, paint, description=description)
