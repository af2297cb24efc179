"""Items in frames and series of pandas or polars, and predictions as a frame; neither package is imported unless asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.columns import choose_item_column, find_items
from headstart.errors import DataError, MissingPackageError
from headstart.preprocess.items import item_name
from headstart.records import Modality, Prediction


def is_frame(items: Any) -> bool:  # noqa: ANN401 - any kind of item
    """Whether items are a frame of pandas or polars."""
    return _package(items) in ("pandas", "polars") and type(items).__name__ in ("DataFrame", "LazyFrame")


def is_series(items: Any) -> bool:  # noqa: ANN401 - any kind of item
    """Whether items are a series (or index) of pandas or polars, or a numpy array of texts or objects, one an item."""
    if isinstance(items, np.ndarray):
        return items.ndim == 1 and items.dtype.kind in "OUT"
    return _package(items) in ("pandas", "polars") and type(items).__name__ in ("Series", "Index")


def cells_of(items: Any, column: str | None = None) -> list[Any]:  # noqa: ANN401 - any kind of item
    """The cells of a series, or of the column of items of a frame.

    Args:
        items: a frame or series.
        column: of a frame; None for the one with a usual name, or the only one.

    Raises:
        DataError: if a frame has no such column, or has it twice.
    """
    if is_series(items):
        return list(items.to_list() if _package(items) == "polars" else items.tolist())
    frame = items.collect() if type(items).__name__ == "LazyFrame" else items
    names = [str(name) for name in frame.columns]
    chosen = choose_item_column(names, column, where="the frame")
    if names.count(chosen) > 1:
        raise DataError(
            f"the frame has the column {chosen!r} more than once.",
            expected="a name of its own for every column.",
            mend="rename or drop the others.",
        )
    place = names.index(chosen)
    return list(frame.iloc[:, place].tolist() if _package(frame) == "pandas" else frame.to_series(place).to_list())


def named_cells(items: Any, modality: Modality, column: str | None = None) -> list[tuple[str, Any]]:  # noqa: ANN401
    """Name the items of a frame or series, one for each row.

    Args:
        items: a frame or series.
        modality: what the model takes.
        column: of a frame.

    Returns:
        (name, item) pairs: a path or text by itself, a blank cell by its row.

    Raises:
        DataError: if the column is not there, or holds nothing of this modality.
    """
    cells = cells_of(items, column)
    found = find_items(cells, column or "item", modality, folder=Path(), where="the frame") if cells else []
    named = []
    for row, item in enumerate(found):
        if item is None:
            named.append((f"row {row}", ""))
        else:
            named.append((str(item) if isinstance(item, str | Path) else f"{row}: {item_name(item)}", item))
    return named


def predictions_frame(predictions: Sequence[Prediction], items: Any, rows: Sequence[int], task: str) -> Any:  # noqa: ANN401
    """Predictions as a frame, a row each: of polars where the items are in one of its frames, else of pandas.

    Args:
        predictions: in the order of the items.
        items: as they were given; the index of a pandas frame or series is kept.
        rows: which of the items each prediction is of.
        task: of the model.

    Returns:
        A frame with the columns item and value (regression), item and labels (several labels an item), or item, label and
        probability; for labels also a column `probability_LABEL` for each.

    Raises:
        MissingPackageError: if pandas is not installed.
    """
    columns: dict[str, list[Any]] = {"item": [each.item for each in predictions]}
    if task == "value":
        columns["value"] = [each.value for each in predictions]
    elif task == "multi":
        columns["labels"] = [list(each.labels) for each in predictions]
    else:
        columns["label"] = [each.label for each in predictions]
        columns["probability"] = [each.probability for each in predictions]
    names = predictions[0].probabilities if predictions else {}
    columns |= {f"probability_{name}": [each.probabilities[name] for each in predictions] for name in sorted(names)}
    if _package(items) == "polars":
        import polars as pl

        return pl.DataFrame(columns)
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingPackageError("pandas", purpose="giving predictions as a frame", mend="pip install pandas") from error
    has_index = _package(items) == "pandas" and type(items).__name__ in ("DataFrame", "Series")
    return pd.DataFrame(columns, index=items.index[list(rows)] if has_index else None)


def _package(items: object) -> str:
    return type(items).__module__.partition(".")[0]
