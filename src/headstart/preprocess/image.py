"""Image items become network input: one frozen record is the whole recipe, saved with the model and used everywhere.

Flips and other views are no part of it: they are made of its output.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from PIL import Image

from headstart.errors import ArtifactError, SettingError
from headstart.preprocess.decode import DecodedImage, decode_image
from headstart.preprocess.geometry import resample_middle, resample_padded, size_by_longer_side, size_by_shorter_side
from headstart.preprocess.image_settings import check_settings
from headstart.preprocess.items import content_key, load_bytes
from headstart.preprocess.picture_copies import LEAST_ALIKE, PictureComparison
from headstart.preprocess.picture_findings import notice_pictures
from headstart.preprocess.pixels import example_pixels, normalise_pixels
from headstart.preprocess.recipe_json import MEND, expected_of, field_names
from headstart.preprocess.thumbnail import thumbnail_data_uri
from headstart.records import Finding, Modality

Geometry = Literal["crop", "pad", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

RULES = 1
"""Goes up when the same settings come to mean other pixels, so that nothing cached or saved is mistaken."""

GOLDEN_SIDE = 320
"""The longer side of a picture that is kept for the self-test."""
PIXEL_TOLERANCE = 2.0
"""Levels: another build of Pillow may round a pixel differently; a wrong geometry is off by tens."""

_CHOICES = {"geometry": get_args(Geometry), "interpolation": get_args(Interpolation)}
_RESAMPLING = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}


@dataclass(frozen=True, kw_only=True)
class ImagePreprocess:
    """From an image item to the input of one network.

    Raises:
        SettingError: if a value cannot work; all wrong values are told at once.
    """

    image_size: int = 224
    """S, height and width of the network's input in pixels, 1 to 4096."""
    geometry: Geometry = "crop"
    """How a picture becomes square: `crop` scales the shorter side to floor(S / crop_fraction) and takes the middle, as timm
    does; `pad` scales the longer side to S and fills up with `pad_color`; `squash` scales both sides to S."""
    interpolation: Interpolation = "bicubic"
    """Pillow's filter, wider when scaling down (antialiased)."""
    crop_fraction: float = 0.875
    """For `crop` only: the part of the shorter side that is kept, in (0, 1]."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel of pixels in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Each channel is divided by it then; above 0."""
    pad_color: tuple[int, int, int] = (124, 116, 104)
    """For `pad` only: 8-bit red, green, blue; the mean, by default, so that the network sees zeros."""
    background: tuple[int, int, int] = (255, 255, 255)
    """What shows through where a picture is transparent: 8-bit red, green, blue."""
    draft: bool = True
    """Whether a JPEG of at least twice the needed size is decoded at 1/2, 1/4 or 1/8, never below the needed size: up to
    three times as fast, and not the same pixels to the last bit. Arrays and PIL images are never scaled so."""
    max_pixels: int = 200_000_000
    """A file that declares more is refused before it is decoded."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        check_settings(dataclasses.asdict(self), _CHOICES)

    modality: ClassVar[Modality] = "image"
    input_name: ClassVar[str] = "pixels"
    assets: ClassVar[Mapping[str, bytes]] = {}
    fittings: ClassVar[tuple[str, ...]] = ("pad", "squash", "crop")
    fitting_question: ClassVar[str] = "image geometry"
    views: ClassVar[tuple[str, ...]] = ("flip",)
    copies_told_by: ClassVar[str] = f"cosine of features, and of pixels, ≥ {LEAST_ALIKE:g}"
    free_axes: ClassVar[Mapping[int, str]] = {0: "batch"}

    @property
    def fitting(self) -> str:
        """The geometry."""
        return self.geometry

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one network input."""
        return 3, self.image_size, self.image_size

    def as_json(self) -> dict[str, Any]:
        """Give the whole recipe as plain JSON values, `kind` and `rules` included; `from_json` reads it back."""
        return {"kind": "image", "rules": RULES} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @staticmethod
    def from_json(spec: Mapping[str, Any]) -> ImagePreprocess:
        """Read back what `as_json` gave, strictly: each setting once, none unknown.

        Args:
            spec: the values of one JSON object.

        Returns:
            The same recipe.

        Raises:
            ArtifactError: if it is no image preprocess, of newer rules, or has a missing, unknown or wrong setting.
        """
        names, expected = field_names(ImagePreprocess), expected_of(ImagePreprocess)
        if not isinstance(spec, Mapping) or spec.get("kind") != "image" or spec.get("rules") != RULES:
            seen = {key: spec.get(key) for key in ("kind", "rules")} if isinstance(spec, Mapping) else spec
            raise ArtifactError(f"this is no image preprocess of rules {RULES}: {seen!r}.", expected=expected, mend=MEND)
        settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
        settings.pop("kind"), settings.pop("rules")
        if set(settings) != names:
            wrong = ", ".join(sorted(map(str, set(settings) ^ names)))
            raise ArtifactError(f"the image preprocess has missing or unknown settings: {wrong}.", expected=expected, mend=MEND)
        try:
            return ImagePreprocess(**settings)
        except SettingError as problem:
            raise ArtifactError(problem.what, expected=problem.expected, mend=MEND) from problem

    def with_geometry(self, geometry: str) -> ImagePreprocess:
        """The same recipe with another way of becoming square.

        Args:
            geometry: crop, pad or squash.

        Raises:
            SettingError: if it is none of these.
        """
        return dataclasses.replace(self, geometry=geometry)  # type: ignore[arg-type]

    def indifferent(self, items: Sequence[object]) -> str:
        """Hardly any picture is square: ''."""
        return ""

    def with_fitting(self, fitting: str) -> ImagePreprocess:
        """As `with_geometry`."""
        return self.with_geometry(fitting)

    def fingerprint(self) -> str:
        """Name the recipe by its content: 64 hexadecimal digits, other for other pixels and the same in every process."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, str | int]:
        """The settings that a user may want to know."""
        return {"geometry": self.geometry, "image_size": self.image_size}

    def load(self, item: object, *, name: str = "") -> object:
        """Read a file once; see `items.load_bytes`."""
        return load_bytes(item, name=name)

    def digest(self, content: object, *, name: str = "") -> bytes:
        """Hash what an item holds; see `items.content_key`."""
        return content_key(content, name=name)

    def size(self, item: object) -> int:
        """All inputs are alike: 0."""
        return 0

    def prepare(self, item: object, *, name: str = "") -> np.ndarray:
        """As `pixels`."""
        return self.pixels(item, name=name)

    def collate(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Stack and normalise pixels: (B, 3, S, S) float32."""
        return self.normalise(np.stack(prepared))

    def example(self, count: int) -> np.ndarray:
        """Smooth pictures at several contrasts, which look more like photographs to a network than white noise does."""
        return example_pixels(count, self.image_size)

    def keep(self, item: object) -> bytes:
        """A picture of at most 320 pixels a side, losslessly, as PNG."""
        picture = self.decode(item)
        picture.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return stream.getvalue()

    def compare(self, prepared: np.ndarray, saved: np.ndarray) -> str:
        """Say by how many levels pixels differ, where they differ by more than rounding."""
        off = float(np.abs(prepared.astype(np.int16) - saved).mean()) if prepared.shape == saved.shape else float("inf")
        return f"other pixels here (mean difference {off:.1f} levels)" if off > PIXEL_TOLERANCE else ""

    def near_copies(self, items: Sequence[object]) -> None:
        """The features of pictures find candidates."""

    def pixel_comparison(self, items: Sequence[object]) -> PictureComparison:
        """What confirms that pictures close by their features have the same pixels."""
        return PictureComparison(items)

    def notice(self, items: Mapping[str, object]) -> list[Finding]:
        """Pictures without contrast, see `notice_pictures`."""
        return notice_pictures(items, lambda item: np.asarray(self.decode(item)))

    def illustrate(self, item: object) -> dict[str, str]:
        """A small picture, as `thumbnail`."""
        return {"thumbnail": thumbnail_data_uri(item)}

    def decode(self, item: object, *, name: str = "") -> Image.Image:
        """Decode an item to an upright RGB picture, smaller than it was saved if `draft` says so.

        Args:
            item: a path (`Path` or str), bytes, a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a PIL image.
            name: what to call the item in an error; by default the item itself.

        Returns:
            A PIL image of mode RGB.

        Raises:
            UnreadableItemError: if there is no whole picture in the item; `kind` says why.
        """
        return self._decode(item, name).image

    def pixels(self, item: object, *, name: str = "") -> np.ndarray:
        """Decode an item and bring it to the network's size.

        Args:
            item: as for `decode`.
            name: what to call the item in an error; by default the item itself.

        Returns:
            (S, S, 3) uint8, contiguous and the caller's own.

        Raises:
            UnreadableItemError: if there is no whole picture in the item; `kind` says why.
        """
        return self.fit(self._decode(item, name))

    def fit(self, decoded: DecodedImage) -> np.ndarray:
        """Bring a decoded picture to the network's size: (S, S, 3) uint8, contiguous and the caller's own."""
        size, resized = self.image_size, self.resized_size(*decoded.full_size)
        if self.geometry == "pad":
            return resample_padded(decoded, resized, size, _RESAMPLING[self.interpolation], self.pad_color)
        return resample_middle(decoded, resized, size, _RESAMPLING[self.interpolation])

    def normalise(self, batch: np.ndarray) -> np.ndarray:
        """Bring pixels to the range the network was trained on: (x / 255 - mean) / std.

        Args:
            batch: (B, H, W, 3) uint8; not modified.

        Returns:
            (B, 3, H, W) float32, contiguous.

        Raises:
            SettingError: if shape or type is another.
        """
        return normalise_pixels(batch, self.mean, self.std)

    def __call__(self, item: object, *, name: str = "") -> np.ndarray:
        """Make the network's input of one item.

        Args:
            item: as for `decode`.
            name: what to call the item in an error; by default the item itself.

        Returns:
            (3, S, S) float32.

        Raises:
            UnreadableItemError: if there is no whole picture in the item; `kind` says why.
        """
        return self.normalise(self.pixels(item, name=name)[None])[0]

    def _decode(self, item: object, name: str) -> DecodedImage:
        return decode_image(
            item,
            background=self.background,
            max_pixels=self.max_pixels,
            least_size=self.resized_size if self.draft else None,
            name=name,
        )

    def resized_size(self, wide: int, high: int) -> tuple[int, int]:
        """Width and height the full picture is scaled to, before anything is cropped or padded."""
        match self.geometry:
            case "squash":
                return self.image_size, self.image_size
            case "pad":
                return size_by_longer_side(wide, high, self.image_size)
            case _:
                return size_by_shorter_side(wide, high, math.floor(self.image_size / self.crop_fraction))
