"""Prediction from the command line, the one command that is started over and over.

Typer's parser loads pydantic: 0.2 of the 0.6 seconds that labelling one picture took. So the plain form of the command is read
here, without it; anything else goes to the parser, which knows all the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headstart.artifact.store import load
from headstart.cli.show import check_format, show_predictions
from headstart.model.model import unreadable_error


def predict_items(artifact: Path, items: list[str], output_format: str) -> int:
    """Label items and print the predictions.

    Args:
        artifact: a saved model's folder.
        items: files, folders, or '-' for a path a line on stdin.
        output_format: table, csv or json.

    Returns:
        The exit status: 0, or 2 where JSON tells of items that cannot be read.

    Raises:
        HeadstartError: if the model or the format cannot be used, or, after the others were printed, some items cannot be read.
    """
    shown = check_format(output_format)
    model = load(artifact)
    answers = model.answers([line for item in items for line in (_lines() if item == "-" else [item])])
    show_predictions(model, model.interpret(answers), answers.unreadable, shown)
    if answers.unreadable and shown != "json":
        raise unreadable_error(answers.unreadable)
    return 2 if answers.unreadable else 0


def read_plainly(arguments: list[str]) -> tuple[Path, list[str], str] | None:
    """Read `predict ARTIFACT ITEM...` with at most --json or --format.

    Args:
        arguments: of the program.

    Returns:
        Artifact, items and format; None for any other words, which the parser shall judge.
    """
    if arguments[:1] != ["predict"]:
        return None
    words, output_format = arguments[1:], "table"
    if "--format" in words[:-1]:
        place = words.index("--format")
        output_format = words[place + 1]
        words = words[:place] + words[place + 2 :]
    if "--json" in words:
        words.remove("--json")
        output_format = "json"
    if len(words) < 2 or any(word.startswith("-") and word != "-" for word in words):
        return None
    return Path(words[0]), words[1:], output_format


def _lines() -> list[str]:
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
