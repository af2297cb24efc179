"""A saved model as one ONNX file for other programs: its network, and written into it all that must be known to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.artifact.store import difference
from headstart.heads.terms import TermsHead
from headstart.inference import open_session
from headstart.model.manifest import Manifest
from headstart.model.model import Model
from headstart.model.terms import TERMS_INPUT, VOCABULARY, pack_terms
from headstart.preprocess.fusion import FusedPreprocess, array_names, named_arrays
from headstart.preprocess.recipe import Preprocess
from headstart.preprocess.text import TOKENIZER

TERMS, VALUES = "terms", "terms_values"
PREFIX = "headstart."


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of the network."""

    name: str
    type: str
    """Of its numbers, as numpy calls it."""
    shape: tuple[str | int, ...]
    """A word for a size that is free."""
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Portable:
    """A network with all it takes, and how it was compared."""

    content: bytes
    """The ONNX file."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    num_compared: int
    """Items on which it was compared with the saved model."""
    apart: float
    """The largest difference of an answer, in units of the largest answer where that is above 1."""

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values, less the content."""
        ports = {"inputs": [asdict(port) for port in self.inputs], "outputs": [asdict(port) for port in self.outputs]}
        return {"bytes": len(self.content), **ports, "compared": {"items": self.num_compared, "apart": self.apart}}


def make_portable(model: Model, network: bytes, items: Sequence[Any]) -> Portable:
    """Put terms into the graph and what must be known into its metadata, and compare it with the model.

    Args:
        model: opened.
        network: its model.onnx.
        items: on which to compare; the model's golden ones.

    Returns:
        The network as a file.
    """
    made, meanings = onnx.load_from_string(network), _meanings(model.preprocess)
    if model.terms is not None:
        _take_in_terms(made.graph, model.terms)
    for name, value in _known(model).items():
        made.metadata_props.add(key=PREFIX + name, value=value)
    onnx.checker.check_model(made)
    content = made.SerializeToString()
    return Portable(
        content=content,
        inputs=tuple(_port(given, meanings[given.name]) for given in made.graph.input),
        outputs=tuple(_port(given, _meaning_of_answer(model.manifest)) for given in made.graph.output),
        num_compared=len(items),
        apart=_compare(model, content, items),
    )


def terms_of(head: TermsHead, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """The two inputs that say which terms texts have.

    Args:
        head: of the model.
        texts: B of them.

    Returns:
        `terms` (B, T) int64, numbers of the known terms, -1 where a text has fewer than T; `terms_values` (B, T) float32.
    """
    found = [_weigh(head, text) for text in texts]
    longest = max((len(columns) for columns, _ in found), default=0)
    terms = np.full((len(texts), longest), -1, np.int64)
    values = np.zeros((len(texts), longest), np.float32)
    for row, (columns, weights) in enumerate(found):
        terms[row, : len(columns)], values[row, : len(columns)] = columns, weights
    return {TERMS: terms, VALUES: values}


def _weigh(head: TermsHead, text: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [vocabulary.weigh(text) for vocabulary in head.vocabularies]
    starts = np.cumsum([0, *(len(vocabulary.terms) for vocabulary in head.vocabularies)])
    columns = [columns + start for (columns, _), start in zip(parts, starts[:-1], strict=True)]
    return np.concatenate(columns), np.concatenate([values for _, values in parts])


_MEANINGS = {
    "windows": "windows of sound, prepared as headstart.preprocess says; NaN behind a sound's last sample",
    "frames": "frames of clips, prepared as headstart.preprocess says; a picture is one frame; NaN behind a clip's last",
    "pixels": "pictures, prepared as headstart.preprocess says",
    "tokens": "numbers of tokens by headstart.tokenizer.json, with its special tokens; -1 behind the last token",
    TERMS: "numbers of the known terms of each text in headstart.terms.json, words first, then characters; -1 behind the last",
    VALUES: "of each: (1 + ln(times it occurs)) * rarity, divided by the length of its part's values as a vector",
}


def _meanings(preprocess: Preprocess) -> dict[str, str]:
    """What each input takes, by its name; of several networks, which one's recipe and tokenizer it is prepared by."""
    if not isinstance(preprocess, FusedPreprocess):
        return _MEANINGS
    told = dict(_MEANINGS)
    for number, name in enumerate(array_names(preprocess.input_name, preprocess), 1):
        meaning = _MEANINGS[preprocess.parts[number - 1].input_name].replace(TOKENIZER, f"{number}.{TOKENIZER}")
        told[name] = f"for {preprocess.names[number - 1]}, part {number} of headstart.preprocess: {meaning}"
    return told


def _meaning_of_answer(manifest: Manifest) -> str:
    match manifest.task:
        case "single":
            return "the probability of each of headstart.labels; they sum to 1"
        case "multi":
            return "the probability of each of headstart.labels, given from headstart.thresholds on"
        case _:
            return "the value"


def _known(model: Model) -> dict[str, str]:
    """What must be known beside the graph, by name."""
    manifest = model.manifest
    told: dict[str, Any] = {
        "version": manifest.headstart_version,
        "modality": manifest.modality,
        "task": manifest.task,
        "labels": list(manifest.labels),
        "thresholds": list(manifest.thresholds),
        "preprocess": manifest.preprocess,
        "backbone": manifest.backbone["name"],
        "licence": manifest.backbone["licence"],
    }
    known = {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in told.items()}
    known |= {name: content.decode() for name, content in model.preprocess.assets.items()}
    if model.terms is not None:
        rarity = [float(value) for vocabulary in model.terms.vocabularies for value in vocabulary.rarity]
        known[VOCABULARY] = json.dumps(json.loads(pack_terms(model.terms)[VOCABULARY]) | {"rarity": rarity}, ensure_ascii=False)
    return known


def _take_in_terms(graph: onnx.GraphProto, head: TermsHead) -> None:
    """Put what terms say in the place of the input that says it: a sum of rows of their weights."""
    num_outputs = len(head.bias)
    constants = {
        # The number -1 takes the last row.
        "terms.weight": np.concatenate([head.weight, np.zeros((1, num_outputs), np.float32)]),
        "terms.bias": head.bias,
        "terms.last": np.array([2], np.int64),
        "terms.axis": np.array([1], np.int64),
    }
    steps = [
        helper.make_node("Gather", ["terms.weight", TERMS], ["terms.rows"], axis=0),
        helper.make_node("Unsqueeze", [VALUES, "terms.last"], ["terms.values"]),
        helper.make_node("Mul", ["terms.rows", "terms.values"], ["terms.weighed"]),
        helper.make_node("ReduceSum", ["terms.weighed", "terms.axis"], ["terms.sum"], keepdims=0),
        helper.make_node("Add", ["terms.sum", "terms.bias"], [TERMS_INPUT]),
    ]
    nodes, inputs = list(graph.node), [given for given in graph.input if given.name != TERMS_INPUT]
    del graph.node[:], graph.input[:]
    graph.node.extend([*steps, *nodes])
    free = ["batch", "terms"]
    graph.input.extend(
        [
            *inputs,
            helper.make_tensor_value_info(TERMS, TensorProto.INT64, free),
            helper.make_tensor_value_info(VALUES, TensorProto.FLOAT, free),
        ]
    )
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items())


def _port(given: onnx.ValueInfoProto, meaning: str) -> Port:
    tensor = given.type.tensor_type
    return Port(
        name=given.name,
        type=str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
        shape=tuple(size.dim_param or size.dim_value for size in tensor.shape.dim),
        meaning=meaning,
    )


def _compare(model: Model, content: bytes, items: Sequence[Any]) -> float:
    """How far the file's answers are from the model's at most."""
    if not items:
        return 0.0
    session, preprocess = open_session(content, num_threads=1), model.preprocess
    batch = preprocess.collate([preprocess.prepare(item) for item in items])
    given = named_arrays(preprocess.input_name, preprocess, batch)
    if model.terms is not None:
        given |= terms_of(model.terms, [str(preprocess.load(item)) for item in items])
    ours, theirs = session.run(None, given)[0], model.run(batch, items)
    return difference(ours, theirs, theirs[0])
