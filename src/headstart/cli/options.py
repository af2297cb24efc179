"""Options that several commands share, and what they come to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from headstart.errors import SettingError

# The groups of options in `--help`.
IN_DATA, IN_MODEL, IN_TRAINING, IN_OUTPUT = "Data", "Model", "Fine-tuning", "Output and running"

DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="A folder per class, a table, or an archive of either.")]
ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="What `headstart fit --out` made.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.", rich_help_panel=IN_OUTPUT)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.", rich_help_panel=IN_OUTPUT)]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never touch the network.", rich_help_panel=IN_OUTPUT)]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier run wrote to --out.", rich_help_panel=IN_OUTPUT)
]
BackboneOption = Annotated[
    str,
    typer.Option(
        help="By name, such as efficientnet-lite0 or all-minilm-l6-v2, or several as A+B; `headstart backbones` lists them.",
        rich_help_panel=IN_MODEL,
    ),
]
GeometryOption = Annotated[
    str,
    typer.Option(
        help="auto; of images crop, pad or squash; of texts head, head+tail or windows; of sounds spread or head.",
        rich_help_panel=IN_MODEL,
    ),
]
ImageSizeOption = Annotated[int | None, typer.Option(help="Side in pixels of the network's input.", rich_help_panel=IN_MODEL)]
ModalityOption = Annotated[str, typer.Option(help="auto, image, text or audio.", rich_help_panel=IN_DATA)]
TestOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="A second source: the test split.", rich_help_panel=IN_DATA)
]


class DataOptions:
    """Which columns of a table are which."""

    label_column = Annotated[
        str | None, typer.Option(help="Column of labels; several in one cell as a|b.", rich_help_panel=IN_DATA)
    ]
    item_column = Annotated[str | None, typer.Option(help="Column of paths or texts.", rich_help_panel=IN_DATA)]
    group_column = Annotated[
        str | None, typer.Option(help="Column of groups that stay on one side of the split.", rich_help_panel=IN_DATA)
    ]
    split_column = Annotated[str | None, typer.Option(help="Column of train, valid, test.", rich_help_panel=IN_DATA)]
    label_columns = Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…", help="Columns of 0 and 1, one for each label, that name the labels.", rich_help_panel=IN_DATA
        ),
    ]
    label_separator = Annotated[
        str | None, typer.Option(help="What separates several labels in one cell, such as ','.", rich_help_panel=IN_DATA)
    ]
    label_names = Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…", help="Names of the labels of rows of 0 and 1, in their order.", rich_help_panel=IN_DATA
        ),
    ]
    item_root = Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that the paths of a table start at.", rich_help_panel=IN_DATA)
    ]
    encoding = Annotated[
        str | None, typer.Option(help="Of a text table, such as windows-1251; else UTF-8.", rich_help_panel=IN_DATA)
    ]
    merge_labels = Annotated[
        list[str] | None, typer.Option(metavar="FOUND=USED", help="One label under another's name.", rich_help_panel=IN_DATA)
    ]


def go_offline(offline: bool) -> None:
    """Have this process touch no network, if that is asked for."""
    if offline:
        for name in ("HEADSTART_OFFLINE", "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
            os.environ[name] = "1"


def pairs_of(merges: list[str] | None) -> dict[str, str] | None:
    """What `--merge-labels FOUND=USED` names."""
    if not merges:
        return None
    wrong = [merge for merge in merges if "=" not in merge]
    if wrong:
        raise SettingError(
            f"--merge-labels {wrong[0]!r} names no pair.",
            expected="FOUND=USED, as in Cat=cat.",
            mend="give the option once for each label to merge.",
        )
    return dict(merge.split("=", 1) for merge in merges)
