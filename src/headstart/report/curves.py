"""The charts of tuning: curves over the epochs, and what each strategy gained over the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.report.charts import Chart
from headstart.report.drawing import ACCENT, INK, LINE, MUTED, WARM, Texts, draw
from headstart.report.words import is_number, measure, number, percent, shorten, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (440.0, 270.0)
_MOST_DOTTED = 15
_NAME_WIDTH = 16
_ROW = 34.0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart of epochs."""

    column: str
    """Of the history."""
    name: str
    colour: str


def draw_losses(history: Sequence[dict[str, Any]], *, kept: int | None = None) -> Chart | None:
    """Draw the loss of the training and of the validation items by epoch.

    Args:
        history: a dict an epoch, with epoch counted from 0, train_loss and valid_loss.
        kept: the epoch whose weights were kept, counted from 0; None where that is not known.

    Returns:
        The chart; None where no epoch has a loss.
    """
    curves = _train_and_valid("loss")
    return _draw_curves("losses", history, curves, kept, title="loss", scale="plain")


def draw_scores(history: Sequence[dict[str, Any]], *, kept: int | None = None) -> Chart | None:
    """Draw the share of right answers by epoch, or the error where the answers are values.

    Args:
        history: a dict an epoch, with epoch and valid_accuracy or valid_rmse, and those of train where they were measured.
        kept: as in `draw_losses`.

    Returns:
        The chart; None where no epoch has a score.
    """
    if any(is_number(row.get("valid_rmse")) for row in history):
        return _draw_curves("scores", history, _train_and_valid("rmse"), kept, title="root mean squared error", scale="plain")
    return _draw_curves("scores", history, _train_and_valid("accuracy"), kept, title="share labelled right", scale="percent")


def draw_rates(history: Sequence[dict[str, Any]], *, kept: int | None = None) -> Chart | None:
    """Draw the head's learning rate at the end of each epoch.

    Args:
        history: a dict an epoch, with epoch and learning_rate.
        kept: as in `draw_losses`.

    Returns:
        The chart; None where no epoch has a rate.
    """
    curve = Curve(column="learning_rate", name="learning rate of the head", colour=ACCENT)
    return _draw_curves("rates", history, (curve,), kept, title="learning rate", scale="rate")


def draw_gains(rows: Sequence[dict[str, Any]], unit: str) -> Chart | None:
    """Draw what strategies gained over the floor, each with its interval; the floor is the line at 0.

    Args:
        rows: name, gain, low and high in `unit`, and whether the strategy was kept.
        unit: in words, such as "points".

    Returns:
        The chart; None without rows.
    """
    if not rows:
        return None
    margin = 16 + 7.4 * max(measure(shorten(row["name"], _NAME_WIDTH)) for row in rows)
    size = (440.0, _ROW * len(rows) + 46)
    told = "; ".join(f"{row['name']} {signed(row['gain'])}, from {signed(row['low'])} to {signed(row['high'])}" for row in rows)
    description = f"Gains over the floor in {unit}, with 95 % intervals: {told}."
    least, most = min(0.0, *(row["low"] for row in rows)), max(0.0, *(row["high"] for row in rows))
    room = (most - least) * 0.06 or 1.0

    def paint(figure: Figure, texts: Texts) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        axes = figure.add_axes((margin / size[0], 42 / size[1], 1 - (margin + 12) / size[0], 1 - 46 / size[1]))
        axes.axvline(0, color=INK, linewidth=1.2)
        for place, row in enumerate(rows):
            colour = ACCENT if row["kept"] else MUTED
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=7, alpha=0.3, solid_capstyle="butt")
            axes.plot([row["gain"]], [place], marker="o", markersize=9, color=colour, clip_on=False)
        axes.set_yticks(range(len(rows)), texts.keep_all([shorten(row["name"], _NAME_WIDTH) for row in rows]), color=INK)
        axes.set(xlim=(least - room, most + room), ylim=(len(rows) - 0.5, -0.5), xlabel=f"gain over the floor, {unit}")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(value, "g") if value else "0"))
        axes.tick_params(length=0, pad=6)
        axes.spines["left"].set_visible(False)

    return Chart(svg=draw("gains", size, paint, description=description), description=description)


def _train_and_valid(measured: str) -> tuple[Curve, Curve]:
    return (
        Curve(column=f"train_{measured}", name="training items", colour=WARM),
        Curve(column=f"valid_{measured}", name="validation items", colour=ACCENT),
    )


def _draw_curves(
    name: str, history: Sequence[dict[str, Any]], curves: Sequence[Curve], kept: int | None, *, title: str, scale: str
) -> Chart | None:
    points = {
        curve: [
            (int(row.get("epoch", place)) + 1, float(row[curve.column]))
            for place, row in enumerate(history)
            if is_number(row.get(curve.column))
        ]
        for curve in curves
    }
    points = {curve: found for curve, found in points.items() if found}
    if not points:
        return None
    write = percent if scale == "percent" else number
    told = ", ".join(f"{curve.name} {write(found[0][1])} to {write(found[-1][1])}" for curve, found in points.items())
    last = max(epoch for found in points.values() for epoch, _ in found)
    description = f"The {title} over {last} epoch{'s' if last != 1 else ''}: {told}."

    def paint(figure: Figure, texts: Texts) -> None:
        axes = figure.add_axes((0.125, 0.165, 0.855, 0.7 if len(curves) > 1 else 0.8))
        _mark_kept(axes, kept, last)
        for curve, found in points.items():
            epochs, values = zip(*found, strict=True)
            dot = "o" if len(found) <= _MOST_DOTTED else None
            axes.plot(epochs, values, color=curve.colour, linewidth=2, marker=dot, markersize=5, clip_on=False, zorder=3)
        _set_scales(axes, points, scale, last)
        if len(curves) > 1:
            _write_legend(figure, list(points))

    return Chart(svg=draw(name, _SIZE, paint, description=description), description=description)


def _mark_kept(axes: Axes, kept: int | None, last: int) -> None:
    if kept is None or not 0 <= kept < last:
        return
    axes.axvline(kept + 1, color=MUTED, linewidth=1, dashes=(4, 4))
    right = kept + 1 <= (last + 1) / 2
    axes.annotate(
        "kept",
        (kept + 1, 1),
        xycoords=("data", "axes fraction"),
        xytext=(5 if right else -5, -3),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        color=MUTED,
        size=11,
    )


def _set_scales(axes: Axes, points: dict[Curve, list[tuple[int, float]]], scale: str, last: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    values = [value for found in points.values() for _, value in found]
    low, high = min(values), max(values)
    # A flat line, and a single epoch, stand in the middle of some room.
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    limits = (low - room, high + room)
    if scale == "percent":
        limits = (max(limits[0], -0.01), min(limits[1], 1.01))
    else:
        limits = (0.0 if low >= 0 else limits[0], limits[1])
    axes.set(ylim=limits, xlim=(0.5, 1.5) if last == 1 else (1 - 0.02 * last, last + 0.02 * last), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    written = (lambda value, _: f"{value:.3g}".rstrip()) if scale != "percent" else (lambda value, _: f"{100 * value:g} %")
    axes.yaxis.set_major_formatter(FuncFormatter(written))
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    axes.spines["left"].set_visible(False)


def _write_legend(figure: Figure, curves: Sequence[Curve]) -> None:
    left = 0.125
    for curve in curves:
        figure.text(left, 0.945, "●", color=curve.colour, va="center", size=13)
        figure.text(left + 0.034, 0.945, curve.name, color=INK, va="center", size=12)
        left += 0.034 + 0.0175 * len(curve.name) + 0.04
