"""Augmented views of training pictures: the same view of the same picture is the same pixels, always and everywhere.

Everything random is drawn from the content's digest, the view's number and the seed, so that views can be kept in the store,
made on several threads, and made again after a resume. They are made of Pillow's pictures, not of torch's tensors: those of one
picture gain nothing from several cores, and torch's threads, a group for each thread that loads, keep training's from working.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from headstart.errors import SettingError

# Told in every view's name, so that views which an earlier version made otherwise are not taken for these.
_MADE = "by Pillow"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a view may stray from its picture; each number is the largest change, 0 for none.

    Raises:
        SettingError: if a number is beyond what a picture can be given.
    """

    flip: bool = True
    """Mirrored left to right, half of the time."""
    rotate: float = 10.0
    """Degrees either way."""
    shear: float = 6.0
    """Degrees either way."""
    zoom: float = 0.1
    """Share by which the picture grows or shrinks."""
    crop: float = 0.2
    """Largest share of the area that a random resized crop leaves out."""
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    """Of the colour circle, at most 0.5."""
    fill: tuple[int, int, int] = (124, 116, 104)
    """Colour of what a turned picture leaves open."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse changes that no picture can be given."""
        limits = {"rotate": 180, "shear": 80, "zoom": 0.9, "crop": 0.95, "hue": 0.5}
        limits |= dict.fromkeys(("brightness", "contrast", "saturation"), 1)
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise SettingError(
                    f"the augmentation's {name} is {value!r}.",
                    expected=f"a number from 0, for none, to {most}.",
                    mend=f"leave {name} out, or pass {name}=0.",
                )

    def view_names(self, num_views: int) -> tuple[str, ...]:
        """Names of the first views, which tell all that the views do.

        Args:
            num_views: K.

        Returns:
            K names.
        """
        told = json.dumps({**asdict(self), "made": _MADE}, sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        return tuple(f"augmented {digest} {number}" for number in range(num_views))

    def __call__(self, pixels: np.ndarray, digest: bytes, view: str) -> np.ndarray:
        """Make one view of one picture.

        Args:
            pixels: (S, S, 3) uint8; not modified.
            digest: SHA-256 of the picture's content.
            view: one of `view_names`.

        Returns:
            (S, S, 3) uint8.
        """
        drawn = hashlib.sha256(digest + view.encode()).digest()
        random = np.random.default_rng(np.frombuffer(drawn, "<u4"))
        image = Image.fromarray(pixels)
        side = pixels.shape[0]
        if self.flip and random.random() < 0.5:
            image = functional.horizontal_flip(image)
        if self.crop:
            top, left, high, wide = self._box(random, side)
            image = functional.resized_crop(image, top, left, high, wide, [side, side], antialias=True)
        if self.rotate or self.shear or self.zoom:
            image = functional.affine(
                image,
                angle=float(random.uniform(-self.rotate, self.rotate)),
                translate=[0, 0],
                scale=float(random.uniform(1 - self.zoom, 1 + self.zoom)),
                shear=[float(random.uniform(-self.shear, self.shear)), 0.0],
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=list(self.fill),
            )
        image = functional.adjust_brightness(image, float(random.uniform(1 - self.brightness, 1 + self.brightness)))
        image = functional.adjust_contrast(image, float(random.uniform(1 - self.contrast, 1 + self.contrast)))
        image = functional.adjust_saturation(image, float(random.uniform(1 - self.saturation, 1 + self.saturation)))
        if self.hue:
            image = functional.adjust_hue(image, float(random.uniform(-self.hue, self.hue)))
        return np.array(image)

    def _box(self, random: np.random.Generator, side: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop of at least 1 - `crop` of the area, its sides at most 4 to 3."""
        area = random.uniform(1 - self.crop, 1.0) * side * side
        ratio = float(np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3))))
        high = min(side, max(1, round(float(np.sqrt(area / ratio)))))
        wide = min(side, max(1, round(float(np.sqrt(area * ratio)))))
        top, left = (int(random.integers(0, side - length + 1)) for length in (high, wide))
        return top, left, high, wide
