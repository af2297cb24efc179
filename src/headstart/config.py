"""What a user can ask of `fit`, validated as soon as it is said."""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass, fields
from operator import index
from typing import Any, SupportsFloat, SupportsIndex, TypeGuard, get_args

from headstart.errors import SettingError
from headstart.records import TASK_ALIASES, AnyTask, Modality

MODALITIES = ("auto", *get_args(Modality))
TASKS = ("auto", *get_args(AnyTask), *TASK_ALIASES)
STRATEGIES = ("auto", "extract", "full", "lora", "contrastive")
BALANCES = ("auto", "weights", "none")
HEADS = ("auto", "linear", "mlp")
CLASSICALS = ("auto", "none")
# As the field's recipe for chest CT has it: two hidden layers of 512, dropout 0.3 behind each.
HIDDEN, DROPOUT = (512, 512), 0.3
MOST_HIDDEN = 65_536
GEOMETRIES = ("auto", "crop", "pad", "squash", "head", "head+tail", "windows", "spread")
PRECISIONS = ("auto", "float32", "int8")
_CHOICES = {
    "modality": MODALITIES,
    "task": TASKS,
    "balance": BALANCES,
    "head": HEADS,
    "classical": CLASSICALS,
    "geometry": GEOMETRIES,
    "precision": PRECISIONS,
}
_WHOLE = ("seed", "image_size", "epochs", "batch_size", "context")
_KINDS = dict.fromkeys(_WHOLE, "a whole number") | {
    "learning_rate": "a number",
    "dropout": "a number",
    "hidden": "a tuple of whole numbers, as (512, 512)",
    "resume": "True or False",
    "find_learning_rate": "True or False",
    "tuning": "a dict of names and values of a TuningPlan",
    "merge_labels": "a dict of found to used",
    "label_columns": "a list of names",
    "label_names": "a list of names",
}
_OF_ITEMS = (
    "item_column label_column group_column split_column merge_labels "
    "label_columns label_separator label_names item_root encoding"
)
_NOT_FOR_WRITING = f"balance head classical geometry precision image_size find_learning_rate {_OF_ITEMS}".split()
_UNIT_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The options of `fit`; every one has a default that needs no thought.

    Raises:
        SettingError: if a value cannot work; it names the choices.
    """

    modality: str = "auto"
    task: str = "auto"
    backbone: str = "auto"
    strategy: str = "auto"
    balance: str = "auto"
    """Whether classes weigh alike: 'weights', 'none', or 'auto', which asks the data where one class is ten times another."""
    head: str = "auto"
    """'linear' is solved exactly, as is 'auto'; 'mlp' has hidden layers and is trained."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers of head 'mlp'; None for (512, 512)."""
    dropout: float | None = None
    """Behind each of them, in [0, 1); None for 0.3."""
    classical: str = "auto"
    """Texts: whether words and pieces of words compete with the backbone's features, and may join them; 'none' leaves them
    out."""
    geometry: str = "auto"
    """How pictures become square: 'auto' asks cross-validation on a part of the data."""
    precision: str = "auto"
    """Of the frozen network: 'float32', 'int8', or 'auto': int8 where it is faster and cross-validation does not miss it."""
    image_size: int | None = None
    """Side in pixels of the network's square input; None for the weights' own."""
    budget: str | float | None = None
    """Time to spend on doing better than the least, as '10m', '90s', '1h' or seconds; None for the least. A strategy that is
    asked for trains as many epochs as fit, at least one, unless `epochs` says how many."""
    epochs: int | None = None
    """Of tuning; None lets a rule choose, as for the next two."""
    batch_size: int | None = None
    learning_rate: float | None = None
    """The highest, of the head; the blocks' is lower in proportion."""
    find_learning_rate: bool = False
    """Whether a range test chooses the rate, in place of the rule."""
    tuning: tuple[tuple[str, Any], ...] = ()
    """Further numbers of a `TuningPlan` that overrule the rules': `tuning={"l2_sp": 0.01, "averaging": "swa"}`."""
    context: int | None = None
    """Language models: tokens of a block, read at once; None lets a rule choose."""
    resume: bool = False
    """Whether to go on from the last checkpoint of a fit that was interrupted."""
    seed: int = 0
    item_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    merge_labels: tuple[tuple[str, str], ...] = ()
    label_columns: tuple[str, ...] | None = None
    """Columns of 0 and 1, one for each label, in place of a label column."""
    label_separator: str | None = None
    """What separates several labels in one cell; None for '|' where the cells use it consistently."""
    label_names: tuple[str, ...] | None = None
    """Names of the positions of indicator rows (0 and 1 for each label)."""
    item_root: str | None = None
    """The folder that relative paths of a table start at; None for the table's own."""
    encoding: str | None = None
    """Of a text table; None for UTF-8."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        object.__setattr__(self, "task", TASK_ALIASES.get(self.task, self.task))
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        self._check_strategy()
        self._check_head()
        self._check_numbers()
        self._check_tuning()
        self._check_task()
        if self.image_size is not None and not 32 <= self.image_size <= 1024:
            raise SettingError(
                f"image_size is {self.image_size!r}.",
                expected="a number of pixels from 32 to 1024.",
                mend="leave --image-size out for the size the weights were trained at.",
            )
        if self.seed < 0:
            raise SettingError(f"seed is {self.seed}.", expected="a whole number, 0 or more.", mend="--seed 0")
        _ = self.budget_seconds

    def _check_strategy(self) -> None:
        if self.strategy in STRATEGIES or re.fullmatch(r"last:[1-9]\d{0,2}", self.strategy):
            return
        near = difflib.get_close_matches(self.strategy, (*STRATEGIES, "last:2"), n=1)
        raise SettingError(
            f"strategy is {self.strategy!r}.",
            expected=f"one of {', '.join(STRATEGIES)}, or last:K for the last K blocks, K from 1.",
            mend=f"--strategy {near[0] if near else 'auto'}",
        )

    def _check_head(self) -> None:
        for name, value in (("hidden", self.hidden), ("dropout", self.dropout)):
            if value is not None and self.head != "mlp":
                raise SettingError(
                    f"{name} is {value!r}, and head is {self.head!r}.",
                    expected="head 'mlp', the one with hidden layers.",
                    mend=f"--head mlp, or leave {name} out.",
                )
        if self.hidden is not None and not (self.hidden and all(1 <= width <= MOST_HIDDEN for width in self.hidden)):
            raise SettingError(
                f"hidden is {self.hidden!r}.",
                expected=f"one width or more, each from 1 to {MOST_HIDDEN:,}.",
                mend=f"leave hidden out for {HIDDEN}.",
            )
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise SettingError(
                f"dropout is {self.dropout!r}.",
                expected="a number in [0, 1).",
                mend=f"leave dropout out for {DROPOUT}.",
            )

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Widths of the head's hidden layers; none for a linear head."""
        return (self.hidden or HIDDEN) if self.head == "mlp" else ()

    @property
    def head_dropout(self) -> float:
        """Behind each hidden layer."""
        return 0.0 if self.head != "mlp" else DROPOUT if self.dropout is None else self.dropout

    def _check_tuning(self) -> None:
        """Refuse numbers of a training where nothing trains, and two that contradict each other."""
        numbers = ("epochs", "learning_rate", "find_learning_rate", "tuning")
        given = [f"--{name.replace('_', '-')}" for name in numbers if getattr(self, name)]
        if given and self.strategy == "extract" and self.head != "mlp":
            raise SettingError(
                f"strategy is 'extract', which trains nothing, and {', '.join(given)} is given.",
                expected="a strategy that trains: auto, last:K, full, lora or contrastive; or --head mlp.",
                mend=f"leave {' and '.join(given)} out, or name another --strategy.",
            )
        if self.strategy == "contrastive" and (self.head == "mlp" or self.find_learning_rate):
            raise SettingError(
                f"strategy is 'contrastive', and {'head is ' + repr(self.head) if self.head == 'mlp' else 'a rate is sought'}.",
                expected="the linear head, which is solved, and the learning rate of the rules or your own.",
                mend="leave out --head and --find-learning-rate, or name another --strategy.",
            )
        if self.learning_rate is not None and self.find_learning_rate:
            raise SettingError(
                f"learning_rate is {self.learning_rate!r}, and a range test is asked to find another.",
                expected="one of the two.",
                mend="leave out --learning-rate or --find-learning-rate.",
            )

    def _check_task(self) -> None:
        """Refuse what has no meaning where a model writes, and where it does not."""
        writes = self.task == "generate"
        given = [
            f"--{name.replace('_', '-')}" for name in (_NOT_FOR_WRITING if writes else ("context",)) if self._is_given(name)
        ]
        if given:
            raise SettingError(
                f"the task is {self.task!r}, and {', '.join(given)} is given.",
                expected="no options of labelled items." if writes else "--context with --task generate only.",
                mend=f"leave {' and '.join(given)} out.",
            )

    def _is_given(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).__dataclass_fields__[name].default)

    def _check_numbers(self) -> None:
        for name in ("epochs", "batch_size", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(
                    f"{name} is {value!r}.",
                    expected="a whole number, 1 or more.",
                    mend=f"leave --{name.replace('_', '-')} out.",
                )
        if self.learning_rate is not None and not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SettingError(
                f"learning_rate is {self.learning_rate!r}.",
                expected="a number above 0, such as 0.001.",
                mend="leave --learning-rate out: a rule chooses it.",
            )

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds; 0 where there is none."""
        if self.budget is None:
            return 0.0
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(self.budget))
        if not found:
            raise SettingError(
                f"budget is {self.budget!r}.",
                expected="a time such as 90s, 10m or 1h.",
                mend="--budget 10m",
            )
        seconds = float(found[1]) * _UNIT_SECONDS[found[2]]
        if not seconds:
            raise SettingError(
                f"budget is {self.budget!r}, no time at all.",
                expected="a time such as 90s, 10m or 1h.",
                mend="--strategy extract, which tunes nothing.",
            )
        return seconds

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> FitSettings:
        """Make settings from keyword options.

        Args:
            options: by name; None leaves the default.

        Raises:
            SettingError: if there is no such option, with the nearest name; or a value cannot work.
        """
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise SettingError(
                    f"fit has no option {name!r}.",
                    expected=f"one of {', '.join(names)}.",
                    mend=f"did you mean {near[0]!r}?" if near else "leave it out.",
                )
        given = {name: _typed(name, value) for name, value in options.items() if value is not None}
        return cls(**given)


def _typed(name: str, value: Any) -> Any:  # noqa: ANN401 - from Python an option may be of any type
    """The value as the type the option has; a number from numpy counts as a number."""
    match name:
        case "budget":
            return value
        case "label_columns" | "label_names" | "item_root":
            return _typed_of_labels(name, value)
        case "merge_labels" | "tuning" if isinstance(value, dict):
            return tuple(value.items())
        case "merge_labels" | "tuning" if isinstance(value, tuple):
            return value
        case "hidden" if isinstance(value, tuple | list) and all(_is_whole(width) for width in value):
            return tuple(index(width) for width in value)
        case "learning_rate" | "dropout" if isinstance(value, SupportsFloat) and not isinstance(value, bool | str):
            return float(value)
        case "resume" | "find_learning_rate" if isinstance(value, bool):
            return value
        case _ if name in _WHOLE and _is_whole(value):
            return index(value)
    if isinstance(value, str) and name not in _KINDS:
        return value
    raise _wrong_type(name, value)


def _typed_of_labels(name: str, value: Any) -> Any:  # noqa: ANN401 - from Python an option may be of any type
    """A list of names, or one text with commas between them; a path."""
    if name == "item_root" and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if name != "item_root" and isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    if name != "item_root" and isinstance(value, tuple | list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise _wrong_type(name, value)


def _wrong_type(name: str, value: object) -> SettingError:
    return SettingError(
        f"{name} is {value!r}, of type {type(value).__name__}.",
        expected=f"{_KINDS.get(name, 'a string')}.",
        mend=f"convert it, or leave {name} out.",
    )


def _is_whole(value: object) -> TypeGuard[SupportsIndex]:
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=1)
    option = "--" + name.replace("_", "-")
    raise SettingError(
        f"{name} is {value!r}.",
        expected=f"one of {', '.join(choices)}.",
        mend=f"{option} {near[0] if near else choices[0]}",
    )
