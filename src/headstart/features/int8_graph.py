"""Rewriting ONNX graphs: products with constant matrices, in 8-bit whole numbers.

Every row of the left side (one token's, one patch's) gets a scale of its own as it comes, so that what an item gives does not
depend on the others of its batch, nor on a calibration set. The matrices keep a scale a column, and 7 of the 8 bits: without
the newer instructions for 8-bit products a processor adds two of them in 16 bits, which 7 bits never overflow, and so every
processor gives the same whole numbers. All else stays in float32: sums, norms, softmax, attention's own products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from headstart.features.onnx_graph import without_unused_nodes

# Most of a matrix's whole numbers: 2 x 255 x 63 is still a signed 16-bit number.
MOST_WEIGHT = 63
# Rows are given as unsigned numbers around this one.
ZERO = 128
# ONNX Runtime's own operators.
DOMAIN = "com.microsoft"


def quantize_products(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Put every product with a constant matrix into 8-bit whole numbers.

    Args:
        model: any graph.

    Returns:
        A graph with the same inputs and outputs, for ONNX Runtime; and how many products were changed.
    """
    rewriting = _Rewriting(model)
    for node in model.graph.node:
        rewriting.add(node)
    return rewriting.finish(), rewriting.count


class _Rewriting:
    """A graph that is written anew, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.count = 0
        self._model = model
        self._matrices = _matrices(model.graph)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {
            "int8.per_level": np.array([1 / (ZERO - 1)], np.float32),
            "int8.least": np.array([1e-12], np.float32),
            "int8.zero": np.array(ZERO, np.uint8),
            "int8.zeros": np.array([ZERO], np.uint8),
            "int8.one": np.array([1.0], np.float32),
            "int8.last": np.array([-1], np.int64),
            "int8.first": np.array([0], np.int64),
        }
        self._rows: dict[str, str] = {}

    def add(self, node: onnx.NodeProto) -> None:
        """Take a node over, as it is or in whole numbers."""
        if node.op_type != "MatMul" or node.input[1] not in self._matrices:
            self._nodes.append(node)
            return
        given, matrix = node.input[0], self._matrices[node.input[1]]
        if given not in self._rows:
            self._rows[given] = self._quantize_rows(given, matrix.shape[0])
        self._multiply(self._rows[given], matrix, node.output[0])
        self.count += 1

    def _quantize_rows(self, given: str, width: int) -> str:
        """Whole numbers and a scale for each row of what is given; several products share them."""
        name = f"int8.rows.{len(self._rows)}"
        self._constants[f"{name}.flat"] = np.array([-1, width], np.int64)
        self._step("Reshape", [given, f"{name}.flat"], f"{name}.values")
        self._step("Abs", [f"{name}.values"], f"{name}.sizes")
        self._step("ReduceMax", [f"{name}.sizes", "int8.last"], f"{name}.largest", keepdims=1)
        self._step("Mul", [f"{name}.largest", "int8.per_level"], f"{name}.per_level")
        self._step("Max", [f"{name}.per_level", "int8.least"], f"{name}.scales")
        self._step("Reshape", [f"{name}.scales", "int8.last"], f"{name}.scale_list")
        self._step("Shape", [f"{name}.scale_list"], f"{name}.count")
        self._step("Expand", ["int8.zeros", f"{name}.count"], f"{name}.zeros")
        self._step("QuantizeLinear", [f"{name}.values", f"{name}.scale_list", f"{name}.zeros"], f"{name}.whole", axis=0)
        self._step("Shape", [given], f"{name}.shape")
        self._step("Slice", [f"{name}.shape", "int8.first", "int8.last"], f"{name}.leading")
        return name

    def _multiply(self, rows: str, matrix: np.ndarray, output: str) -> None:
        name = f"int8.product.{self.count}"
        scales = np.abs(matrix).max(axis=0) / MOST_WEIGHT
        scales[scales == 0] = 1.0
        self._constants |= {
            f"{name}.matrix": np.clip(np.rint(matrix / scales), -MOST_WEIGHT, MOST_WEIGHT).astype(np.int8),
            f"{name}.scales": scales.astype(np.float32),
            f"{name}.width": np.array([matrix.shape[1]], np.int64),
        }
        factors = [f"{rows}.whole", f"{name}.matrix", "int8.one", f"{name}.scales", "int8.zero"]
        self._step("MatMulIntegerToFloat", factors, f"{name}.unscaled", domain=DOMAIN)
        self._step("Mul", [f"{name}.unscaled", f"{rows}.scales"], f"{name}.flat")
        self._step("Concat", [f"{rows}.leading", f"{name}.width"], f"{name}.shape", axis=0)
        self._step("Reshape", [f"{name}.flat", f"{name}.shape"], output)

    def _step(self, kind: str, inputs: list[str], output: str, **settings: Any) -> None:  # noqa: ANN401 - onnx's attributes
        self._nodes.append(helper.make_node(kind, inputs, [output], **settings))

    def finish(self) -> onnx.ModelProto:
        """The graph, without what nothing uses any more."""
        rewritten = onnx.ModelProto()
        rewritten.CopyFrom(self._model)
        del rewritten.graph.node[:]
        rewritten.graph.node.extend(self._nodes)
        rewritten.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self._constants.items())
        if all(known.domain != DOMAIN for known in rewritten.opset_import):
            rewritten.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return without_unused_nodes(rewritten)


def _matrices(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The constant matrices of a graph, by name."""
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    wanted = {node.input[1] for node in graph.node if node.op_type == "MatMul"} & set(constants)
    found = {name: numpy_helper.to_array(constants[name]) for name in wanted if len(constants[name].dims) == 2}
    return {name: matrix for name, matrix in found.items() if matrix.dtype == np.float32}
