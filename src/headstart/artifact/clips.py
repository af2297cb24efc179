"""A compiled network of pictures as one of clips: the frames that are there go through it, and their features are averaged."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.artifact.joining import BATCH

FRAMES = "frames"


def take_clips(network: onnx.ModelProto) -> onnx.ModelProto:
    """Let a network take clips.

    Args:
        network: from its one input (N, 3, S, S) to `features` (N, W); changed.

    Returns:
        It, from `frames` (B, F, 3, S, S), NaN where a clip has no more frames, to `features` (B, W): each clip's mean.
    """
    graph = network.graph
    pixels = graph.input[0]
    sides = [size.dim_value for size in pixels.type.tensor_type.shape.dim][1:]
    for node in graph.node:
        node.output[:] = [_PER_FRAME if name == "features" else name for name in node.output]
        node.input[:] = [_PER_FRAME if name == "features" else name for name in node.input]
    constants = {
        "clip.picture": np.array([-1, *sides], np.int64),
        "clip.flat": np.array([-1, int(np.prod(sides))], np.int64),
        "clip.zero": np.array([0], np.int64),
        "clip.one": np.array([1], np.int64),
        "clip.two": np.array([2], np.int64),
        "clip.rest": np.array([-1], np.int64),
    }
    nodes = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*_before(pixels.name), *nodes, *_after()])
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.input.append(helper.make_tensor_value_info(FRAMES, TensorProto.FLOAT, [BATCH, FRAMES, *sides]))
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, [BATCH, None]))
    del graph.value_info[:]  # noted shapes say 'batch' where there are frames now
    return network


_PER_FRAME = "clip.features"


def _before(pixels: str) -> list[onnx.NodeProto]:
    """From all frames to those that are there: one whose first number is NaN is none."""
    return [
        helper.make_node("Reshape", [FRAMES, "clip.picture"], ["clip.all"]),
        helper.make_node("Reshape", [FRAMES, "clip.flat"], ["clip.numbers"]),
        helper.make_node("Slice", ["clip.numbers", "clip.zero", "clip.one", "clip.one"], ["clip.first"]),
        helper.make_node("IsNaN", ["clip.first"], ["clip.gone"]),
        helper.make_node("Not", ["clip.gone"], ["clip.there"]),
        helper.make_node("Reshape", ["clip.there", "clip.rest"], ["clip.here"]),
        helper.make_node("Compress", ["clip.all", "clip.here"], [pixels], axis=0),
    ]


def _after() -> list[onnx.NodeProto]:
    """From the features of the frames that are there to the mean of each clip's."""
    return [
        helper.make_node("NonZero", ["clip.here"], ["clip.found"]),
        helper.make_node("Transpose", ["clip.found"], ["clip.places"], perm=[1, 0]),
        helper.make_node("Shape", [_PER_FRAME], ["clip.size"]),
        helper.make_node("Slice", ["clip.size", "clip.one", "clip.two"], ["clip.width"]),
        helper.make_node("Shape", ["clip.here"], ["clip.count"]),
        helper.make_node("Concat", ["clip.count", "clip.width"], ["clip.spread.size"], axis=0),
        helper.make_node("ConstantOfShape", ["clip.spread.size"], ["clip.nothing"]),
        helper.make_node("ScatterND", ["clip.nothing", "clip.places", _PER_FRAME], ["clip.spread"]),
        helper.make_node("Shape", [FRAMES], ["clip.sizes"]),
        helper.make_node("Slice", ["clip.sizes", "clip.zero", "clip.two"], ["clip.clips"]),
        helper.make_node("Concat", ["clip.clips", "clip.width"], ["clip.grouped.size"], axis=0),
        helper.make_node("Reshape", ["clip.spread", "clip.grouped.size"], ["clip.grouped"]),
        helper.make_node("ReduceSum", ["clip.grouped", "clip.one"], ["clip.total"], keepdims=0),
        helper.make_node("Reshape", ["clip.here", "clip.clips"], ["clip.mask"]),
        helper.make_node("Cast", ["clip.mask"], ["clip.ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["clip.ones", "clip.one"], ["clip.number"], keepdims=1),
        helper.make_node("Div", ["clip.total", "clip.number"], ["features"]),
    ]
