"""What a model is, in a line, in rows and in use: for the page and the card alike."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from headstart.report.words import name_items, show

_NOT_OF_PARTS = {"architecture", "base_sha256", "blocks", "kind", "licence", "modality", "rules", "source"}


def describe_model(report: dict[str, Any]) -> str:
    """Say in one line what the model is.

    Args:
        report: what report.json holds.

    Returns:
        Such as "10 labels, learned from 514 images, backbone efficientnet-lite0, head logistic, strategy extract".
    """
    summary = report["summary"]
    parts = []
    if summary.get("labels"):
        parts.append(f"{len(summary['labels']):,} labels")
    train = (summary.get("counts") or {}).get("train")
    if train:
        parts.append(f"learned from {train:,} {name_items(summary, train)}")
    if summary.get("backbone"):
        parts.append(f"backbone {show(summary['backbone'])}")
    head = next((asked["kept"] for asked in report.get("choices") or () if asked.get("question") == "head"), None)
    if head and summary.get("strategy") == "extract":
        parts.append(f"head {show(head)}")
    if summary.get("strategy"):
        parts.append(f"strategy {show(summary['strategy'])}")
    told = ", ".join(parts)
    return told[:1].upper() + told[1:]


def list_facts(entries: dict[str, Any]) -> list[tuple[str, str]]:
    """Turn a flat record into rows to read.

    Args:
        entries: names and plain values; empty ones are left out. Those of `parts`, a list of records, are numbered.

    Returns:
        (name, value) in order, underscores as spaces.
    """
    return [
        (show(name).replace("_", " "), _write_value(value)) for name, value in _flat(entries) if value not in (None, "", [])
    ]


def _flat(entries: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries; a record among them opened up, and what there are several of (`parts`) one after the other, numbered."""
    for name, value in entries.items():
        if name == "parts" and isinstance(value, list):
            for number, part in enumerate(value, 1):
                yield from ((f"{number}. {inner}", each) for inner, each in _flat(part) if inner not in _NOT_OF_PARTS)
        elif isinstance(value, dict):
            yield from ((inner, each) for inner, each in value.items() if inner not in _NOT_OF_PARTS)
        else:
            yield name, value


def write_usage(summary: dict[str, Any]) -> tuple[str, str]:
    """Write how to use the model: the command, and the same in Python.

    Args:
        summary: the `fit --json` object.

    Returns:
        (shell, python), with the artifact's path quoted as each needs.
    """
    artifact = str(summary.get("artifact") or "model.hs")
    picture = "new.mp4" if (summary.get("counts") or {}).get("clips") else "new.jpg"
    item = {"text": '"a new text"', "audio": "new.wav"}.get(summary.get("modality", ""), picture)
    quoted = item if item.startswith('"') else f'"{item}"'
    python = f"import headstart\n\nmodel = headstart.load({artifact!r})\nprint(model.predict([{quoted}]))"
    return f"headstart predict {shlex.quote(artifact)} {item}", python


def _write_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(_write_value(entry) for entry in value)
    if isinstance(value, dict):
        return ", ".join(f"{show(name)} {_write_value(entry)}" for name, entry in value.items())
    return show(value)
