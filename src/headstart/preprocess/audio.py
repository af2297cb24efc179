"""Sounds become network input: one frozen record is the whole recipe, saved with the model and used everywhere.

A batch is one array of windows, (B, K, W), in which samples that are not there are NaN: behind the end of a sound shorter than
a window, and in whole windows where another sound of the batch has more. The network makes its mask of that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from headstart.errors import SettingError
from headstart.preprocess.items import UnreadableItemError, load_small
from headstart.preprocess.recipe_json import cannot_work, read_settings
from headstart.preprocess.sound_copies import LEAST_ALIKE, find_copies
from headstart.preprocess.sound_findings import notice_sounds
from headstart.preprocess.sound_items import open_sound, sound_key
from headstart.preprocess.sound_shown import as_wave_file, show_sound
from headstart.preprocess.waveform import check_full_scale
from headstart.preprocess.windows import cut_windows, place_windows, resample
from headstart.records import Finding, Modality

Fitting = Literal["spread", "head"]
Short = Literal["silence", "repeat"]

RULES = 1
"""Goes up when the same settings come to mean other samples, so that nothing cached or saved is mistaken."""
LEAST_LONGER = 0.05
"""Of the sounds, where it is worth asking what to do with longer ones."""
SIZE_OF_WINDOW = 100
"""What one window counts for, where sounds of like sizes share a batch."""
KEPT_WINDOWS = 2
"""Of a sound that is kept for the self-test."""
SAMPLE_TOLERANCE = 2e-3
"""Of full scale: another resampler or decoder may round otherwise; a wrong rate is off by tenths."""


@dataclass(frozen=True, kw_only=True)
class AudioPreprocess:
    """From a sound to the input of one network.

    Raises:
        SettingError: if a value cannot work.
    """

    rate_hz: int = 16_000
    """Samples a second that the network takes."""
    window: int = 16_000
    """W, samples in one window; at least 400."""
    max_windows: int = 32
    """Of one sound, at most; they overlap by half."""
    fitting: Fitting = "spread"
    """Of a sound with more windows: so many evenly over the whole, or the first."""
    short: Short = "silence"
    """What stands behind the end of a sound that is shorter than a window: nothing, which the network takes for silence and
    leaves out of its means; or the sound itself, over and over, for networks whose answer is that at the window's end."""
    least_dbfs: float | None = None
    """A sound whose root mean square is below this (0 is full scale) is made that loud; None leaves loudness alone."""

    modality: ClassVar[Modality] = "audio"
    input_name: ClassVar[str] = "windows"
    assets: ClassVar[Mapping[str, bytes]] = {}
    fittings: ClassVar[tuple[str, ...]] = get_args(Fitting)
    fitting_question: ClassVar[str] = "long sounds"
    views: ClassVar[tuple[str, ...]] = ()
    free_axes: ClassVar[Mapping[int, str]] = {0: "batch", 1: "windows"}
    copies_told_by: ClassVar[str] = f"how their bands rise and fall, alike by {LEAST_ALIKE:.0%} or more"

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        known = (
            self.fitting in self.fittings
            and self.short in get_args(Short)
            and (self.least_dbfs is None or -120 <= self.least_dbfs <= 0)
        )
        if not known or not 1_000 <= self.rate_hz <= 192_000 or self.window < 400 or self.max_windows < 1:
            raise SettingError(
                f"sounds cannot be fitted by {self.fitting!r}, {self.rate_hz} Hz, windows of {self.window} samples, "
                f"{self.max_windows} of them, short ones by {self.short!r}, at least {self.least_dbfs} dBFS.",
                expected=f"one of {', '.join(self.fittings)}; silence or repeat; 1,000 to 192,000 Hz; windows of at least 400 "
                "samples, at least 1 of them; -120 to 0 dBFS.",
                mend="correct the setting; --geometry auto asks the data.",
            )

    def as_json(self) -> dict[str, Any]:
        """Give the whole recipe as plain JSON values, `kind` and `rules` included; `from_json` reads it back."""
        return {"kind": "audio", "rules": RULES} | dataclasses.asdict(self)

    @staticmethod
    def from_json(spec: Mapping[str, Any]) -> AudioPreprocess:
        """Read back what `as_json` gave, strictly: each setting once, none unknown.

        Args:
            spec: the values of one JSON object.

        Returns:
            The same recipe.

        Raises:
            ArtifactError: if it is of other rules, or has a missing, unknown or wrong setting.
        """
        settings = read_settings(spec, AudioPreprocess, kind="audio", rules=RULES)
        try:
            return AudioPreprocess(**settings)
        except (SettingError, TypeError) as problem:
            raise cannot_work(AudioPreprocess, "audio", problem) from problem

    def with_fitting(self, fitting: str) -> AudioPreprocess:
        """The same recipe with another way of reading long sounds.

        Args:
            fitting: spread or head.

        Raises:
            SettingError: if it is neither.
        """
        return dataclasses.replace(self, fitting=fitting)  # type: ignore[arg-type]

    def indifferent(self, items: Sequence[object]) -> str:
        """Whether too few of some sounds have more windows than are read for it to matter which.

        Args:
            items: readable or not.

        Returns:
            Why it does not matter, or ''.
        """
        seconds = (self.max_windows + 1) * self.window / 2 / self.rate_hz
        longer = sum(self._seconds(item) > seconds for item in items)
        if longer >= LEAST_LONGER * len(items):
            return ""
        return f"{longer} of {len(items)} sounds looked at are longer than the {seconds:.3g} seconds that are read"

    def _seconds(self, item: object) -> float:
        try:
            with open_sound(item) as sound:
                return sound.num_frames / sound.rate_hz
        except UnreadableItemError:
            return 0.0

    def fingerprint(self) -> str:
        """Name the recipe by its content: 64 hexadecimal digits, the same in every process."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, str | int]:
        """The settings that a user may want to know."""
        return {"fitting": self.fitting, "rate_hz": self.rate_hz, "window": self.window, "max_windows": self.max_windows}

    def load(self, item: object, *, name: str = "") -> object:
        """Read a small file once; see `items.load_small`."""
        return load_small(item, name=name)

    def digest(self, content: object, *, name: str = "") -> bytes:
        """Hash what an item holds; see `sound_items.sound_key`."""
        return sound_key(content, name=name)

    def size(self, item: object) -> int:
        """A hundred for each window of a sound."""
        length = round(self._seconds(item) * self.rate_hz)
        return SIZE_OF_WINDOW * len(place_windows(length, self.window, self.max_windows, spread=True))

    def prepare(self, item: object, *, name: str = "") -> np.ndarray:
        """Cut a sound into windows.

        Args:
            item: a path, bytes of a file, a pair (samples, rate in Hz), or {"array", "sampling_rate"}.
            name: what to call the item in an error; by default the item itself.

        Returns:
            (K, W) float32, mono, full scale is 1; NaN behind the end of a sound shorter than a window.

        Raises:
            UnreadableItemError: if it is no sound, holds none, or is damaged.
        """
        with open_sound(item, name=name) as sound:
            windows = cut_windows(sound, self.rate_hz, self.window, self.max_windows, spread=self.fitting == "spread")
        check_full_scale(windows, item, name)
        if self.short == "repeat" and np.isnan(windows[0, -1]):
            heard = windows[0, ~np.isnan(windows[0])]
            windows = np.resize(heard, windows.shape)
        return windows if self.least_dbfs is None else _at_least(windows, self.least_dbfs)

    def collate(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Put sounds side by side: (B, K, W) float32, with windows of NaN behind those of fewer windows."""
        batch = np.full((len(prepared), max(len(windows) for windows in prepared), self.window), np.nan, np.float32)
        for row, windows in zip(batch, prepared, strict=True):
            row[: len(windows)] = windows
        return batch

    def example(self, count: int) -> np.ndarray:
        """Tones in noise: two windows of the first sound, one of each other, the last one half a window long."""
        random = np.random.default_rng(0)
        batch = random.normal(0.0, 0.03, (count, 2, self.window))
        seconds = np.arange(self.window) / self.rate_hz
        for row, windows in enumerate(batch):
            for pitch in (180.0, 420.0, 1_300.0):
                windows += 0.06 * np.sin(2 * np.pi * pitch * (1 + 0.2 * row) * seconds) * (1 + np.sin(9.0 * seconds))
        batch[1:, 1] = np.nan
        if count > 1:
            batch[-1, 0, self.window // 2 :] = np.nan
        return batch.astype(np.float32)

    def keep(self, item: object) -> bytes:
        """The beginning of a sound, at most two windows, as a WAV file of 16 bits at the network's rate."""
        with open_sound(item) as sound:
            stop = min(sound.num_frames, -(-KEPT_WINDOWS * self.window * sound.rate_hz // self.rate_hz))
            samples = resample(sound.stretches([(0, stop)])[0], sound.rate_hz, self.rate_hz)
        return as_wave_file(samples, self.rate_hz)

    def compare(self, prepared: np.ndarray, saved: np.ndarray) -> str:
        """Say by how much samples differ, where by more than another library's rounding."""
        if prepared.shape != saved.shape or not np.array_equal(np.isnan(prepared), np.isnan(saved)):
            return f"windows of another shape here: {prepared.shape}, {saved.shape} when it was saved"
        difference = float(np.nanmax(np.abs(prepared - saved), initial=0.0))
        return f"samples differ by up to {difference:.3g}" if difference > SAMPLE_TOLERANCE else ""

    def near_copies(self, items: Sequence[object]) -> list[tuple[int, int]]:
        """Pairs of sounds that are of one recording; see `sound_copies`."""
        return find_copies(items)

    def pixel_comparison(self, items: Sequence[object]) -> None:
        """`near_copies` compares the items themselves."""

    def notice(self, items: Mapping[str, object]) -> list[Finding]:
        """Say which of some sounds are silent, clipped, very short, or longer than is read.

        Args:
            items: by id; all can be read.
        """
        seconds = (self.max_windows + 1) * self.window / 2 / self.rate_hz
        return notice_sounds(items, most_seconds=seconds, fitting=self.fitting)

    def illustrate(self, item: object) -> dict[str, str]:
        """Some seconds to hear, as `sound`, and their waveform, as `thumbnail`: data URIs both."""
        return show_sound(item)


def _at_least(windows: np.ndarray, dbfs: float) -> np.ndarray:
    """Make windows (K, W) louder, as one, where their root mean square is below a level; silence stays silence."""
    loudness = float(np.sqrt(np.nanmean(np.square(windows, dtype=np.float64))))
    wanted = 10 ** (dbfs / 20)
    return windows * np.float32(wanted / loudness) if 0 < loudness < wanted else windows
