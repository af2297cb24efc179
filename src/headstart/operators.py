"""Which operators a saved network may have: those that compute something from numbers, once, of a size that is known.

The file is read field by field (protocol buffers, as onnx.proto numbers the fields), without building anything from it and
without the onnx package, which would take longer to import than a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_VALUES = 1 << 28
"""Of a tensor whose shape is written in the network."""
_SMALL = 16
"""Values of a constant that may be a shape."""
_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Pad": 1, "Range": 1, "Resize": 3, "OneHot": 1}
"""Operators that make tensors of a size that an input holds, and which input."""

# What is exported from backbones, what is put behind them, and what networks of their kinds have: no control flow, sequences,
# strings, random numbers or functions.
_OPERATORS = frozenset(
    """
    Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization BitShift Cast CastLike Ceil Celu
    Clip Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos CumSum DepthToSpace
    DequantizeLinear Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul MatMulInteger Max
    MaxPool Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization RNN
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize RotaryEmbedding Round ScatterElements ScatterND Selu Shape Sigmoid
    Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()
)
_ALLOWED = {"": _OPERATORS, "ai.onnx": _OPERATORS, "com.microsoft": frozenset({"MatMulIntegerToFloat"})}


@dataclass
class _Node:
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    operator: str = ""
    domain: str = ""
    has_graph: bool = False
    constants: list[memoryview] = field(default_factory=list)


def refused_in(content: bytes) -> str:
    """Look for what no network of ours has.

    Args:
        content: of an .onnx file.

    Returns:
        What it is, as the end of "it has ..."; '' where all is well.
    """
    try:
        return _refused(memoryview(content))
    except (IndexError, UnicodeDecodeError, ValueError, RecursionError):
        return "damaged fields"


def _refused(model: memoryview) -> str:
    shapes: dict[str, list[int]] = {}
    if any(number == 25 for number, _ in _fields(model)):
        return "functions of its own"
    graphs = [graph for number, graph in _fields(model) if number == 7 and isinstance(graph, memoryview)]
    parts = [(number, part) for graph in graphs for number, part in _fields(graph) if isinstance(part, memoryview)]
    for name, values, outside in (_tensor(part) for number, part in parts if number == 5):
        shapes[name] = values
        if outside:
            return f"the constant {name[:60]!r} in another file"
    nodes = [_node(part) for number, part in parts if number == 1]
    return next((why for node in nodes if (why := _why_not(node, shapes))), "")


def _why_not(node: _Node, shapes: dict[str, list[int]]) -> str:
    if node.operator not in _ALLOWED.get(node.domain, ()):
        return f"the operator {'.'.join(filter(None, (node.domain, node.operator)))[:60]!r}, which `fit` never writes"
    if node.has_graph:
        return f"a graph inside the operator {node.operator!r}"
    for constant in node.constants:
        _, values, outside = _tensor(constant)
        shapes |= dict.fromkeys(node.outputs, values)
        if outside:
            return "a constant in another file"
    place = _SHAPED.get(node.operator)
    if place is not None and place < len(node.inputs):
        size = math.prod(abs(value) for value in shapes.get(node.inputs[place], []) if value)
        if size > MOST_VALUES:
            return f"{node.operator} of {size:,} values, where at most {MOST_VALUES:,} are allowed"
    return ""


def _node(content: memoryview) -> _Node:
    node = _Node()
    for number, value in _fields(content):
        if not isinstance(value, memoryview):
            continue
        match number:
            case 1:
                node.inputs.append(_text(value))
            case 2:
                node.outputs.append(_text(value))
            case 4:
                node.operator = _text(value)
            case 7:
                node.domain = _text(value)
            case 5:
                for part, inner in _fields(value):
                    node.has_graph |= part in {6, 11}
                    if part == 5 and isinstance(inner, memoryview):
                        node.constants.append(inner)
    return node


def _tensor(content: memoryview) -> tuple[str, list[int], bool]:
    """Its name, its values if it is a few 64-bit whole numbers, and whether its values are in another file."""
    name, kind, values, outside = "", 0, [], False
    raw = memoryview(b"")
    for number, value in _fields(content):
        if isinstance(value, int):
            kind = value if number == 2 else kind
            outside |= number == 14 and value != 0
            values += [value] if number == 7 else []
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = value
        elif number == 7:  # packed
            place = 0
            while place < len(value) and len(values) <= _SMALL:
                each, place = _varint(value, place)
                values.append(each)
        outside |= number == 13
    if kind != 7:
        return name, [], outside
    if len(raw) <= 8 * _SMALL:
        values += [int.from_bytes(raw[start : start + 8], "little", signed=True) for start in range(0, len(raw), 8)]
    return name, [value - (1 << 64) if value >= 1 << 63 else value for value in values[:_SMALL]], outside


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        match key & 7:
            case 0:
                value, place = _varint(content, place)
                yield key >> 3, value
            case 2:
                length, place = _varint(content, place)
                if length > len(content) - place:
                    raise ValueError("a field is longer than the file")
                yield key >> 3, content[place : place + length]
                place += length
            case 1 | 5 as fixed:
                place += 8 if fixed == 1 else 4
            case _:
                raise ValueError("a field of an unknown kind")


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _text(value: memoryview) -> str:
    return bytes(value).decode()
