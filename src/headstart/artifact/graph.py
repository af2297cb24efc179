"""The one network an artifact holds: preprocessed item in, calibrated answer out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.artifact.clips import take_clips
from headstart.artifact.joining import join_networks
from headstart.heads.mlp import Head, dense_layers
from headstart.model.terms import TERMS_INPUT
from headstart.records import Task

OUTPUT = "answer"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How features become an answer."""

    width: int
    """W, of the prefixes' features together."""
    inputs: tuple[str, ...]
    """What the network's inputs are called: one for each prefix."""
    columns: tuple[slice, ...]
    """Which runs of those features the head takes, in order."""
    flips: bool
    """Whether the features of the mirrored picture are averaged in."""
    clips: bool = False
    """Whether the inputs are clips of frames, and the prefixes take pictures."""
    head: Head
    temperatures: np.ndarray
    """(K,) float64."""
    task: Task
    offset: float = 0.0
    """Added to the value in float64, which the answer then is; 0 for none."""
    with_terms: bool = False
    """Whether a second input is added to the head's output: what the terms of texts say."""


def assemble(prefix_paths: Sequence[Path], answer: Answer) -> bytes:
    """Put a head behind a compiled prefix, or behind several whose features lie side by side.

    Args:
        prefix_paths: the prefixes' ONNX files: `pixels` (B, 3, S, S), say, to `features` (B, W) of each.
        answer: the head and what stands around it.

    Returns:
        An ONNX model, the prefixes' inputs to `answer` (B, K) float32: probabilities that sum to 1 (single), one probability a
        label (multi), or the value (value), in float64 where there is an offset. With terms there is one more input,
        `terms_scores` (B, K) float32, already divided by the temperatures, that is added before the last activation.
    """
    networks = [take_clips(onnx.load(path)) if answer.clips else onnx.load(path) for path in prefix_paths]
    model = networks[0] if len(networks) == 1 else join_networks(networks, answer.inputs)
    graph = model.graph
    constants: dict[str, np.ndarray] = {}
    nodes = []
    features = "features"
    if answer.flips:
        before, after, constants = _averaging_flips(graph, answer)
        nodes += after
        features = "features.averaged"
        kept = list(graph.node)
        del graph.node[:]
        graph.node.extend([*before, *kept])
    last = {"single": "Softmax", "multi": "Sigmoid", "value": "Identity"}[answer.task]
    for steps, more in (_taking(features, answer.columns), _head(answer)):
        nodes += steps
        constants |= more
    given = "head.output"
    if answer.with_terms:
        given = "head.output.with_terms"
        graph.input.append(helper.make_tensor_value_info(TERMS_INPUT, TensorProto.FLOAT, ["batch", len(answer.temperatures)]))
        nodes.append(helper.make_node("Add", ["head.output", TERMS_INPUT], [given]))
    precise = bool(answer.offset)
    nodes.append(helper.make_node(last, [given], ["answer.float32" if precise else OUTPUT]))
    if precise:
        constants["answer.offset"] = np.array([answer.offset], np.float64)
        nodes.append(helper.make_node("Cast", ["answer.float32"], ["answer.float64"], to=TensorProto.DOUBLE))
        nodes.append(helper.make_node("Add", ["answer.float64", "answer.offset"], [OUTPUT]))
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items())
    del graph.output[:]
    kind = TensorProto.DOUBLE if precise else TensorProto.FLOAT
    graph.output.append(helper.make_tensor_value_info(OUTPUT, kind, ["batch", len(answer.temperatures)]))
    return model.SerializeToString()


def _taking(features: str, runs: Sequence[slice]) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """From the features to `head.input`: the runs of columns that the head takes."""
    constants, steps = {"columns.axis": np.array([1], np.int64)}, []
    taken = ["head.input"] if len(runs) == 1 else [f"head.input.{index}" for index in range(len(runs))]
    for name, run in zip(taken, runs, strict=True):
        bounds = [f"{name}.start", f"{name}.stop"]
        constants |= {bound: np.array([place], np.int64) for bound, place in zip(bounds, (run.start, run.stop), strict=True)}
        steps.append(helper.make_node("Slice", [features, *bounds, "columns.axis"], [name]))
    if len(runs) > 1:
        steps.append(helper.make_node("Concat", taken, ["head.input"], axis=1))
    return steps, constants


def _head(answer: Answer) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """From `head.input` to `head.output`, the temperatures folded into the last layer."""
    layers = dense_layers(answer.head)
    steps, constants, taken = [], {}, "head.input"
    for index, (weight, bias) in enumerate(layers):
        is_last = index == len(layers) - 1
        given = "head.output" if is_last else f"head.{index}.output"
        divisor = answer.temperatures if is_last else np.ones(len(bias))
        names = [f"head.{index}.weight", f"head.{index}.bias"]
        constants[names[0]] = (weight / divisor[:, None]).astype(np.float32)
        constants[names[1]] = (bias / divisor).astype(np.float32)
        steps.append(helper.make_node("Gemm", [taken, *names], [given], transB=1))
        if not is_last:
            taken = f"head.{index}.positive"
            steps.append(helper.make_node("Relu", [given], [taken]))
    return steps, constants


def _averaging_flips(
    graph: onnx.GraphProto, answer: Answer
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Steps that put the mirrored pictures or clips behind the others, and that average the two halves of the features."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in answer.inputs:
                node.input[position] = f"{name}.both"
    constants = {
        "flip.start": np.array([-1], np.int64),
        "flip.stop": np.array([np.iinfo(np.int64).min], np.int64),
        "flip.axis": np.array([-1], np.int64),
        "flip.step": np.array([-1], np.int64),
        "flip.shape": np.array([2, -1, answer.width], np.int64),
        "flip.views": np.array([0], np.int64),
    }
    how = ["flip.start", "flip.stop", "flip.axis", "flip.step"]
    before = []
    for name in answer.inputs:
        before.append(helper.make_node("Slice", [name, *how], [f"{name}.flipped"]))
        before.append(helper.make_node("Concat", [name, f"{name}.flipped"], [f"{name}.both"], axis=0))
    after = [
        helper.make_node("Reshape", ["features", "flip.shape"], ["features.views"]),
        helper.make_node("ReduceMean", ["features.views", "flip.views"], ["features.averaged"], keepdims=0),
    ]
    return before, after, constants
