"""Turning a backbone into an ONNX graph that gives the pooled features of every block in one forward pass.

This runs in a process of its own (`python -m headstart.features.export`), so that the process that adapts and predicts
never loads torch, and the memory torch took is given back.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from headstart.backbones.catalog import find_source, of_modality, open_source
from headstart.backbones.cutting import Frozen
from headstart.backbones.parts import AnyBackbone, Pooled, pooled_network
from headstart.backbones.pooling import PooledBlocks
from headstart.backbones.sounds import PooledSounds
from headstart.backbones.texts import PooledTexts
from headstart.errors import HeadstartError
from headstart.features.compiled_folder import cannot_write, keep_compiled
from headstart.features.onnx_graph import fold_padding
from headstart.features.prefix import STATE, BlockSlice, PrefixSpec
from headstart.inference import open_session
from headstart.memory import is_out_of_memory, report_memory_errors
from headstart.operators import refused_in
from headstart.preprocess.recipe import Preprocess

# The largest difference from torch that a compiled network may show, relative to the largest feature of its block.
MAX_RELATIVE_ERROR = 1e-4
OPSET = 18


def export(backbone: AnyBackbone, model_path: Path, *, cut: str = "") -> PrefixSpec:
    """Compile a backbone, or the part of it up to a cut, and compare it with torch.

    Args:
        backbone: as `open_backbone` gives it.
        model_path: where the ONNX file goes; not written where the network cannot be compiled faithfully.
        cut: the last block of the part; '' for the whole.

    Returns:
        What was compiled; `why_torch` says why not, where it was not.

    Raises:
        BackboneError: if there is no such block, or the network cannot be cut.
    """
    pooled = pooled_network(backbone, cut)
    layout = layout_of(backbone, pooled)
    error, why = _export_checked(Frozen(pooled), layout, backbone.preprocess, model_path)
    if why:
        model_path.unlink(missing_ok=True)
    return PrefixSpec(
        info=backbone.info,
        preprocess=backbone.preprocess,
        layout=layout,
        relative_error=None if why else error,
        why_torch=why,
        cut=cut,
        state_shape=pooled.pooling.shapes[backbone.blocks.index(cut)] if cut else (),
    )


def layout_of(backbone: AnyBackbone, pooled: Pooled) -> tuple[BlockSlice, ...]:
    """Where each block's pooled output lies among the features.

    Args:
        backbone: open.
        pooled: the part of it that is compiled.
    """
    pooling = pooled.pooling
    kinds = pooling.kinds or (1,) * len(pooling.slices)
    places = [
        BlockSlice(name=name, start=start, width=width, kinds=count)
        for name, (start, width), count in zip(backbone.blocks, pooling.slices, kinds, strict=True)
    ]
    if isinstance(pooled, PooledBlocks | PooledTexts | PooledSounds):
        return tuple(places)
    behind = math.prod(pooling.shapes[backbone.blocks.index(pooled.cut)])
    state = BlockSlice(name=STATE, start=0, width=behind)
    return (state, *(replace(places[index], start=behind + places[index].start) for index in pooled.kept))


def _export_checked(
    network: nn.Module, layout: tuple[BlockSlice, ...], preprocess: Preprocess, model_path: Path
) -> tuple[float, str]:
    failures = []
    for exporter in (_export_torchscript, _export_dynamo):
        try:
            exporter(network, preprocess, model_path)
            if preprocess.modality == "image":
                onnx.save(fold_padding(onnx.load(model_path), np.zeros_like(preprocess.example(1))), model_path)
            error = relative_error(network, layout, preprocess, model_path)
        except Exception as problem:  # exporters fail in any way; torch is then used, and the user told
            if isinstance(problem, OSError) or is_out_of_memory(problem):
                raise  # a full disk says nothing of the network, and must not be remembered of it
            failures.append(f"{type(problem).__name__}: {str(problem).splitlines()[0][:160] if str(problem) else ''}")
            continue
        if refused := refused_in(model_path.read_bytes()):  # a saved model with it could not be opened
            failures.append(f"the exported network has {refused}")
            continue
        if error <= MAX_RELATIVE_ERROR:
            return error, ""
        failures.append(f"features differ from torch's by {error:.1e} relative, more than {MAX_RELATIVE_ERROR:.0e}")
    return float("nan"), "; ".join(failures)


def _export_torchscript(network: nn.Module, preprocess: Preprocess, path: Path) -> None:
    """The older exporter: a second where the newer takes ten, and after `fold_padding` the graphs run equally fast."""
    axes = {preprocess.input_name: dict(preprocess.free_axes), "features": {0: "batch"}}
    _write_onnx(network, preprocess, path, dynamo=False, dynamic_axes=axes)


def _export_dynamo(network: nn.Module, preprocess: Preprocess, path: Path) -> None:
    """The newer exporter, which manages networks that the older one does not."""
    free = ({axis: torch.export.Dim(name) for axis, name in preprocess.free_axes.items()},)
    _write_onnx(network, preprocess, path, dynamo=True, dynamic_shapes=free, external_data=False, verbose=False)


def _write_onnx(network: nn.Module, preprocess: Preprocess, path: Path, **how: Any) -> None:  # noqa: ANN401 - torch's options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how |= {"opset_version": OPSET, "input_names": [preprocess.input_name], "output_names": ["features"]}
        torch.onnx.export(network, (torch.from_numpy(preprocess.example(2)),), str(path), **how)


def relative_error(network: nn.Module, layout: tuple[BlockSlice, ...], preprocess: Preprocess, path: Path) -> float:
    """Compare a compiled network with torch on batches of several sizes.

    Args:
        network: as torch runs it.
        layout: of its features.
        preprocess: gives the batches.
        path: of the ONNX file.

    Returns:
        The largest difference, relative to the largest feature of its block.
    """
    session = open_session(path, num_threads=torch.get_num_threads())
    errors = []
    for batch in _batches(preprocess):
        with torch.no_grad():
            expected = network(torch.from_numpy(batch)).numpy()
        found = session.run(["features"], {preprocess.input_name: batch})[0]
        # The state of a shorter text is shorter, and what comes behind it stands further to the front.
        shift = expected.shape[1] - max(part.start + part.width for part in layout)
        for part in layout:
            columns = slice(part.start + shift if part.start else 0, part.start + part.width + shift)
            scale = float(np.abs(expected[:, columns]).max()) or 1.0
            errors.append(float(np.abs(found[:, columns] - expected[:, columns]).max()) / scale)
    return float(np.max(errors))  # not Python's own, which may pass over what is no number


def _batches(preprocess: Preprocess) -> list[np.ndarray]:
    """Batches on which a network is compared: of more items than it was exported with, of one, and of other lengths.

    A size that was frozen into the graph would show.
    """
    example = preprocess.example(3)
    if preprocess.modality == "image":
        return [example]
    if preprocess.modality == "audio":
        return [example, example[1:, :1], np.concatenate([example, example[:, :1]], axis=1)[:1]]
    window = example.shape[1] // 2
    return [example, example[1:, :window], example[:1, : window // 3], example[:, :5]]


def main(arguments: list[str]) -> int:
    """Compile what one JSON argument says.

    It has "name", "modality", "changes", "image_size", "cut", "folder" and "target".
    prefix.onnx and prefix.json are written to the folder, which then becomes the target in one step, whether or not the
    process that asked for it is still there; where it cannot, it stays where it is.
    """
    asked: dict[str, Any] = json.loads(arguments[0])
    folder = Path(asked["folder"])
    started = time.perf_counter()
    try:
        with report_memory_errors():
            source = of_modality(find_source(asked["name"]), asked["modality"])
            if asked["changes"]:
                source = source.with_changes(Path(asked["changes"]))
            backbone = open_source(source, image_size=asked["image_size"])
            spec = export(backbone, folder / "prefix.onnx", cut=asked["cut"])
    except (HeadstartError, OSError) as problem:
        error = cannot_write(folder.parent, problem) if isinstance(problem, OSError) else problem
        told = {"kind": type(error).__name__, "what": error.what, "expected": error.expected, "mend": error.mend}
        (folder / "error.json").write_text(json.dumps(told), encoding="utf-8")
        return 2
    versions = {"torch": torch.__version__, "onnx": onnx.__version__}
    keep_compiled(spec, folder, Path(asked["target"]), seconds=time.perf_counter() - started, versions=versions)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # All is written, and whoever waits need not wait for torch to be taken down: that takes more than a second.
    os._exit(status)
