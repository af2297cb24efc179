"""Matplotlib figures as inline SVG that takes its colours and its font from the page around it.

Two tricks make charts that are safe with any label and read well in light and dark. Texts of the user's never reach
matplotlib: a token stands for each, and the escaped text takes the token's place in the finished SVG, so that neither
mathematics (`$x$`), nor markup, nor a glyph missing from matplotlib's own font can do harm. And colours are drawn as stand-in
values that become the page's CSS variables.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headstart.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT, WARM, ON_ACCENT = "#010101", "#010102", "#010103", "#010104", "#010105", "#010106"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", WARM: "warm", ON_ACCENT: "on-accent"}

_DRAWN = (
    "axes.",
    "xtick.",
    "ytick.",
    "text.u",
    "text.p",
    "font.",
    "lines.",
    "patch.",
    "path.",
    "scatter.",
    "savefig.",
    "figure.",
)
_STYLE: dict[str, object] = {
    "svg.fonttype": "none",  # texts stay texts: smaller, sharper, searchable
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so no search through the machine's fonts
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "figure.facecolor": "none",
    "figure.dpi": 72,
    "savefig.facecolor": "none",
}


class Texts:
    """The user's texts of one chart, each kept under the token that is drawn in its place."""

    def __init__(self) -> None:
        """Start without any text."""
        self._kept: list[str] = []

    def keep(self, text: str) -> str:
        """Take a text and give the token to draw instead.

        Args:
            text: anything; it will be shown literally.

        Returns:
            A short ASCII word.
        """
        self._kept.append(text)
        return f"zq{len(self._kept) - 1}qz"

    def keep_all(self, texts: Sequence[str]) -> list[str]:
        """Take several texts.

        Args:
            texts: any number.

        Returns:
            A token for each, in order.
        """
        return [self.keep(text) for text in texts]

    def restore(self, svg: str) -> str:
        """Put the texts, escaped, where their tokens are.

        Args:
            svg: markup with tokens.

        Returns:
            The markup with the texts.
        """
        return re.sub(r"zq(\d+)qz", lambda found: html.escape(self._kept[int(found.group(1))]), svg)


Paint = Callable[["Figure", Texts], None]


def draw(name: str, size: tuple[float, float], paint: Paint, *, description: str) -> str:
    """Draw one chart.

    Args:
        name: unique on the page, letters and hyphens; every id inside starts with it.
        size: (width, height) in CSS pixels at natural size.
        paint: called with a matplotlib `Figure` (its axes are one pixel per point) and the chart's `Texts`.
        description: what the chart shows, for those who cannot see it.

    Returns:
        An `<svg>` element without any reference outside itself.

    Raises:
        MissingPackageError: if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingPackageError("matplotlib", purpose="drawing the report's charts") from error
    texts, buffer = Texts(), io.StringIO()
    style: Any = {key: value for key, value in mpl.rcParamsDefault.items() if key.startswith(_DRAWN)}
    # A machine's own matplotlibrc may ask for LaTeX, grids or other sizes; the page must not depend on it.
    with mpl.rc_context(style | _STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        paint(figure, texts)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return texts.restore(_clean(buffer.getvalue(), name, size, description))


def _clean(svg: str, name: str, size: tuple[float, float], description: str) -> str:
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<defs>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    body = re.sub(r"(font-family: )[^;\"]*", r"\1inherit", body)
    body = re.sub(r"font: ((?:\w+ )*)([\d.]+px)[^;\"]*", r"font-size: \2", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r"\n\s*", "\n", body).strip()
    label = html.escape(description)
    view = f'viewBox="0 0 {size[0]:g} {size[1]:g}"'
    return f'<svg class="chart" role="img" aria-label="{label}" {view} style="max-width:{size[0] * 1.25:g}px">{body}</svg>'
