"""Make the ONNX graphs of the bundled networks that the package contains: without weights, which come from their own packages.

    .venv/bin/python scripts/make_graphs.py [NAME ...]

Run it when an architecture, the pooled outputs or the exporter changes. Each graph is filled again as `fit` does it, and
compared with torch; the tests repeat that comparison.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from headstart.backbones.bundled import BUNDLED
from headstart.backbones.catalog import find_source, open_source
from headstart.backbones.cutting import Frozen
from headstart.backbones.mel_tables import fourier_kernels, hann
from headstart.backbones.parts import pooled_network
from headstart.backbones.source import BackboneSource
from headstart.backbones.weights_file import read_tensors
from headstart.backbones.word_weights import root_mean_square
from headstart.features.bundled_graphs import BundledGraph, fill_graph
from headstart.features.export import MAX_RELATIVE_ERROR, OPSET, layout_of, relative_error
from headstart.features.onnx_graph import without_unused_nodes

# Constants of more bytes are looked for among the weights.
LARGE = 4_096


def make(name: str) -> float:
    """Make one network's graph; gives its relative error against torch once it is filled."""
    source = find_source(name)
    backbone = open_source(source)
    pooled = pooled_network(backbone, "")
    network, preprocess, layout = Frozen(pooled), backbone.preprocess, layout_of(backbone, pooled)
    graph = BundledGraph(name=name)
    model = export(network, preprocess)
    own = own_names(model, network)
    tensors = describe(model, source)
    unused = sorted(set(own) - set(tensors))
    graph.graph_path.parent.mkdir(exist_ok=True)
    onnx.save(model, graph.graph_path)
    made: dict[str, Any] = {
        "info": backbone.info.as_json(),
        "preprocess": preprocess.as_json(),
        "layout": [vars(part) for part in layout],
        "relative_error": None,
        "tensors": tensors,
        "unused": unused,
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__},
    }
    graph.spec_path.write_text(json.dumps(made), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder, "filled.onnx")
        fill_graph(graph, source, filled, image_size=None)
        made["relative_error"] = relative_error(network, layout, preprocess, filled)
    graph.spec_path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return made["relative_error"]


def export(network: torch.nn.Module, preprocess: Any) -> onnx.ModelProto:  # noqa: ANN401 - of any modality
    """Export with every tensor under its name, and every size free."""
    axes = dict(preprocess.free_axes) | ({2: "height", 3: "width"} if preprocess.modality == "image" else {})
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.from_numpy(preprocess.example(2)),),
            written,
            dynamo=False,
            opset_version=OPSET,
            input_names=[preprocess.input_name],
            output_names=["features"],
            dynamic_axes={preprocess.input_name: axes, "features": {0: "batch"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    model = onnx.load_from_string(written.getvalue())
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute[0].t.raw_data) > LARGE:
            constant = node.attribute[0].t
            constant.name = node.output[0]
            model.graph.initializer.append(constant)
            node.output[0] = ""
        node.doc_string = ""
    return without_unused_nodes(model)


def own_names(model: onnx.ModelProto, network: torch.nn.Module) -> list[str]:
    """Rename the graph's tensors as the network itself names them; gives the names of all its tensors."""
    wrapped = list(network.state_dict())
    while wrapped and all(name.startswith("network.") for name in wrapped):
        wrapped = [name.removeprefix("network.") for name in wrapped]
    renamed = {}
    for initializer in model.graph.initializer:
        own = initializer.name
        while own.startswith("network.") and own not in wrapped:
            own = own.removeprefix("network.")
        renamed[initializer.name] = own
        initializer.name = own
    for node in model.graph.node:
        for place, given in enumerate(node.input):
            node.input[place] = renamed.get(given, given)
    return wrapped


def describe(model: onnx.ModelProto, source: BackboneSource) -> dict[str, dict[str, Any]]:
    """Take the weights out of a graph, noting where each is found again."""
    tensors: dict[str, dict[str, Any]] = {}
    files = {"": read_tensors(source.weights_path)} if source.weights_path else {}
    if source.weights_path and source.weights_path.suffix == ".onnx":
        beside = source.weights_path.with_name("melspectrogram.onnx")
        files[beside.name] = read_tensors(beside)
    used: set[tuple[str, str]] = set()
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        origin = find(value, files, used)
        if origin is None:
            if value.nbytes > LARGE:
                print(f"  kept in the graph: {initializer.name} {value.shape} {value.dtype}")
            continue
        tensors[initializer.name] = origin
        initializer.ClearField("raw_data")
    return tensors


def find(value: np.ndarray, files: dict[str, dict[str, np.ndarray]], used: set[tuple[str, str]]) -> dict[str, Any] | None:
    """Where a tensor comes from: a file's, two of a file's, or computed."""
    for file, found in files.items():
        names = [name for name in found if (file, name) not in used and found[name].size == value.size]
        for name in names:
            if np.array_equal(found[name].astype(value.dtype).ravel(), value.ravel()):
                used.add((file, name))
                return {"names": [name]} | ({"file": file} if file else {})
            scaled = found[name].astype(np.float32) / np.float32(root_mean_square(found[name].astype(np.float32)))
            if np.array_equal(scaled.astype(value.dtype).ravel(), value.ravel()):
                return {"names": [name], "unit_mean_square": True}
        halves = [name for name in found if found[name].ndim == 3 and 2 * found[name].size == value.size]
        if len(halves) == 2 and np.array_equal(np.concatenate([found[name] for name in halves]).ravel(), value.ravel()):
            return {"names": halves, "file": file}
    size = value.shape[-1] if value.ndim == 3 else 0
    if size and value.shape[:2] == (size + 2, 1):
        kernels = fourier_kernels(hann(size), size)[:, None].astype(np.float32)
        if np.array_equal(kernels, value):
            return {"fourier": size}
    return None


def main(names: list[str]) -> int:
    """Make the graphs of some bundled networks, or of all."""
    worst = 0.0
    for name in names or BUNDLED:
        error = make(name)
        graph = BundledGraph(name=name)
        size = graph.graph_path.stat().st_size + graph.spec_path.stat().st_size
        print(f"{name}: {size / 1000:.0f} kB, relative error {error:.1e}", flush=True)
        worst = max(worst, error)
    return int(worst > MAX_RELATIVE_ERROR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
