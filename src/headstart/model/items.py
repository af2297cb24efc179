"""The items a model is asked about: named one by one, and named again where they cannot be read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from headstart.data.folders import files_below
from headstart.data.modality import modality_of_name, modality_of_value
from headstart.errors import DataError
from headstart.preprocess.items import item_name


def expand(
    items: Any,  # noqa: ANN401 - any kind of item
    modality: str,
    *,
    among_others: bool = False,
) -> list[tuple[str, Any]]:
    """Name items one by one, folders opened up, in order.

    Args:
        items: one item or a sequence of items. A string is a text where the modality is text, and else a path.
        modality: which files of a folder count.
        among_others: whether more items are named elsewhere, so that a folder without any must not be passed over.

    Returns:
        (name, item) pairs; a text is its own name.
    """
    one_sound = modality == "audio" and modality_of_value(items) == "audio"
    several = items if isinstance(items, list | tuple) and not one_sound else [items]
    named: list[tuple[str, Any]] = []
    for position, item in enumerate(several):
        is_path = isinstance(item, Path) or (isinstance(item, str) and modality != "text")
        # As a path, nothing would be the current folder.
        if isinstance(item, str) and not item.strip():
            named.append((f"{position}: {item!r}", item))
        elif is_path and _is_folder(Path(item)):
            files = [(str(file), file) for file in files_below(Path(item)) if modality_of_name(file.name) == modality]
            # A folder among several items that gives none is an item that cannot be read, so that it is not passed over.
            named += files or ([(str(item), item)] if among_others or len(several) > 1 else [])
        else:
            named.append((str(item) if isinstance(item, str | Path) else f"{position}: {item_name(item)}", item))
    return named


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # no path at all, but something long or binary: reading it says so
        return False


def unreadable_error(reasons: dict[str, str]) -> DataError:
    """One error for all items that cannot be read."""
    told = "".join(f"\n  - {name}: {reason}" for name, reason in islice(reasons.items(), 20))
    more = f"\n  - … and {len(reasons) - 20} more" if len(reasons) > 20 else ""
    return DataError(
        f"{len(reasons)} item{'s' * (len(reasons) != 1)} cannot be read:{told}{more}",
        expected="whole items in a format that can be read.",
        mend="replace or remove them; headstart predict answers the others all the same, and --json names these beside the "
        "answers; from Python, predict(items, unreadable='skip') leaves them out.",
    )
