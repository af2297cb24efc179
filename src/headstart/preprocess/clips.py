"""Clips become network input: a few frames, each prepared as a picture is; saved with the model and used everywhere.

A batch is one array of frames, (B, F, 3, S, S), in which frames that are not there are NaN: behind the last one of a clip that
has fewer than another of the batch. A still picture is a clip of one frame, so both may stand side by side.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from headstart.errors import SettingError
from headstart.preprocess.clip_items import find_clip_kind, read_clip
from headstart.preprocess.decode import DecodedImage
from headstart.preprocess.image import GOLDEN_SIDE, ImagePreprocess
from headstart.preprocess.items import content_key, file_key, load_small
from headstart.preprocess.recipe_json import cannot_work, read_settings
from headstart.preprocess.thumbnail import sheet_data_uri, thumbnail_data_uri
from headstart.records import Finding, Modality

RULES = 1
"""Goes up when the same settings come to mean other frames, so that nothing cached or saved is mistaken."""
SIZE_OF_CLIP, SIZE_OF_STILL = 3_000, 375
"""Where items of like sizes share a batch: a clip stands alone, and stills by eight."""
KEPT_FRAMES, SHOWN_FRAMES = 2, 4
"""Of a clip that is kept for the self-test, and that a page shows."""
MOST_FRAMES = 64
"""The most that may be set: all frames of a clip are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class ClipPreprocess:
    """From a clip or a picture to the input of one network.

    Raises:
        SettingError: if a value cannot work.
    """

    picture: ImagePreprocess
    """How each frame is prepared."""
    least_frames: int = 8
    """Of a clip, however short, where it has so many; 1 to 64."""
    most_frames: int = 16
    """Of a clip, however long."""
    seconds_a_frame: float = 4.0
    """Between these, a frame for so many seconds; above 0."""

    modality: ClassVar[Modality] = "image"
    input_name: ClassVar[str] = "frames"
    assets: ClassVar[Mapping[str, bytes]] = {}
    fittings: ClassVar[tuple[str, ...]] = ImagePreprocess.fittings
    fitting_question: ClassVar[str] = "frame geometry"
    views: ClassVar[tuple[str, ...]] = ImagePreprocess.views
    copies_told_by: ClassVar[str] = ""
    free_axes: ClassVar[Mapping[int, str]] = {0: "batch", 1: "frames"}

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        counts = (self.least_frames, self.most_frames)
        whole = all(isinstance(count, int) and not isinstance(count, bool) for count in counts)
        real = isinstance(self.seconds_a_frame, int | float) and math.isfinite(self.seconds_a_frame)
        if not (whole and real and 1 <= counts[0] <= counts[1] <= MOST_FRAMES and self.seconds_a_frame > 0):
            raise SettingError(
                f"clips cannot be read by {self.least_frames!r} to {self.most_frames!r} frames, one for "
                f"{self.seconds_a_frame!r} seconds.",
                expected=f"1 to {MOST_FRAMES} frames, the least no more than the most; seconds above 0.",
                mend="correct the setting.",
            )

    @property
    def fitting(self) -> str:
        """The geometry."""
        return self.picture.geometry

    def count_frames(self, seconds: float) -> int:
        """How many frames are read of a clip of so many seconds."""
        return min(max(self.least_frames, math.ceil(seconds / self.seconds_a_frame)), self.most_frames)

    def as_json(self) -> dict[str, Any]:
        """Give the whole recipe as plain JSON values, `kind` and `rules` included; `from_json` reads it back."""
        told = {"least_frames": self.least_frames, "most_frames": self.most_frames, "seconds_a_frame": self.seconds_a_frame}
        return {"kind": "clip", "rules": RULES} | told | {"picture": self.picture.as_json()}

    @staticmethod
    def from_json(spec: Mapping[str, Any]) -> ClipPreprocess:
        """Read back what `as_json` gave, strictly: each setting once, none unknown.

        Args:
            spec: the values of one JSON object.

        Returns:
            The same recipe.

        Raises:
            ArtifactError: if it is of other rules, or has a missing, unknown or wrong setting.
        """
        settings = read_settings(spec, ClipPreprocess, kind="clip", rules=RULES)
        try:
            return ClipPreprocess(**(settings | {"picture": ImagePreprocess.from_json(settings["picture"])}))
        except (SettingError, TypeError) as problem:
            raise cannot_work(ClipPreprocess, "clip", problem) from problem

    def with_fitting(self, fitting: str) -> ClipPreprocess:
        """The same recipe with another way of becoming square.

        Args:
            fitting: crop, pad or squash.

        Raises:
            SettingError: if it is none of these.
        """
        return dataclasses.replace(self, picture=self.picture.with_geometry(fitting))

    def indifferent(self, items: Sequence[object]) -> str:
        """Hardly any frame is square: ''."""
        return self.picture.indifferent(items)

    def fingerprint(self) -> str:
        """Name the recipe by its content: 64 hexadecimal digits, the same in every process."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, str | int]:
        """The settings that a user may want to know."""
        return self.picture.describe() | {"least_frames": self.least_frames, "most_frames": self.most_frames}

    def load(self, item: object, *, name: str = "") -> object:
        """Read a small file once; see `items.load_small`."""
        return load_small(item, name=name)

    def digest(self, content: object, *, name: str = "") -> bytes:
        """Hash what an item holds, wherever it lies: a file and its bytes have one key.

        Raises:
            UnreadableItemError: if it is no item.
        """
        return file_key(content, name=name) if isinstance(content, Path) else content_key(content, name=name)

    def size(self, item: object) -> int:
        """The same for every clip, and an eighth of it for a picture."""
        return SIZE_OF_STILL if find_clip_kind(item) is None else SIZE_OF_CLIP

    def prepare(self, item: object, *, name: str = "") -> np.ndarray:
        """Decode frames of a clip and bring them to the network's size.

        Args:
            item: a path, bytes, an array of frames (F, H, W, C); or a picture, as `ImagePreprocess.pixels` takes it.
            name: what to call the item in an error; by default the item itself.

        Returns:
            (F, S, S, 3) uint8; of a picture (1, S, S, 3).

        Raises:
            UnreadableItemError: if there is no whole clip or picture in the item.
            MissingPackageError: if the item is a video, and PyAV is not installed.
        """
        return np.stack([self.picture.fit(frame) for frame in self._frames(item, self.count_frames, name=name)])

    def collate(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Put clips side by side, normalised: (B, F, 3, S, S) float32, NaN behind the last frame of those with fewer."""
        if len(prepared) == 1:
            return self.picture.normalise(prepared[0])[None]
        shape = len(prepared), max(len(frames) for frames in prepared), *self.picture.input_shape
        batch = np.full(shape, np.nan, np.float32)
        for row, frames in zip(batch, prepared, strict=True):
            row[: len(frames)] = self.picture.normalise(frames)
        return batch

    def example(self, count: int) -> np.ndarray:
        """Two frames of each clip, made up as for pictures; the last clip has but one."""
        batch = self.picture.example(2 * count).reshape(count, 2, *self.picture.input_shape)
        batch[-1, 1] = np.nan
        return batch

    def keep(self, item: object) -> bytes:
        """Two frames of at most 320 pixels a side, losslessly, as an animated PNG; of a picture one."""
        kept: list[Image.Image] = []
        for frame in self._frames(item, lambda seconds: KEPT_FRAMES):
            image = frame.image.resize(kept[0].size) if kept else frame.image.copy()
            image.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE), Image.Resampling.BICUBIC)
            kept.append(image)
        stream = io.BytesIO()
        kept[0].save(stream, "PNG", save_all=True, append_images=kept[1:])
        return stream.getvalue()

    def compare(self, prepared: np.ndarray, saved: np.ndarray) -> str:
        """Say by how many levels pixels differ, where they differ by more than rounding."""
        return self.picture.compare(prepared, saved)

    def near_copies(self, items: Sequence[object]) -> None:
        """The features of clips tell, as those of pictures do."""

    def pixel_comparison(self, items: Sequence[object]) -> None:
        """The features of clips decide."""

    def notice(self, items: Mapping[str, object]) -> list[Finding]:
        """Nothing: what is between the frames goes unseen in every clip."""
        return []

    def illustrate(self, item: object) -> dict[str, str]:
        """Some frames on a sheet, or a small picture, as `thumbnail`."""
        if find_clip_kind(item) is None:
            return {"thumbnail": thumbnail_data_uri(item)}
        return {"thumbnail": sheet_data_uri([frame.image for frame in self._frames(item, lambda seconds: SHOWN_FRAMES)])}

    def _frames(self, item: object, count_for: Callable[[float], int], *, name: str = "") -> Iterator[DecodedImage]:
        return read_clip(
            item,
            count_for,
            background=self.picture.background,
            max_pixels=self.picture.max_pixels,
            least_size=self.picture.resized_size if self.picture.draft else None,
            name=name,
        )
