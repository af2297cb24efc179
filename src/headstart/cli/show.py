"""What the commands print: people get tables and a sentence, programs get one JSON object."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headstart.cli.output import printable, write_utf8
from headstart.data.targets import format_value
from headstart.errors import SettingError
from headstart.preprocess.text_items import excerpt
from headstart.records import Finding, Prediction

if TYPE_CHECKING:
    from headstart.artifact.portable import Portable
    from headstart.evidence.evaluation import Evaluation
    from headstart.model.model import Model

FAULTY = 2
"""The exit status where the input is at fault, or some of the items could not be used."""
FORMATS = ("table", "csv", "json")
MOST_WARNINGS = 8
MOST_ITEMS = 3
MOST_CHARACTERS = 220
MOST_OF_TEXT = 72


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How much to show, and as what."""

    as_json: bool
    quiet: bool


class Narrator:
    """A progress bar on stderr with rate and time left, where a person is watching."""

    def __init__(self, *, quiet: bool) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._quiet = quiet or not sys.stderr.isatty()

    def __enter__(self) -> Narrator:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def step(self, name: str, done: int, total: int) -> None:
        """Show how far a step is."""
        if self._quiet:
            return
        if self._bar is None:
            self._bar = _progress_bar()
            self._bar.start()
        if name not in self._tasks:
            # One step follows the other, so those before are over, whether or not they said so.
            for earlier in self._tasks.values():
                self._bar.stop_task(earlier)
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)

    def named(self, name: str) -> Callable[[int, int], None]:
        """A progress function for one step."""
        return lambda done, total: self.step(name, done, total)


def _progress_bar() -> Any:  # noqa: ANN401 - rich is loaded only where it is shown
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as BarTask
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: BarTask) -> Text:
            return Text(_rate(task.speed) if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _rate(speed: float) -> str:
    """Items a second; where one takes longer than that, the seconds of each."""
    return f"{speed:.0f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


def show_fit(model: Model, out: Path, shown: Shown) -> None:
    """Say how a fit ended."""
    content = model.report.content
    summary = content["summary"] | {"artifact": str(out)}
    if shown.as_json:
        print_json(summary)
        return
    if shown.quiet:
        return
    from headstart.cli.tuning import tell_tuning
    from headstart.report.attempted import describe_on_test, list_attempts
    from headstart.report.words import headline

    seconds = summary["seconds"]
    print_line(headline(content))
    if against := describe_on_test(content):
        print_line(f"  {against}".replace("\N{NO-BREAK SPACE}", " "))
    told = summary["warnings"]
    for warning in told[:MOST_WARNINGS]:
        print_line(f"  ! {_shortened(warning)}")
    if len(told) > MOST_WARNINGS:
        print_line(f"  ! {len(told) - MOST_WARNINGS} more in the report")
    steps = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name != "total" and value >= 0.05)
    hits, misses = summary["cache"]["hits"], summary["cache"]["misses"]
    print_line(f"  {seconds['total']:.1f} s ({steps}); {misses} items computed, {hits} from the cache")
    hidden = any(attempt["kept"] and attempt["plan"].get("hidden") for attempt in list_attempts(content))
    head = "mlp" if hidden else summary["floor"]["head"]
    print_line(f"  backbone {summary['backbone']}, head {head}, strategy {summary['strategy']}")
    for line in tell_tuning(content):
        print_line(f"  {_shortened(line)}")
    print_line(f"  report  {out / 'report.html'}")
    item = "TEXT..." if summary["modality"] == "text" else "ITEM..."
    print_line(f"  predict headstart predict {shlex.quote(str(out))} {item}")


def _shortened(text: str) -> str:
    """One line of a terminal or two; the report has the whole."""
    line = _printable([text])[0]
    return line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS].rsplit(" ", 1)[0] + " … (see the report)"


def check_format(name: str) -> str:
    """Refuse an unknown output format.

    Raises:
        SettingError: if it is none of table, csv, json.
    """
    if name not in FORMATS:
        raise SettingError(f"format is {name!r}.", expected=f"one of {', '.join(FORMATS)}.", mend="--format table")
    return name


def show_predictions(model: Model, predictions: list[Prediction], unreadable: dict[str, str], shown: str) -> None:
    """Print predictions as a table, CSV or JSON; of none there is no table."""
    task = model.manifest.task
    match shown:
        case "json":
            told: dict[str, Any] = {"predictions": [_as_json(prediction, task) for prediction in predictions]}
            print_json(told | ({"unreadable": unreadable} if unreadable else {}))
        case "csv":
            write_utf8()
            rows = csv.writer(sys.stdout, lineterminator="\n")
            rows.writerow(["item", "value"] if task == "value" else ["item", "label", "probability"])
            rows.writerows(list(map(_no_formula, _cells(prediction, task))) for prediction in predictions)
        case _ if predictions:
            if model.manifest.modality == "text":
                predictions = [replace(prediction, item=excerpt(prediction.item, MOST_OF_TEXT)) for prediction in predictions]
            _print_table(["item", "value"] if task == "value" else ["item", "label", "probability"], predictions, task)


def _as_json(prediction: Prediction, task: str) -> dict[str, Any]:
    if task == "value":
        return {"item": prediction.item, "value": prediction.value, "outlier": prediction.outlier}
    told: dict[str, Any] = {
        "item": prediction.item,
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "set": list(prediction.set),
        "outlier": prediction.outlier,
    }
    return told | ({"labels": list(prediction.labels)} if task == "multi" else {})


def _cells(prediction: Prediction, task: str) -> list[str]:
    match task:
        case "value":
            return [prediction.item, format_value(prediction.value or 0.0)]
        case "multi":
            chosen = [f"{prediction.probabilities[label]:.4f}" for label in prediction.labels]
            return [prediction.item, "|".join(prediction.labels), "|".join(chosen)]
        case _:
            return [prediction.item, str(prediction.label), f"{prediction.probability:.4f}"]


def _no_formula(cell: str) -> str:
    """A cell that a spreadsheet would run as a formula, behind an apostrophe; numbers stay as they are."""
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _print_table(columns: list[str], predictions: list[Prediction], task: str) -> None:
    rows = [_printable(_cells(prediction, task)) for prediction in predictions]
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _printable(cells: list[str]) -> list[str]:
    """One line a row, whatever a label holds."""
    return ["".join(each if each.isprintable() else repr(each)[1:-1] for each in cell) for cell in cells]


def show_evaluation(evaluation: Evaluation, *, as_json: bool) -> int:
    """Print a saved model's score on new data.

    Args:
        evaluation: of the items that could be read.
        as_json: as one object.

    Returns:
        The exit status: 2 where some items could not be used.
    """
    status = FAULTY if evaluation.left_out else 0
    if as_json:
        print_json({"test": evaluation.as_json(), "basis": evaluation.basis, "warnings": list(evaluation.warnings)})
        return status
    from headstart.report.words import number

    print_line(evaluation.basis)
    for name, value in evaluation.metrics.items():
        interval = evaluation.intervals[name]
        low, high = (number(end, interval) for end in interval)
        print_line(f"  {name:<24} {number(value, interval)}  [{low}, {high}]")
    for warning in evaluation.warnings:
        print_line(f"  ! {warning}")
    return status


def show_findings(findings: list[Finding], *, as_json: bool) -> int:
    """Print what is wrong with the data.

    Args:
        findings: of the check.
        as_json: as one object.

    Returns:
        The exit status: 2 where a finding is an error, or some items could not be used.
    """
    from headstart.data.checks import UNREADABLE_KINDS

    unusable = {*UNREADABLE_KINDS, "missing"}
    faulty = any(finding.severity == "error" or (finding.kind in unusable and finding.items) for finding in findings)
    status = FAULTY if faulty else 0
    if as_json:
        keys = ("kind", "severity", "items", "message", "mend")
        print_json({"findings": [{key: getattr(finding, key) for key in keys} for finding in findings]})
        return status
    if not findings:
        print_line("nothing found: every item can be read, no copies, every class has enough items.")
    for finding in findings:
        print_line(f"{finding.severity} ({finding.kind}): {finding.message}")
        for item in finding.items[:MOST_ITEMS]:
            print_line(f"    {item}")
        if len(finding.items) > MOST_ITEMS:
            print_line(f"    … {len(finding.items)} in all")
        print_line(f"  mend: {finding.mend}")
    return status


def show_embedding(told: dict[str, Any], out: Path, shown: Shown) -> int:
    """Say what was embedded.

    Args:
        told: by the function that did it.
        out: the file.
        shown: how much, and as what.

    Returns:
        The exit status: 2 where some items could not be used.
    """
    status = FAULTY if told["unreadable"] else 0
    if shown.as_json:
        print_json(told | {"out": str(out)})
        return status
    for item, reason in told["unreadable"].items():
        sys.stderr.write(printable(f"left out: {item}: {reason}") + "\n")
    if not shown.quiet:
        print_line(f"{told['items']} vectors of {told['width']} numbers in {out} ({told['hits']} from the cache)")
    return status


def show_export(made: Portable, out: Path, *, as_json: bool) -> None:
    """Say what the file takes and gives, and how it was compared."""
    if as_json:
        print_json({"out": str(out)} | made.as_json())
        return
    print_line(
        f"{out}, {megabytes(len(made.content))}; answers {made.num_compared} items as the model does, up to {made.apart:.0e}"
    )
    for word, ports in (("takes", made.inputs), ("gives", made.outputs)):
        for port in ports:
            print_line(f"  {word} {port.name} {port.type} ({', '.join(map(str, port.shape))}): {port.meaning}")


def show_cache(*, as_json: bool) -> None:
    """Say what the cache holds."""
    from headstart.features.store import cache_limit, info
    from headstart.runtime import cache_root

    kept = info(cache_root())
    if as_json:
        rows = [{"fingerprint": e.fingerprint, "describe": e.describe, "items": e.items, "bytes": e.bytes} for e in kept]
        print_json({"root": str(cache_root()), "limit_bytes": cache_limit(), "features": rows})
        return
    print_line(f"{cache_root()}, limit {megabytes(cache_limit())}")
    for entry in kept:
        words = " ".join(str(value) for value in entry.describe.values())
        print_line(f"  {entry.fingerprint[:12]}  {entry.items:>8} items  {megabytes(entry.bytes):>10}  {words}")


def megabytes(size: int) -> str:
    """A size in words."""
    return f"{size / 1e6:,.1f} MB"


def print_line(text: str) -> None:
    """A line on stdout, or several; control characters are shown, and do nothing."""
    sys.stdout.write(printable(text) + "\n")


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout, whatever characters stdout can take."""
    plain = (sys.stdout.encoding or "").casefold().replace("-", "") != "utf8"
    sys.stdout.write(json.dumps(value, ensure_ascii=plain) + "\n")
