"""Several compiled networks as one graph: an input for each, their features side by side."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, compose, helper, version_converter

BATCH = "batch"


def join_networks(networks: Sequence[onnx.ModelProto], inputs: Sequence[str]) -> onnx.ModelProto:
    """Join compiled networks that each take one array and give `features`.

    Args:
        networks: two or more; not to be used any more. Those of an older operator set are brought to the newest among them.
        inputs: what each one's input is called in the whole.

    Returns:
        One network with these inputs, to `features`, each network's features side by side in order.
    """
    newest = max(_operators(network) for network in networks)
    parts = [
        _renamed(network if _operators(network) == newest else version_converter.convert_version(network, newest), number)
        for number, network in enumerate(networks, 1)
    ]
    first, *others = parts
    graph = first.graph
    given = [graph.input[0], *(part.graph.input[0] for part in others)]
    features = [part.graph.output[0].name for part in parts]
    before = [helper.make_node("Identity", [name], [old.name]) for name, old in zip(inputs, given, strict=True)]
    nodes = [node for part in parts for node in part.graph.node]
    ports = [_free_port(port, name, number) for number, (port, name) in enumerate(zip(given, inputs, strict=True), 1)]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*before, *nodes, helper.make_node("Concat", features, ["features"], axis=1)])
    graph.input.extend(ports)
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, [BATCH, None]))
    for part in others:
        graph.initializer.extend(part.graph.initializer)
        graph.sparse_initializer.extend(part.graph.sparse_initializer)
        first.functions.extend(part.functions)
        known = {used.domain for used in first.opset_import}
        first.opset_import.extend(used for used in part.opset_import if used.domain not in known)
    first.ir_version = max(part.ir_version for part in parts)
    return first


def _operators(network: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a network is written in."""
    return next(used.version for used in network.opset_import if used.domain in {"", "ai.onnx"})


def _renamed(network: onnx.ModelProto, number: int) -> onnx.ModelProto:
    """The network with names that no other has; noted shapes go, since free sizes of one name differ between networks."""
    renamed = compose.add_prefix(network, f"network.{number}.")
    del renamed.graph.value_info[:]
    return renamed


def _free_port(port: onnx.ValueInfoProto, name: str, number: int) -> onnx.ValueInfoProto:
    """An input by another name, whose free sizes but the batch are its own."""
    made = onnx.ValueInfoProto()
    made.CopyFrom(port)
    made.name = name
    for size in made.type.tensor_type.shape.dim:
        if size.dim_param and size.dim_param != BATCH:
            size.dim_param = f"{size.dim_param}.{number}"
    return made
