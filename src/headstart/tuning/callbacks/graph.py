"""The graph of a network for TensorBoard: the operations of one pass, named by the layers they happen in.

What really runs is recorded, so any network that runs can be drawn, also one that no tracer takes apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def record_graph(network: nn.Module, run: Callable[[], torch.Tensor]) -> GraphDef:
    """Run a network once and write down what happened.

    Args:
        network: whose layers give names.
        run: calls it, without gradients.

    Returns:
        A node for each operation, for each parameter and buffer that one used, and for each input.
    """
    recorder = _Recorder(network)
    with ExitStack() as hooks:
        for name, layer in network.named_modules():
            before = layer.register_forward_pre_hook(lambda _layer, _given, name=name: recorder.enter(name))
            after = layer.register_forward_hook(lambda _layer, _given, _output: recorder.leave())
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        with recorder:
            run()
    return GraphDef(node=recorder.nodes)


class _Recorder(TorchDispatchMode):
    """Sees every operation that reaches the device."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.nodes: list[NodeDef] = []
        self._kept = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
        self._made: dict[int, str] = {}
        self._alive: list[torch.Tensor] = []  # an identity is one as long as the tensor lives
        self._scopes: list[str] = []
        self._used: Counter[str] = Counter()

    def enter(self, name: str) -> None:
        self._scopes.append(name)

    def leave(self) -> None:
        self._scopes.pop()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an overload of one of torch's operations
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation gives
        given = [self._node_of(leaf) for leaf in _tensors((args, kwargs))]
        output = func(*args, **(kwargs or {}))
        if self._scopes:
            operation = str(func.overloadpacket.__name__)
            made = _tensors(output)
            if made:
                name = self._add("/".join([*self._scope(), operation]), f"aten::{operation}", made, given)
                self._made.update({id(tensor): name for tensor in made})
                self._alive += made
        return output

    def _scope(self) -> list[str]:
        return [part for part in self._scopes[-1].split(".") if part]

    def _node_of(self, tensor: torch.Tensor) -> str:
        """The node a tensor came from; one is made for parameters, buffers, inputs and constants at their first use."""
        if id(tensor) not in self._made:
            kept = self._kept.get(id(tensor))
            name, kind = (kept.replace(".", "/"), "Parameter") if kept else ("input", "Placeholder")
            self._made[id(tensor)] = self._add(name, kind, [tensor], [])
            self._alive.append(tensor)
        return self._made[id(tensor)]

    def _add(self, name: str, kind: str, outputs: list[torch.Tensor], given: list[str]) -> str:
        self._used[name] += 1
        unique = name if self._used[name] == 1 else f"{name}_{self._used[name] - 1}"
        shapes = [TensorShapeProto(dim=[TensorShapeProto.Dim(size=side) for side in tensor.shape]) for tensor in outputs]
        attributes = {"_output_shapes": AttrValue(list=AttrValue.ListValue(shape=shapes))}
        self.nodes.append(NodeDef(name=unique, op=kind, input=list(dict.fromkeys(given)), attr=attributes))
        return unique


def _tensors(given: Any) -> list[torch.Tensor]:  # noqa: ANN401 - what an operation takes or gives
    """The tensors in it, without those that hold nothing, as a batch's pooled features where there are none."""
    return [leaf for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor) and leaf.numel()]
