"""A compiled prefix: a batch of preprocessed items in, pooled features of every block out, from as many threads as wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headstart import runtime
from headstart.backbones.info import BackboneInfo
from headstart.errors import SettingError
from headstart.inference import open_session
from headstart.preprocess.recipe import Arrays, Preprocess, preprocess_from_json

if TYPE_CHECKING:
    import torch


# What the output at a cut is called among the features.
STATE = "(state)"


@dataclass(frozen=True, kw_only=True)
class BlockSlice:
    """Where a block's pooled output lies among the features."""

    name: str
    start: int
    width: int
    kinds: int = 1
    """Of numbers side by side in it, equally many of each: means and deviations are two."""

    @property
    def widths(self) -> tuple[int, ...]:
        """How many columns there are of each kind."""
        return (self.width // self.kinds,) * self.kinds


@dataclass(frozen=True, kw_only=True)
class PrefixSpec:
    """What a compiled prefix is: enough to use and to recognise it without torch."""

    info: BackboneInfo
    preprocess: Preprocess
    """With the weights' own geometry."""
    layout: tuple[BlockSlice, ...]
    """Every block, first to last; two blocks whose pooled outputs are equal share their place."""
    relative_error: float | None
    """Of the compiled network against torch on the check batch; None where torch itself is used."""
    why_torch: str = ""
    """Why the network is not compiled, where it is not."""
    cut: str = ""
    """The block it ends with, where that is not the last: the features then begin with the flattened output there, `STATE`."""
    state_shape: tuple[int, ...] = ()
    """Of the output at the cut, batch left out."""
    parts: tuple[PrefixSpec, ...] = ()
    """Of several networks used together, each one's own; their features lie side by side, in order."""

    @property
    def width(self) -> int:
        """Columns of the features: all blocks' together."""
        return max(part.start + part.width for part in self.layout)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each part's features begin; those of the whole, where it is of one network."""
        widths = [part.width for part in self.parts or (self,)]
        return tuple(sum(widths[:index]) for index in range(len(widths)))

    def runs(self, block: str) -> tuple[slice, ...]:
        """Where a block's features lie: one run of columns, or for 'last' of several networks one of each.

        Args:
            block: the name of a block; 'last' is the last one of each network, 'multi' all of them together.

        Raises:
            SettingError: if there is no such block.
        """
        if block != "last" or not self.parts:
            return (self.columns(block),)
        found = zip((part.columns(block) for part in self.parts), self.starts, strict=True)
        return tuple(slice(start + run.start, start + run.stop) for run, start in found)

    def columns(self, block: str) -> slice:
        """Where a block's features lie, in one network; `runs` also answers for several.

        Args:
            block: the name of a block; 'last' is the last one, 'multi' all of them together.

        Returns:
            The columns.

        Raises:
            SettingError: if there is no such block.
        """
        if block == "multi":
            return slice(0, self.width)
        assert block != "last" or not self.parts, "several networks have several last blocks: see runs"
        name = self.layout[-1].name if block == "last" else block
        for part in self.layout:
            if part.name == name:
                return slice(part.start, part.start + part.width)
        raise SettingError(
            f"backbone {self.info.name!r} has no block {block!r}.",
            expected=f"'last', 'multi' (all together), or one of {', '.join(part.name for part in self.layout)}.",
            mend="name one of these blocks.",
        )

    def widths(self, block: str) -> tuple[int, ...]:
        """Widths of the runs of columns that `columns(block)` is made of, for scaling each on its own."""
        if block == "multi":
            places = {part.start: part.widths for part in self.layout}
        else:
            known = {(part.start, part.start + part.width): part.widths for part in self.layout}
            places = {run.start: known[run.start, run.stop] for run in self.runs(block)}
        return tuple(width for start in sorted(places) for width in places[start])

    def network_widths(self, block: str) -> tuple[int, ...] | None:
        """How many of the columns are each network's, where they are of several; else None."""
        if not self.parts or block not in {"last", "multi"}:
            return None
        return tuple(sum(part.widths(block)) for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "info": self.info.as_json(),
            "preprocess": self.preprocess.as_json(),
            "layout": [asdict(part) for part in self.layout],
            "relative_error": self.relative_error,
            "why_torch": self.why_torch,
            "cut": self.cut,
            "state_shape": list(self.state_shape),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], read: Callable[[str], bytes]) -> PrefixSpec:
        """The inverse of `as_json`; other keys are left alone.

        Args:
            value: the values of one JSON object.
            read: gives the content of an asset of the preprocess by its name.
        """
        return cls(
            info=BackboneInfo.from_json(value["info"]),
            preprocess=preprocess_from_json(value["preprocess"], read),
            layout=tuple(BlockSlice(**part) for part in value["layout"]),
            relative_error=value["relative_error"],
            why_torch=value["why_torch"],
            cut=value["cut"],
            state_shape=tuple(value["state_shape"]),
        )


class Prefix(Protocol):
    """Anything that turns preprocessed batches into features."""

    spec: PrefixSpec
    num_workers: int
    """How many threads may call it at once to good effect."""
    batch_size: int
    """Items a call works best with."""
    precision: str
    """What it computes in: 'float32', 'bfloat16' or 'int8'; features of one are not the other's."""
    model_path: Path | None
    """The compiled network's file; None where it could not be compiled."""

    def __call__(self, batch: Arrays) -> np.ndarray:
        """Run the prefix: a batch as the preprocess collates it to (B, `spec.width`) float32."""
        ...


class OnnxPrefix:
    """A prefix on ONNX Runtime.

    Each call runs on the thread that makes it. Calls side by side, one for each core, outrun one call that splits every
    layer over the cores (measured with EfficientNet-lite0 on two cores: 195 against 135 to 174 images a second), and
    leave no gap in which a core waits for decoding. Sentences too go best four or eight at a time (MiniLM-L6, one core: 130
    texts of 27 tokens a second by 4 or 8, 95 by 64); of long texts see `batches.MOST_TOGETHER`.
    """

    batch_size = 8

    def __init__(self, spec: PrefixSpec, model_path: Path, *, precision: str = "float32") -> None:
        self.spec = spec
        self.precision = precision
        self.model_path: Path | None = model_path
        self.num_workers = runtime.num_cores()
        self._session = open_session(model_path, num_threads=1)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Run the prefix: a batch as the preprocess collates it to (B, `spec.width`) float32."""
        return self._session.run(["features"], {self.spec.preprocess.input_name: batch})[0]


class TorchPrefix:
    """A prefix run by torch itself: on an accelerator, and where a network cannot be compiled."""

    def __init__(self, spec: PrefixSpec, network: torch.nn.Module, *, device: str, model_path: Path | None) -> None:
        import torch

        self.spec = spec
        self.model_path = model_path
        self.num_workers = 1 if device == "cpu" else runtime.num_cores()
        self.batch_size = 32 if device == "cpu" else 128
        self.precision = "bfloat16" if device == "cuda" else "float32"
        self._torch = torch
        self._device = torch.device(device)
        self._network = network.to(self._device)
        # Not `network.to(memory_format=…)`: it fails on buffers of five axes, such as Swin's masks.
        for parameter in self._network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Run the prefix: a batch as the preprocess collates it to (B, `spec.width`) float32."""
        torch = self._torch
        inputs = torch.from_numpy(batch).to(self._device)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
            return self._network(inputs).float().cpu().numpy()
