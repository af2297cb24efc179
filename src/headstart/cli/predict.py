"""Prediction from the command line, the one command that is started over and over.

Typer's parser loads pydantic: 0.2 of the 0.6 seconds that labelling one picture took. So the plain form of the command is read
here, without it; anything else goes to the parser, which knows all the rest.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.artifact.store import load
from headstart.cli.show import FAULTY, check_format, show_predictions
from headstart.data.modality import modality_of_name
from headstart.data.tables import TABLE_SUFFIXES
from headstart.errors import DataError, SettingError
from headstart.model.items import expand, unreadable_error
from headstart.records import Modality


@dataclass(frozen=True, kw_only=True)
class TableWords:
    """The options that say how tables of items are read."""

    item_column: str | None = None
    """None for the column with a usual name, or the only one."""
    item_root: str | None = None
    encoding: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Those that were given, by their names on the command line."""
        return {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items() if value is not None}


_NO_WORDS = TableWords()


def predict_items(artifact: Path, items: list[str], output_format: str, table: TableWords = _NO_WORDS) -> int:
    """Label items and print the predictions.

    Args:
        artifact: a saved model's folder.
        items: files, folders, texts, tables of any of these, or '-' for a path or text a line on stdin.
        output_format: table, csv or json.
        table: how tables are read.

    Returns:
        The exit status: 0, or 2 where JSON tells of items that cannot be read.

    Raises:
        HeadstartError: if the model or the format cannot be used, or, after the others were printed, some items cannot be read.
    """
    shown = check_format(output_format)
    model = load(artifact)
    answers = model.answers_to(_name_items(items, model.manifest.modality, table))
    show_predictions(model, model.interpret(answers), answers.unreadable, shown)
    if answers.unreadable and shown != "json":
        raise unreadable_error(answers.unreadable)
    return FAULTY if answers.unreadable else 0


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


def _name_items(words: list[str], modality: Modality, table: TableWords) -> list[tuple[str, Any]]:
    """Names and items; for texts a word is a file or folder if there is one of that name, else the text itself."""
    named: list[tuple[str, Any]] = []
    tables = {word for word in words if _is_table(word)}
    if table.given and not tables:
        option, value = next(iter(table.given.items()))
        raise SettingError(
            f"{option} is {value!r}, and no ITEM is a table.",
            expected=f"a file that ends in {', '.join(sorted(TABLE_SUFFIXES))}.",
            mend=f"leave {option} out.",
        )
    several = len(words) > 1
    for position, word in enumerate(words, 1):
        if word in tables:
            from headstart.data.item_tables import items_of_table

            root = None if table.item_root is None else Path(table.item_root)
            named += items_of_table(Path(word), modality, column=table.item_column, root=root, encoding=table.encoding)
        elif not word.strip():
            named.append((f"ITEM {position}: {word!r}", word))
        elif modality == "text":
            named += _lines_of_text() if word == "-" else expand([_file_or_text(word)], modality, among_others=several)
        else:
            given = [line for line in _lines() if line.strip()] if word == "-" else [word]
            named += expand(given, modality, among_others=several)
    return named


def _lines() -> list[str]:
    lines = [line.rstrip("\r\n") for line in sys.stdin]
    if any("\0" in line for line in lines):
        raise DataError(
            "stdin holds bytes 0, as files do that are no text.",
            expected="a line for each item: the path of a file, or a text.",
            mend="name the file itself in place of -.",
        )
    return lines


def _lines_of_text() -> list[tuple[str, str]]:
    """A text a line; an empty one among them is named by its line, so that none is missing without a word."""
    lines = _lines()
    while lines and not lines[-1].strip():
        lines.pop()
    return [(line if line.strip() else f"line {number} of stdin", line) for number, line in enumerate(lines, 1)]


def _is_table(word: str) -> bool:
    try:
        return Path(word).suffix.casefold() in TABLE_SUFFIXES and Path(word).is_file()
    except (OSError, ValueError):  # too long for a path, or holds what no path can
        return False


def _file_or_text(word: str) -> str | Path:
    try:
        found = bool(word.strip()) and Path(word).exists()
    except (OSError, ValueError):  # too long for a path, or holds what no path can
        found = False
    # What can be nothing but the name of a file is not taken for a text, so that a slip of the pen is told.
    named = modality_of_name(word) is not None and not any(character.isspace() for character in word)
    return Path(word) if found or named else word
