"""What every modality's preprocess can do; one object from item to network input, saved with the model and used everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from headstart.errors import ArtifactError
from headstart.preprocess.audio import AudioPreprocess
from headstart.preprocess.clip_items import find_clip_kind
from headstart.preprocess.clips import ClipPreprocess
from headstart.preprocess.fusion import FusedPreprocess
from headstart.preprocess.image import ImagePreprocess
from headstart.preprocess.picture_copies import PairComparison
from headstart.preprocess.recipe_json import MEND
from headstart.preprocess.text import TextPreprocess
from headstart.records import Finding, Modality

Arrays = Any
"""What one network takes is one array; what several together take (`FusedPreprocess`) is a tuple with the array of each."""


class Preprocess(Protocol):
    """From an item of one modality to the input of one network, or the inputs of several.

    An item is read (`load`), known by its content (`digest`), prepared alone (`prepare`), and put together with others to a
    batch (`collate`). All but the batch is independent of the other items.
    """

    @property
    def modality(self) -> Modality:
        """What the items are."""
        ...

    @property
    def input_name(self) -> str:
        """What the network's one input is called; those of several are called so with a number behind."""
        ...

    @property
    def assets(self) -> Mapping[str, bytes]:
        """Files that belong to the recipe, by name; none of them is code."""
        ...

    @property
    def fitting(self) -> str:
        """How an item is fitted to the network's input."""
        ...

    @property
    def fittings(self) -> tuple[str, ...]:
        """The ways there are; the first stands unless another is better beyond doubt."""
        ...

    @property
    def fitting_question(self) -> str:
        """What is asked, in a word or two."""
        ...

    @property
    def views(self) -> tuple[str, ...]:
        """Other views of an item that its label survives, as a rule."""
        ...

    def indifferent(self, items: Sequence[object]) -> str:
        """Say why it does not matter how these items are fitted; '' where it may.

        Args:
            items: some of those that will be seen.
        """
        ...

    def with_fitting(self, fitting: str) -> Preprocess:
        """The same recipe with another way of fitting.

        Raises:
            SettingError: if there is no such way.
        """
        ...

    def as_json(self) -> dict[str, Any]:
        """The recipe, less its assets, as plain JSON values."""
        ...

    def fingerprint(self) -> str:
        """Name the recipe by its content, assets included: 64 hexadecimal digits."""
        ...

    def describe(self) -> dict[str, str | int]:
        """The settings that a user may want to know, by name."""
        ...

    def load(self, item: object, *, name: str = "") -> object:
        """Read an item once, so that hashing and decoding share the read.

        Raises:
            UnreadableItemError: if it cannot be read.
        """
        ...

    def digest(self, content: object, *, name: str = "") -> bytes:
        """Hash what an item holds: the 32 bytes of a SHA-256.

        Raises:
            UnreadableItemError: if it is no item.
        """
        ...

    def size(self, item: object) -> int:
        """How long an item is, in units of its own; items of like sizes share a batch. 0 where all inputs are alike."""
        ...

    def prepare(self, item: object, *, name: str = "") -> Arrays:
        """Prepare one item, as `collate` takes it.

        Raises:
            UnreadableItemError: if there is nothing in it to be seen.
        """
        ...

    def collate(self, prepared: Sequence[Arrays]) -> Arrays:
        """Make the network's input of B prepared items, batch first."""
        ...

    @property
    def free_axes(self) -> Mapping[int, str]:
        """The axes of a batch that differ from one to the next, with their names."""
        ...

    def example(self, count: int) -> Arrays:
        """A made up batch on which networks can be compared; always the same."""
        ...

    def keep(self, item: object) -> bytes:
        """A small faithful copy of an item, which `prepare` takes again."""
        ...

    def compare(self, prepared: Arrays, saved: Arrays) -> str:
        """Say how an item was prepared otherwise than it once was; '' where it was not."""
        ...

    @property
    def copies_told_by(self) -> str:
        """What near copies are found by, in words; '' where that is left to the features."""
        ...

    def near_copies(self, items: Sequence[object]) -> list[tuple[int, int]] | None:
        """Pairs of readable items, by position, that all but coincide; None where only their features tell."""
        ...

    def pixel_comparison(self, items: Sequence[object]) -> PairComparison | None:
        """What confirms that readable items close by their features are copies; None where only their features tell."""
        ...

    def notice(self, items: Mapping[str, object]) -> list[Finding]:
        """Say what of some readable items, by id, the network does not see."""
        ...

    def illustrate(self, item: object) -> dict[str, str]:
        """What to show people of an item, for a page: a `thumbnail` or `sound` as data URIs, or an `excerpt`.

        Raises:
            UnreadableItemError: if it cannot be read.
        """
        ...


def suit(preprocess: Preprocess, items: Iterable[object]) -> Preprocess:
    """The recipe that some items need: where there is a clip among pictures, all are clips.

    Args:
        preprocess: of one network.
        items: that will go through it; looked at one by one, until one settles it.

    Returns:
        The same recipe, or one that reads clips by it.
    """
    if isinstance(preprocess, ImagePreprocess) and any(find_clip_kind(item) is not None for item in items):
        return ClipPreprocess(picture=preprocess)
    return preprocess


def count_clips(preprocess: Preprocess, items: Iterable[object]) -> int:
    """Count the clips among items.

    Args:
        preprocess: of one network or several.
        items: that went through it.

    Returns:
        How many are clips; 0 where the recipe is none for clips, whatever the items are.
    """
    first = preprocess.parts[0] if isinstance(preprocess, FusedPreprocess) else preprocess
    return sum(find_clip_kind(item) is not None for item in items) if isinstance(first, ClipPreprocess) else 0


def preprocess_from_json(spec: Mapping[str, Any], read: Callable[[str], bytes]) -> Preprocess:
    """Read back what `as_json` gave.

    Args:
        spec: the values of one JSON object.
        read: gives the content of an asset by its name.

    Returns:
        The same recipe.

    Raises:
        ArtifactError: if it is no preprocess that this headstart knows, or has a missing, unknown or wrong setting.
    """
    kind = spec.get("kind") if isinstance(spec, Mapping) else None
    match kind:
        case "image":
            return ImagePreprocess.from_json(spec)
        case "clip":
            return ClipPreprocess.from_json(spec)
        case "text":
            return TextPreprocess.from_json(spec, read)
        case "audio":
            return AudioPreprocess.from_json(spec)
        case FusedPreprocess.kind:
            return FusedPreprocess.from_json(spec, read, preprocess_from_json)
        case _:
            raise ArtifactError(
                f"there is no preprocess of kind {kind!r}.",
                expected="kind image, clip, text, audio or fusion.",
                mend=MEND,
            )
