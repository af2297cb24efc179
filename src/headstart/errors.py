"""Everything that can go wrong at the user's side, as one small tree.

HeadstartError
├── DataError            the labelled data cannot be used as it is
├── SettingError         an option or argument has a value that cannot work
├── BackboneError        a backbone is unknown, of the wrong kind, or its weights cannot be had
├── ArtifactError        a saved model is damaged, of another format, or in the way
├── CacheError           the feature store cannot be read or written
└── MissingPackageError  an optional package is not installed
"""

from __future__ import annotations

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


class MissingPackageError(HeadstartError):
    """An optional package is not installed.

    Args:
        package: the name pip knows it by.
        extra: the extra of headstart that brings it.
        purpose: what it is needed for, as in "reading Parquet files".
        mend: the command that installs it, where that is not the extra's.
    """

    def __init__(self, package: str, *, extra: str, purpose: str, mend: str = "") -> None:
        super().__init__(
            f"the package {package!r} is not installed, and {purpose} needs it.",
            expected=f"{package} beside headstart in the same environment.",
            mend=mend or f'pip install "headstart[{extra}]"',
        )
        self.package = package
