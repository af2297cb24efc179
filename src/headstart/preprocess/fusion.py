"""Several networks' recipes as one: each part makes its own input of an item, and all answer for the item together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headstart.errors import ArtifactError
from headstart.preprocess.picture_copies import PairComparison
from headstart.preprocess.recipe_json import MEND
from headstart.records import Finding, Modality

if TYPE_CHECKING:
    from headstart.preprocess.recipe import Preprocess

RULES = 1


@dataclass(frozen=True, kw_only=True)
class FusedPreprocess:
    """From an item to the inputs of several networks that take the same items.

    What `prepare`, `collate` and `example` give is a tuple with each part's array, in order. What an item is, how it is known
    and shown, is asked of the first part.
    """

    names: tuple[str, ...]
    """Of the parts' backbones."""
    parts: tuple[Preprocess, ...]
    """Two or more, of one modality."""

    kind: ClassVar[str] = "fusion"

    @property
    def modality(self) -> Modality:
        """What the items are."""
        return self.parts[0].modality

    @property
    def input_name(self) -> str:
        """What the networks' inputs are called, each with its number behind, from 1 (`named_arrays`)."""
        return self.parts[0].input_name

    @cached_property
    def assets(self) -> Mapping[str, bytes]:
        """The parts' files, the number of the part before the name."""
        return {f"{n}.{name}": content for n, part in enumerate(self.parts, 1) for name, content in part.assets.items()}

    @property
    def fitting(self) -> str:
        """How items are fitted; each part's way where they differ."""
        ways = [part.fitting for part in self.parts]
        return ways[0] if len(set(ways)) == 1 else ", ".join(f"{n}: {way}" for n, way in zip(self.names, ways, strict=True))

    @property
    def fittings(self) -> tuple[str, ...]:
        """The ways that every part knows."""
        first, *others = self.parts
        return tuple(way for way in first.fittings if all(way in part.fittings for part in others))

    @property
    def fitting_question(self) -> str:
        """What is asked, in a word or two."""
        return self.parts[0].fitting_question

    @property
    def views(self) -> tuple[str, ...]:
        """The other views that every part can be given."""
        first, *others = self.parts
        return tuple(view for view in first.views if all(view in part.views for part in others))

    def indifferent(self, items: Sequence[object]) -> str:
        """Say why it does not matter to any part how these items are fitted; '' where it may to one."""
        told = [part.indifferent(items) for part in self.parts]
        return "; ".join(dict.fromkeys(told)) if all(told) else ""

    def with_fitting(self, fitting: str) -> FusedPreprocess:
        """The same recipe with another way of fitting in every part.

        Raises:
            SettingError: if a part has no such way.
        """
        return replace(self, parts=tuple(part.with_fitting(fitting) for part in self.parts))

    def as_json(self) -> dict[str, Any]:
        """The recipe, less its assets, as plain JSON values."""
        parts = [{"backbone": name} | part.as_json() for name, part in zip(self.names, self.parts, strict=True)]
        return {"kind": self.kind, "rules": RULES, "parts": parts}

    @staticmethod
    def from_json(
        spec: Mapping[str, Any],
        read: Callable[[str], bytes],
        open_part: Callable[[Mapping[str, Any], Callable[[str], bytes]], Preprocess],
    ) -> FusedPreprocess:
        """Read back what `as_json` gave, strictly.

        Args:
            spec: the values of one JSON object.
            read: gives the content of an asset by its name.
            open_part: reads one part's recipe.

        Raises:
            ArtifactError: if it is of other rules, has a missing, unknown or wrong setting, or fewer than two parts.
        """
        told = spec.get("parts")
        good = set(spec) == {"kind", "rules", "parts"} and spec["rules"] == RULES and isinstance(told, list) and len(told) > 1
        if not (good and all(isinstance(part, dict) and isinstance(part.get("backbone"), str) for part in told or [])):
            raise ArtifactError(
                f"this is no preprocess of several networks of rules {RULES}.",
                expected="an object with kind, rules, and parts: two or more, each with its backbone's name.",
                mend=MEND,
            )
        parts = [
            open_part(
                {name: value for name, value in part.items() if name != "backbone"},
                lambda name, n=number: read(f"{n}.{name}"),  # type: ignore[misc]
            )
            for number, part in enumerate(told or [], 1)
        ]
        return FusedPreprocess(names=tuple(part["backbone"] for part in told or []), parts=tuple(parts))

    def fingerprint(self) -> str:
        """Name the recipe by its content, assets included: 64 hexadecimal digits."""
        told = [[name, part.fingerprint()] for name, part in zip(self.names, self.parts, strict=True)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def describe(self) -> dict[str, str | int]:
        """The parts' settings that a user may want to know."""
        return {
            f"{name}: {setting}": value
            for name, part in zip(self.names, self.parts, strict=True)
            for setting, value in part.describe().items()
        }

    def load(self, item: object, *, name: str = "") -> object:
        """Read an item once, as the first part does.

        Raises:
            UnreadableItemError: if it cannot be read.
        """
        return self.parts[0].load(item, name=name)

    def digest(self, content: object, *, name: str = "") -> bytes:
        """Hash what an item holds: the 32 bytes of a SHA-256.

        Raises:
            UnreadableItemError: if it is no item.
        """
        return self.parts[0].digest(content, name=name)

    def size(self, item: object) -> int:
        """How long an item is to the part it is longest to."""
        return max(part.size(item) for part in self.parts)

    def prepare(self, item: object, *, name: str = "") -> tuple[np.ndarray, ...]:
        """Prepare one item for each part.

        Raises:
            UnreadableItemError: if there is nothing in it to be seen, for one part or another.
        """
        return tuple(part.prepare(item, name=name) for part in self.parts)

    def collate(self, prepared: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
        """Make each network's input of B prepared items, batch first."""
        return tuple(part.collate(arrays) for part, arrays in zip(self.parts, zip(*prepared, strict=True), strict=True))

    @property
    def free_axes(self) -> Mapping[int, str]:
        """The axes of any part's batch that differ from one to the next, with their names."""
        return {axis: name for part in self.parts for axis, name in part.free_axes.items()}

    def example(self, count: int) -> tuple[np.ndarray, ...]:
        """Made up batches on which networks can be compared; always the same."""
        return tuple(part.example(count) for part in self.parts)

    def keep(self, item: object) -> bytes:
        """A small faithful copy of an item, which `prepare` takes again."""
        return self.parts[0].keep(item)

    def compare(self, prepared: tuple[np.ndarray, ...], saved: tuple[np.ndarray, ...]) -> str:
        """Say how an item was prepared otherwise than it once was; '' where it was not."""
        found = zip(self.names, self.parts, prepared, saved, strict=True)
        return "; ".join(f"{told} for {name}" for name, part, now, then in found if (told := part.compare(now, then)))

    @property
    def copies_told_by(self) -> str:
        """What near copies are found by, in words; '' where that is left to the features."""
        return self.parts[0].copies_told_by

    def near_copies(self, items: Sequence[object]) -> list[tuple[int, int]] | None:
        """Pairs of readable items, by position, that all but coincide; None where only their features tell."""
        return self.parts[0].near_copies(items)

    def pixel_comparison(self, items: Sequence[object]) -> PairComparison | None:
        """What confirms that readable items close by their features are copies; None where only their features tell."""
        return self.parts[0].pixel_comparison(items)

    def notice(self, items: Mapping[str, object]) -> list[Finding]:
        """Say what of some readable items, by id, the networks do not see: once what all say, and else for whom."""
        told: dict[Finding, list[str]] = {}
        for name, part in zip(self.names, self.parts, strict=True):
            for finding in part.notice(items):
                told.setdefault(finding, []).append(name)
        return [
            finding if len(names) == len(self.parts) else replace(finding, message=f"for {', '.join(names)}: {finding.message}")
            for finding, names in told.items()
        ]

    def illustrate(self, item: object) -> dict[str, str]:
        """What to show people of an item.

        Raises:
            UnreadableItemError: if it cannot be read.
        """
        return self.parts[0].illustrate(item)


def array_names(name: str, preprocess: Preprocess) -> tuple[str, ...]:
    """What a preprocess's arrays are called: by a name; of several networks each by the name and its number, from 1.

    Args:
        name: 'prepared.0', or `preprocess.input_name`, say.
        preprocess: of one network or several.
    """
    if isinstance(preprocess, FusedPreprocess):
        return tuple(f"{name}.{number}" for number in range(1, len(preprocess.parts) + 1))
    return (name,)


def named_arrays(name: str, preprocess: Preprocess, arrays: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - as it makes them
    """Arrays by their names; with `preprocess.input_name`, what a saved model's network is given.

    Args:
        name: as for `array_names`.
        preprocess: that made the arrays, by `prepare`, `collate` or `example`.
        arrays: one, or for several networks a tuple.
    """
    several = arrays if isinstance(preprocess, FusedPreprocess) else (arrays,)
    return dict(zip(array_names(name, preprocess), several, strict=True))


def gather_arrays(name: str, preprocess: Preprocess, found: Mapping[str, np.ndarray]) -> Any:  # noqa: ANN401 - as it takes them
    """The inverse of `named_arrays`.

    Args:
        name: as there.
        preprocess: that will take them, by `collate` or `compare`.
        found: arrays by name, others among them.
    """
    several = tuple(found[each] for each in array_names(name, preprocess))
    return several if isinstance(preprocess, FusedPreprocess) else several[0]
