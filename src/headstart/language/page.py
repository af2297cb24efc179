"""The page and the card of a language model."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Any

from headstart.errors import MissingPackageError
from headstart.language.model import headline
from headstart.report import curves, page

_TEMPLATES = Path(__file__).parent / "templates"


def render_page(content: dict[str, Any]) -> str:
    """Make the page's markup.

    Args:
        content: of report.json.

    Returns:
        HTML; every text of the user's in it is escaped.

    Raises:
        MissingPackageError: if Jinja2 or matplotlib is not installed.
    """
    summary, test = content["summary"], content["summary"]["test"]
    shell, python = write_usage(summary)
    return _template().render(
        title=Path(summary["artifact"]).name or "language model",
        headline=headline(content),
        about=f"{summary['backbone']}, strategy {summary['strategy']}",
        created=content["created"],
        version=content["headstart_version"],
        tiles=[
            {"name": "Perplexity", "value": f"{test['perplexity']:.2f}", "note": _range(test["perplexity_ci95"])},
            {
                "name": "Unadapted",
                "value": f"{test['unadapted_perplexity']:.2f}",
                "note": _range(test["unadapted_perplexity_ci95"]),
            },
            {
                "name": "Bits a byte",
                "value": f"{test['bits_per_byte']:.3f}",
                "note": f"unadapted {test['unadapted_bits_per_byte']:.3f}",
            },
        ],
        warnings=summary["warnings"],
        gate=f"Kept: {summary['gate']['kept']}. {summary['gate']['reason']}",
        attempts=content["tuning"]["attempts"],
        charts=_charts(content),
        samples=content["samples"],
        shell=shell,
        python=python,
        facts=_facts(content),
    )


def write_card(content: dict[str, Any]) -> str:
    """The card: what the model is, its evidence, and how to use it.

    Args:
        content: of report.json.

    Returns:
        Markdown.
    """
    summary = content["summary"]
    shell, python = write_usage(summary)
    return "\n\n".join(
        [
            f"# {Path(summary['artifact']).name or 'A language model'}",
            headline(content),
            f"{summary['backbone']}, strategy {summary['strategy']}. {summary['gate']['reason']}",
            f"```sh\n{shell}\n```",
            f"```python\n{python}\n```",
            "It was adapted to a text of the user's, and can repeat parts of it. Nothing keeps it from writing what is false.",
            f"Licence of the backbone: {content['backbone']['licence']}.",
            "The evidence, with samples before and after, is in `report.html`.\n",
        ]
    )


def write_usage(summary: dict[str, Any]) -> tuple[str, str]:
    """Commands that use the model, for a shell and for Python."""
    where = summary["artifact"] or "MODEL"
    shell = f'headstart generate {shlex.quote(where)} "Once upon a time" --max-new-tokens 80 --seed 0'
    return shell, f'import headstart\n\nmodel = headstart.load({where!r})\nmodel.generate("Once upon a time", seed=0)'


def _facts(content: dict[str, Any]) -> list[tuple[str, str]]:
    counts = {name.replace("_", " "): f"{count:,}" for name, count in content["summary"]["counts"].items()}
    seconds = content["summary"]["seconds"]
    told = {"source": content["source"], "split": content["split"], **counts, "tokens of a block": str(content["context"])}
    return [*told.items(), ("intervals from", content["unit"]), ("seconds", f"{seconds['total']:.1f}")]


def _charts(content: dict[str, Any]) -> list[Any]:
    from markupsafe import Markup

    found = []
    for attempt in content["tuning"]["attempts"]:
        if attempt["kept"] and attempt["history"]:
            chart = curves.draw_losses(attempt["history"], kept=attempt["kept_epoch"])
            found += [] if chart is None else [Markup(chart.svg)]
    return found


def _range(interval: list[float]) -> str:
    return f"95 % interval {interval[0]:.2f}–{interval[1]:.2f}"


@cache
def _template() -> Any:  # noqa: ANN401 - jinja2 is loaded only where a page is drawn
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingPackageError("jinja2", purpose="writing the report's page") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([_TEMPLATES, Path(page.__file__).parent / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("language.html.j2")
