"""The one network an artifact holds: preprocessed item in, calibrated answer out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.heads.mlp import Head, dense_layers
from headstart.model.terms import TERMS_INPUT
from headstart.records import Task

OUTPUT = "answer"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How features become an answer."""

    width: int
    """W, of the prefix's features."""
    columns: slice
    """Which of the prefix's features the head takes."""
    flips: bool
    """Whether the features of the mirrored picture are averaged in."""
    head: Head
    temperatures: np.ndarray
    """(K,) float64."""
    task: Task
    with_terms: bool = False
    """Whether a second input is added to the head's output: what the terms of texts say."""


def assemble(prefix_path: Path, answer: Answer) -> bytes:
    """Put a head behind a compiled prefix.

    Args:
        prefix_path: the prefix's ONNX file: `pixels` (B, 3, S, S) to `features` (B, W).
        answer: the head and what stands around it.

    Returns:
        An ONNX model, the prefix's input to `answer` (B, K) float32: probabilities that sum to 1 (single), one probability a
        label (multi), or the value (value). With terms there is a second input, `terms_scores` (B, K) float32, already
        divided by the temperatures, that is added before the last activation.
    """
    model = onnx.load(prefix_path)
    graph = model.graph
    constants = {
        "columns.start": np.array([answer.columns.start], np.int64),
        "columns.stop": np.array([answer.columns.stop], np.int64),
        "columns.axis": np.array([1], np.int64),
    }
    nodes = []
    features = "features"
    if answer.flips:
        before, after, more = _averaging_flips(graph, answer.width)
        constants |= more
        nodes += after
        features = "features.averaged"
        kept = list(graph.node)
        del graph.node[:]
        graph.node.extend([*before, *kept])
    last = {"single": "Softmax", "multi": "Sigmoid", "value": "Identity"}[answer.task]
    steps, weights = _head(answer)
    constants |= weights
    nodes += [
        helper.make_node("Slice", [features, "columns.start", "columns.stop", "columns.axis"], ["head.input"]),
        *steps,
    ]
    given = "head.output"
    if answer.with_terms:
        given = "head.output.with_terms"
        graph.input.append(helper.make_tensor_value_info(TERMS_INPUT, TensorProto.FLOAT, ["batch", len(answer.temperatures)]))
        nodes.append(helper.make_node("Add", ["head.output", TERMS_INPUT], [given]))
    nodes.append(helper.make_node(last, [given], [OUTPUT]))
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items())
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", len(answer.temperatures)]))
    onnx.checker.check_model(model)
    return model.SerializeToString()


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
    graph: onnx.GraphProto, width: int
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Steps that put the mirrored pictures behind the pictures, and that average the two halves of the features."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == "pixels":
                node.input[position] = "pixels.both"
    constants = {
        "flip.start": np.array([-1], np.int64),
        "flip.stop": np.array([np.iinfo(np.int64).min], np.int64),
        "flip.axis": np.array([3], np.int64),
        "flip.step": np.array([-1], np.int64),
        "flip.shape": np.array([2, -1, width], np.int64),
        "flip.views": np.array([0], np.int64),
    }
    before = [
        helper.make_node("Slice", ["pixels", "flip.start", "flip.stop", "flip.axis", "flip.step"], ["pixels.flipped"]),
        helper.make_node("Concat", ["pixels", "pixels.flipped"], ["pixels.both"], axis=0),
    ]
    after = [
        helper.make_node("Reshape", ["features", "flip.shape"], ["features.views"]),
        helper.make_node("ReduceMean", ["features.views", "flip.views"], ["features.averaged"], keepdims=0),
    ]
    return before, after, constants
