"""Items to embed, which may have labels or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.backbones.catalog import find_source
from headstart.data.columns import MIN_PATH_SHARE
from headstart.data.folders import files_below, visible_entries
from headstart.data.layout import class_folders_with_items
from headstart.data.modality import modality_of_name, modality_of_value
from headstart.data.rows import ReadOptions, row_id
from headstart.data.source import read_with_findings, refuse_options
from headstart.data.tables import TABLE_SUFFIXES
from headstart.model.items import expand
from headstart.records import Modality, Sample


def gather(
    data: Any,  # noqa: ANN401 - items of any kind
    backbone: str = "auto",
    options: ReadOptions | None = None,
) -> tuple[tuple[Sample, ...], Modality]:
    """Labelled data as `fit` reads it; or a folder, file, or list of items, that has no labels.

    Args:
        data: a path, labelled data in memory, or a list of items.
        backbone: by name; where it is named, a list of strings is of what it takes.
        options: what the user says about labelled data.

    Returns:
        The samples, and what they are.

    Raises:
        DataError: if there is nothing that can be read.
        BackboneError: if there is no such backbone.
    """
    match data:
        case str() | Path() if str(data).strip():
            named, modality = _below(Path(data).expanduser())
        case list() if data and not all(_is_labelled(pair) for pair in data):
            modality = _modality_of(data) if backbone == "auto" else find_source(backbone).modality
            named = _name(data, modality)
        case _:
            named, modality = [], "image"
    if not named:
        dataset = read_with_findings(data, options).dataset
        return dataset.samples, dataset.modality
    refuse_options(options or ReadOptions(), "items without labels")
    return tuple(Sample(id=name, item=item) for name, item in named), modality


def _is_labelled(pair: object) -> bool:
    """Whether something is an item and its label, and not the samples and the rate of a sound."""
    return isinstance(pair, tuple) and len(pair) == 2 and modality_of_value(pair) != "audio"


def _below(path: Path) -> tuple[list[tuple[str, Any]], Modality]:
    """Items of a folder without class folders, or the one item that a file is; none where labels are to be read."""
    if not path.is_dir():
        kind = modality_of_name(path.name) if path.is_file() else None
        return ([(str(path), path)], kind) if kind else ([], "image")
    if class_folders_with_items(path) or any(file.suffix.casefold() in TABLE_SUFFIXES for file in visible_entries(path)[1]):
        return [], "image"
    kinds = {modality_of_name(file.name) for file in files_below(path)}
    # A text beside pictures says something about them.
    modality = _main(kinds)
    return expand(path, modality), modality


def _modality_of(items: list[Any]) -> Modality:
    strings = [item for item in items if isinstance(item, str)]
    others = {modality_of_value(item) for item in items if not isinstance(item, str)}
    kinds = [modality_of_name(text) for text in strings if "\n" not in text]
    like_paths = sum(kind is not None for kind in kinds) >= MIN_PATH_SHARE * len(strings)
    if strings and not like_paths:
        return "text"
    return _main({*others, *kinds})


def _main(kinds: set[Modality | None]) -> Modality:
    """What items of several kinds are: a text beside pictures or sounds says something about them."""
    order: tuple[Modality, ...] = ("image", "audio", "text")
    return next((kind for kind in order if kind in kinds), "image")


def _name(items: list[Any], modality: Modality) -> list[tuple[str, Any]]:
    """Names and items; strings among texts are paths where nearly all look so."""
    if modality != "text":
        return expand(items, modality)
    strings = [item for item in items if isinstance(item, str)]
    like_paths = sum("\n" not in text and modality_of_name(text) == "text" for text in strings)
    are_paths = bool(strings) and like_paths >= MIN_PATH_SHARE * len(strings)
    as_meant = [Path(item) if are_paths and isinstance(item, str) else item for item in items]
    # A text is no name: it may come twice, and be long.
    return [
        (row_id(row) if isinstance(item, str) else name, item) for row, (name, item) in enumerate(expand(as_meant, modality))
    ]
