"""Bundled networks compiled without torch.

For each bundled network this package contains the ONNX graph without its weights (`graphs/NAME.onnx`) and what the compiled
prefix is (`graphs/NAME.json`); `scripts/make_graphs.py` makes both from the architecture. The weights come from their own
package, by name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones.bundled import bundled_name
from headstart.backbones.info import BackboneInfo
from headstart.backbones.mel_tables import fourier_kernels, hann
from headstart.backbones.source import BackboneSource, check_base, tuned_sha256
from headstart.backbones.weights_file import read_tensors
from headstart.backbones.word_weights import root_mean_square
from headstart.errors import BackboneError
from headstart.features.prefix import BlockSlice, PrefixSpec
from headstart.preprocess.recipe import preprocess_from_json

GRAPHS = Path(__file__).with_name("graphs")


@dataclass(frozen=True, kw_only=True)
class BundledGraph:
    """The two files of one bundled network."""

    name: str

    @property
    def graph_path(self) -> Path:
        """The graph without weights."""
        return GRAPHS / f"{self.name}.onnx"

    @property
    def spec_path(self) -> Path:
        """What the compiled prefix is, and which tensor of the weights belongs where."""
        return GRAPHS / f"{self.name}.json"

    @property
    def sha256(self) -> str:
        """Of both files."""
        return hashlib.sha256(self.graph_path.read_bytes() + self.spec_path.read_bytes()).hexdigest()


def bundled_graph(source: BackboneSource, cut: str = "") -> BundledGraph | None:
    """The graph of a bundled network, as it is published or tuned.

    Args:
        source: as `backbones.locate` gives it.
        cut: the block that the compiled part ends with; '' for the last one.

    Returns:
        Its graph; None where only torch can compile it: for other networks, random weights, and parts of a network.
    """
    if source.kind != "bundled" or cut:
        return None
    graph = BundledGraph(name=bundled_name(source.architecture))
    return graph if graph.spec_path.is_file() else None


def fill_graph(graph: BundledGraph, source: BackboneSource, model_path: Path, *, image_size: int | None) -> PrefixSpec:
    """Write a bundled network's compiled prefix.

    Args:
        graph: of the network.
        source: where its weights are, and what tuning changed of them.
        model_path: where the ONNX file goes.
        image_size: side in pixels of the square input, or None for the weights' own.

    Returns:
        What was written.

    Raises:
        BackboneError: if the weights, or what tuning changed of them, do not fit.
    """
    import onnx

    from headstart.features.onnx_graph import fold_constant_transposes, fold_padding

    check_base(source, source.sha256)
    made = json.loads(graph.spec_path.read_text(encoding="utf-8"))
    spec = _spec(made, source, image_size)
    model = onnx.load_from_string(graph.graph_path.read_bytes())
    _fill(model, made["tensors"], made["unused"], source)
    if spec.preprocess.modality == "image":
        sample = np.zeros_like(spec.preprocess.example(1))
        for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sample.shape, strict=True):
            if axis.dim_param != "batch":
                axis.dim_value = size
        model = fold_padding(model, sample)
    onnx.save(fold_constant_transposes(model), model_path)
    return spec


def _spec(made: dict[str, Any], source: BackboneSource, image_size: int | None) -> PrefixSpec:
    assets = _assets(source)
    preprocess = dict(made["preprocess"])
    if "image_size" in preprocess and image_size:
        preprocess["image_size"] = image_size
    if "tokenizer_sha256" in preprocess:
        # Libraries write the same tokenizer in several ways; the recipe names the one that is used.
        preprocess["tokenizer_sha256"] = hashlib.sha256(next(iter(assets.values()))).hexdigest()
    info = BackboneInfo.from_json(made["info"])
    checksum = source.sha256 or info.sha256  # a network without weights has one of its settings
    return PrefixSpec(
        info=replace(
            info,
            name=source.name,
            base=source.base,
            source=source.origin(info.source),
            sha256=tuned_sha256(checksum, source),
            base_sha256=checksum,
        ),
        preprocess=preprocess_from_json(preprocess, assets.__getitem__),
        layout=tuple(BlockSlice(**part) for part in made["layout"]),
        relative_error=made["relative_error"],
    )


def _assets(source: BackboneSource) -> dict[str, bytes]:
    """What the preprocess has beside its settings: of texts the tokenizer."""
    if source.modality != "text":
        return {}
    from headstart.backbones.word_tokens import bundled_tokenizer
    from headstart.preprocess.text import TOKENIZER

    return {TOKENIZER: bundled_tokenizer(source).encode()}


def _fill(model: Any, tensors: dict[str, Any], unused: list[str], source: BackboneSource) -> None:  # noqa: ANN401 - of onnx
    """Put the weights into a graph, in place."""
    from onnx import helper

    weights = _Weights(source)
    changes = _read(source.changes_path, source) if source.changes_path else {}
    if wrong := sorted(set(changes) - set(tensors) - set(unused)):
        raise _wrong(source, wrong)
    for initializer in model.graph.initializer:
        if initializer.name not in tensors:  # a constant of the graph itself
            continue
        value = changes.get(initializer.name)
        if value is None:
            value = weights.tensor(tensors[initializer.name])
        elif value.shape != tuple(initializer.dims):
            raise _wrong(source, [initializer.name])
        if value.size != np.prod(initializer.dims, dtype=np.int64):
            raise _wrong(source, [initializer.name])
        dtype = helper.tensor_dtype_to_np_dtype(initializer.data_type)
        initializer.raw_data = np.ascontiguousarray(value, dtype).tobytes()


class _Weights:
    """The files of a network's weights, each read once."""

    def __init__(self, source: BackboneSource) -> None:
        self._source = source
        self._files: dict[Path, dict[str, np.ndarray]] = {}

    def tensor(self, origin: dict[str, Any]) -> np.ndarray:
        """The tensor that an entry of `tensors` describes.

        Args:
            origin: 'fourier', the length of a windowed Fourier transform; or 'names' of tensors, put one behind the other;
                'file' where they are in another file beside the weights, 'unit_mean_square' where they are scaled.
        """
        if "fourier" in origin:
            size = origin["fourier"]
            return fourier_kernels(hann(size), size)
        path = self._source.weights_path
        assert path is not None, "a bundled network with tensors of a file has that file"
        path = path.with_name(origin.get("file", path.name))
        if path not in self._files:
            self._files[path] = _read(path, self._source)
        if missing := [name for name in origin["names"] if name not in self._files[path]]:
            raise _wrong(self._source, missing)
        parts = [self._files[path][name] for name in origin["names"]]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if origin.get("unit_mean_square"):
            whole = whole.astype(np.float32)
            whole /= np.float32(root_mean_square(whole))
        return whole


def _read(path: Path, source: BackboneSource) -> dict[str, np.ndarray]:
    try:
        return read_tensors(path)
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"the weights of {source.name!r} in {path} cannot be read: {error}.",
            expected="the file as its package, or `headstart fit`, wrote it.",
            mend="copy or install it again.",
        ) from error


def _wrong(source: BackboneSource, names: list[str]) -> BackboneError:
    return BackboneError(
        f"the weights of {source.name!r} do not fit {source.architecture}: {len(names)} tensors, first {names[0]!r}.",
        expected="tensors named and shaped as the network's own.",
        mend="use the backbone that was tuned; copy or install its files again.",
    )
