"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


class DataOptions:
    """Which columns of a table are which."""

    label_column = Annotated[str | None, typer.Option(help="Column of labels; several in one cell as a|b.")]
    item_column = Annotated[str | None, typer.Option(help="Column of paths.")]
    group_column = Annotated[str | None, typer.Option(help="Column of groups that stay on one side of the split.")]
    split_column = Annotated[str | None, typer.Option(help="Column of train, valid, test.")]
    merge_labels = Annotated[list[str] | None, typer.Option(metavar="FOUND=USED", help="One label under another's name.")]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How much to show, and as what."""

    as_json: bool
    quiet: bool
