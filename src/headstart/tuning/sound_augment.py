"""Views of a sound that its label survives, for tuning: made of its windows, before any network.

Bands of frequency are silenced in the spectrum of the samples, since the network's input is samples whatever bands it makes of
them: SpecAugment's frequency mask (Park et al. 2019, arXiv 1904.08779), moved to where every backbone has it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from headstart.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class SoundAugmentation:
    """How far a view may stray from its sound; each number is the largest change, 0 for none.

    Raises:
        SettingError: if a number is beyond what a sound can be given.
    """

    gain: float = 6.0
    """Decibels either way."""
    noise: float = 0.03
    """Deviation of white noise, as a share of the sound's root mean square."""
    shift: float = 0.1
    """Share of a window by which its samples move, either way; what moves out at one end comes in at the other."""
    time_mask: float = 0.15
    """Share of a window that is silenced in one run."""
    frequency_mask: float = 0.1
    """Share of the frequencies that is silenced in one band."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse changes that no sound can be given."""
        limits = {"gain": 40.0, "noise": 1.0, "shift": 0.5, "time_mask": 0.9, "frequency_mask": 0.9}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise SettingError(
                    f"the augmentation's {name} is {value!r}.",
                    expected=f"a number from 0, for none, to {most:g}.",
                    mend=f"leave {name} out, or pass {name}=0.",
                )

    def view_names(self, num_views: int) -> tuple[str, ...]:
        """Names of the first views, which tell all that the views do.

        Args:
            num_views: K.

        Returns:
            K names.
        """
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]
        return tuple(f"sound {digest} {number}" for number in range(num_views))

    def __call__(self, windows: np.ndarray, digest: bytes, view: str) -> np.ndarray:
        """Make one view of one sound.

        Args:
            windows: (K, W) float32, NaN where there is no sound; not modified.
            digest: SHA-256 of the sound's content.
            view: one of `view_names`.

        Returns:
            (K, W) float32, NaN in the same places.
        """
        drawn = hashlib.sha256(digest + view.encode()).digest()
        random = np.random.default_rng(np.frombuffer(drawn, "<u4"))
        here = ~np.isnan(windows)
        # One shift for all, so that windows that overlap still do.
        share = random.uniform(-self.shift, self.shift)
        scale = 10 ** (random.uniform(-self.gain, self.gain) / 20)
        low = random.uniform(0, 1)
        wide = random.uniform(0, self.frequency_mask)
        loudness = float(np.sqrt(np.mean(np.square(windows[here], dtype=np.float64)))) if here.any() else 0.0
        noise = random.uniform(0, self.noise) * loudness
        view_of = np.full_like(windows, np.nan)
        for row, (window, heard) in enumerate(zip(windows, here, strict=True)):
            samples = window[heard].astype(np.float64)
            if len(samples):
                changed = _without_band(np.roll(samples, round(share * len(samples))), low, wide)
                changed += noise * random.standard_normal(len(samples))
                view_of[row, heard] = scale * _without_run(changed, random, self.time_mask)
        return view_of


def _without_band(samples: np.ndarray, low: float, wide: float) -> np.ndarray:
    """Silence the frequencies from `low` on, a share `wide` of all."""
    spectrum = np.fft.rfft(samples)
    first = round(low * (1 - wide) * len(spectrum))
    spectrum[first : first + round(wide * len(spectrum))] = 0
    return np.fft.irfft(spectrum, len(samples))


def _without_run(samples: np.ndarray, random: np.random.Generator, most: float) -> np.ndarray:
    """Silence one run of at most a share `most` of the samples."""
    length = round(random.uniform(0, most) * len(samples))
    first = int(random.integers(0, len(samples) - length + 1))
    samples[first : first + length] = 0
    return samples
