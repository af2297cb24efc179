"""headstart.json: what a saved model is, in plain values."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from typing import Any, get_args

from headstart.errors import ArtifactError
from headstart.records import AnyTask, Modality

MANIFEST = "headstart.json"
FORMAT = 1
MOST_DIGITS = 19
"""Of a whole number: what 64 bits have."""
_FOR_PEOPLE = frozenset({"README.md", "report.html", "history.csv"})
_LOGS = "logs/"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of headstart.json."""

    format: int
    """Of the folder; a newer one than `FORMAT` cannot be read."""
    headstart_version: str
    created: str
    """UTC, ISO 8601."""
    task: AnyTask
    modality: Modality
    labels: tuple[str, ...]
    """In the order of the network's outputs; empty for the value and generate tasks."""
    thresholds: tuple[float, ...]
    """From which probability each label is given, for the multi task."""
    preprocess: dict[str, Any]
    backbone: dict[str, Any]
    """The backbone's `BackboneInfo`, licence and sha256 included."""
    strategy: str
    cut: str
    """The last frozen block, where later ones were tuned; '' otherwise."""
    block: str
    """Which features the head takes: a block's name, 'last' or 'multi'."""
    views: tuple[str, ...]
    """Views averaged inside the network: '' as it is, 'flip' mirrored."""
    settings: dict[str, Any]
    """The options `fit` was called with."""
    packages: dict[str, str]
    """Versions the model was made with."""
    files: dict[str, str]
    """SHA-256 of every other file of the folder, as it was saved; names have / between their parts."""

    @staticmethod
    def is_sealed(name: str) -> bool:
        """Whether a file of the folder must be as it was saved.

        The card, the page, the history and the logs are for people, and no answer depends on them: they may be edited or
        removed.
        """
        return name not in _FOR_PEOPLE and not name.startswith(_LOGS)

    @property
    def num_outputs(self) -> int:
        """K."""
        return max(len(self.labels), 1)

    def as_text(self) -> str:
        """As the file's text, with a checksum of everything in it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({**values, "checksum": _checksum(values)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_text(cls, text: str, *, where: str) -> Manifest:
        """Read the file's text.

        Args:
            text: of headstart.json.
            where: the folder, for messages.

        Returns:
            The manifest.

        Raises:
            ArtifactError: if it is no manifest, of a newer format, or changed.
        """
        try:
            values: dict[str, Any] = json.loads(text, parse_constant=_refuse_number, parse_int=_integer, parse_float=_finite)
            found = values["format"]
            if type(found) is not int:
                raise ValueError(f"its format is {found!r}, no whole number")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(
                f"{where} is no saved model: headstart.json cannot be read ({type(error).__name__}: {error}).",
                expected="the folder that `headstart fit --out` made, unchanged.",
                mend="copy the whole folder again from where it was made.",
            ) from error
        if found > FORMAT:
            raise ArtifactError(
                f"{where} has format {found}, and this headstart reads up to {FORMAT}.",
                expected=f"a model saved by headstart of format {FORMAT} or older.",
                mend=f"pip install --upgrade headstart; the model was made by {values.get('headstart_version')}.",
            )
        names = {field.name for field in fields(cls)}
        missing = sorted(names - values.keys())
        if missing:
            raise ArtifactError(
                f"{where} is no whole model: headstart.json lacks {', '.join(missing)}.",
                expected=f"the settings {', '.join(sorted(names))}.",
                mend="copy the whole folder again from where it was made.",
            )
        if values.pop("checksum", None) != _checksum(values):
            raise ArtifactError(
                f"headstart.json in {where} is not what was saved: its checksum differs.",
                expected="the file as `headstart fit` wrote it: labels, their order and the preprocess among other things.",
                mend="copy the whole folder again from where it was made; to change a setting or a label, fit again.",
            )
        wrong = _wrong(values)
        if wrong:
            told = ", ".join(f"{name} {str(values[name])[:100]!r}" for name in wrong)
            raise ArtifactError(
                f"headstart.json in {where} has settings that cannot be: {told}.",
                expected="the file as `headstart fit` wrote it.",
                mend="copy the whole folder again from where it was made.",
            )
        tuples = {name: tuple(values[name]) for name in ("labels", "thresholds", "views")}
        return cls(**({name: values[name] for name in names} | tuples))


def _refuse_number(written: str) -> None:
    raise ValueError(f"it has {written[:20]}, which is no number that JSON knows")


def _integer(written: str) -> int:
    if len(written) > MOST_DIGITS:
        raise ValueError(f"it has a whole number of {len(written)} digits")
    return int(written)


def _finite(written: str) -> float:
    if not math.isfinite(value := float(written)):
        raise ValueError(f"it has {written[:20]}, which is too large for a number")
    return value


_LABELLED = ("single", "multi")


def _wrong(values: dict[str, Any]) -> list[str]:
    """Names of the settings that are not what the rest of the code relies on."""
    labels, thresholds = values["labels"], values["thresholds"]
    good = {
        "task": values["task"] in get_args(AnyTask),
        "modality": values["modality"] in get_args(Modality),
        "labels": _are_texts(labels) and len(set(labels)) == len(labels) and bool(labels) == (values["task"] in _LABELLED),
        "views": _are_texts(values["views"]),
        "files": isinstance(values["files"], dict) and _are_texts(list(values["files"].values())),
    }
    good["thresholds"] = (
        isinstance(thresholds, list)
        and all(isinstance(threshold, int | float) for threshold in thresholds)
        and (not good["labels"] or len(thresholds) >= len(labels))
    )
    good |= {name: isinstance(values[name], dict) for name in ("preprocess", "backbone", "settings", "packages")}
    return [name for name, holds in good.items() if not holds]


def _are_texts(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _checksum(values: dict[str, Any]) -> str:
    """Of the values, however the text is laid out."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
