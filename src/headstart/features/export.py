"""Turning a backbone into an ONNX graph that gives the pooled features of every block in one forward pass.

This runs in a process of its own (`python -m headstart.features.export`), so that the process that adapts and predicts
never loads torch, and the memory torch took is given back.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from headstart.backbones import open_backbone
from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Frozen
from headstart.backbones.flow import channel_axes
from headstart.errors import HeadstartError
from headstart.features.onnx_graph import fold_padding
from headstart.features.prefix import BlockSlice, PrefixSpec
from headstart.inference import open_session

# The largest difference from torch that a compiled network may show, relative to the largest feature of its block.
MAX_RELATIVE_ERROR = 1e-4
OPSET = 18


class PooledBlocks(nn.Module):
    """A backbone giving the mean over positions of every block's output, side by side: (B, 3, H, W) to (B, width)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = backbone.tapped()
        side = backbone.preprocess.image_size
        with torch.no_grad():
            outputs = self.network(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1)
        self.axes = channel_axes([tuple(output.shape[1:]) for output in outputs])
        vectors = [pool(output, axis) for output, axis in zip(outputs, self.axes, strict=True)]
        self.kept: list[int] = []
        slices: list[tuple[int, int]] = []
        for index, vector in enumerate(vectors):
            # A last map and its own pooling are the same features: keep the network's own pooling.
            following = vectors[index + 1] if index + 1 < len(vectors) else None
            if following is not None and following.shape == vector.shape and torch.allclose(following, vector, atol=1e-5):
                slices.append((-1, vector.shape[1]))
                continue
            start = sum(vectors[kept].shape[1] for kept in self.kept)
            self.kept.append(index)
            slices.append((start, vector.shape[1]))
            slices = [(start, width) if place == -1 else (place, width) for place, width in slices]
        self.layout = tuple(
            BlockSlice(name=name, start=start, width=width)
            for name, (start, width) in zip(backbone.blocks, slices, strict=True)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the network once."""
        outputs = self.network(pixels)
        return torch.cat([pool(outputs[index], self.axes[index]) for index in self.kept], dim=1)


def pool(output: torch.Tensor, channel_axis: int) -> torch.Tensor:
    """Mean over all positions of a block's output: maps, sequences and vectors become (B, C).

    Args:
        output: of a block, batch first.
        channel_axis: which axis holds the channels, batch left out.
    """
    positions = [axis for axis in range(1, output.ndim) if axis != 1 + channel_axis]
    return output.mean(positions) if positions else output


def export(backbone: Backbone, model_path: Path) -> PrefixSpec:
    """Compile a backbone and compare it with torch.

    Args:
        backbone: as `open_backbone` gives it.
        model_path: where the ONNX file goes; not written where the network cannot be compiled faithfully.

    Returns:
        What was compiled; `why_torch` says why not, where it was not.
    """
    pooled = PooledBlocks(backbone)
    network, layout = Frozen(pooled), pooled.layout
    side = backbone.preprocess.image_size
    error, why = _export_checked(network, layout, side, model_path)
    if why:
        model_path.unlink(missing_ok=True)
    return PrefixSpec(
        info=backbone.info, preprocess=backbone.preprocess, layout=layout, relative_error=None if why else error, why_torch=why
    )


def _export_checked(network: nn.Module, layout: tuple[BlockSlice, ...], side: int, model_path: Path) -> tuple[float, str]:
    failures = []
    for exporter in (_export_torchscript, _export_dynamo):
        try:
            exporter(network, torch.zeros(2, 3, side, side), model_path)
            sample = np.zeros((1, 3, side, side), np.float32)
            onnx.save(fold_padding(onnx.load(model_path), sample), model_path)
            error = _relative_error(network, layout, side, model_path)
        except (OSError, MemoryError):
            raise  # a full disk says nothing of the network, and must not be remembered of it
        except Exception as problem:  # noqa: BLE001 - exporters fail in any way; torch is then used, and the user told
            failures.append(f"{type(problem).__name__}: {str(problem).splitlines()[0][:160] if str(problem) else ''}")
            continue
        if error <= MAX_RELATIVE_ERROR:
            return error, ""
        failures.append(f"features differ from torch's by {error:.1e} relative, more than {MAX_RELATIVE_ERROR:.0e}")
    return float("nan"), "; ".join(failures)


def _export_torchscript(network: nn.Module, sample: torch.Tensor, path: Path) -> None:
    """The older exporter: a second where the newer takes ten, and after `fold_padding` the graphs run equally fast."""
    _write_onnx(network, sample, path, dynamo=False, dynamic_axes={"pixels": {0: "batch"}, "features": {0: "batch"}})


def _export_dynamo(network: nn.Module, sample: torch.Tensor, path: Path) -> None:
    """The newer exporter, which manages networks that the older one does not."""
    batch = ({0: torch.export.Dim("batch")},)
    _write_onnx(network, sample, path, dynamo=True, dynamic_shapes=batch, external_data=False, verbose=False)


def _write_onnx(network: nn.Module, sample: torch.Tensor, path: Path, **how: Any) -> None:  # noqa: ANN401 - torch's options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how |= {"opset_version": OPSET, "input_names": ["pixels"], "output_names": ["features"]}
        torch.onnx.export(network, (sample,), str(path), **how)


def _relative_error(network: nn.Module, layout: tuple[BlockSlice, ...], side: int, path: Path) -> float:
    session = open_session(path, num_threads=torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    # Smooth pictures at several contrasts look more like photographs to a network than white noise does; three at once,
    # because a batch size frozen into the graph would show.
    coarse = torch.randn(3, 3, 8, 8, generator=generator) * torch.tensor([0.3, 1.0, 2.0]).view(3, 1, 1, 1)
    pixels = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").clamp(-2.5, 2.5)
    with torch.no_grad():
        expected = network(pixels).numpy()
    found = session.run(["features"], {"pixels": pixels.numpy()})[0]
    errors = []
    for part in layout:
        columns = slice(part.start, part.start + part.width)
        scale = float(np.abs(expected[:, columns]).max()) or 1.0
        errors.append(float(np.abs(found[:, columns] - expected[:, columns]).max()) / scale)
    return max(errors)


def main(arguments: list[str]) -> int:
    """Compile what one JSON argument says: {"name", "image_size", "folder", "target"}.

    prefix.onnx and prefix.json are written to the folder, which then becomes the target in one step, whether or not the
    process that asked for it is still there; where it cannot, it stays where it is.
    """
    asked: dict[str, Any] = json.loads(arguments[0])
    folder = Path(asked["folder"])
    started = time.perf_counter()
    try:
        spec = export(open_backbone(asked["name"], image_size=asked["image_size"]), folder / "prefix.onnx")
    except HeadstartError as error:
        told = {"kind": type(error).__name__, "what": error.what, "expected": error.expected, "mend": error.mend}
        (folder / "error.json").write_text(json.dumps(told), encoding="utf-8")
        return 2
    except OSError as error:
        told = {
            "kind": "CacheError",
            "what": f"the compiled network cannot be written to {folder.parent}: {error.strerror or error}.",
            "expected": "a folder that can be written, with about 100 MB free.",
            "mend": "free some space, or name another folder for the cache: HEADSTART_CACHE=FOLDER.",
        }
        (folder / "error.json").write_text(json.dumps(told), encoding="utf-8")
        return 2
    versions = {"torch": torch.__version__, "onnx": onnx.__version__}
    written = spec.as_json() | {"seconds": round(time.perf_counter() - started, 2), "versions": versions}
    written["bytes"] = 0 if spec.why_torch else (folder / "prefix.onnx").stat().st_size
    (folder / "prefix.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    _move(folder, Path(asked["target"]))
    return 0


def _move(folder: Path, target: Path) -> None:
    if folder.parent != target.parent:
        return
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)  # another process was first, and its result is as good


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # All is written, and whoever waits need not wait for torch to be taken down: that takes more than a second.
    os._exit(status)
