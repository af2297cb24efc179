"""Finding where any network can be cut, without a line of code per architecture.

The network is traced once with `torch.fx`. A cut may stand wherever exactly one tensor that depends on the input is alive;
the integers that transformers carry along (batch size, number of tokens) do not count, because they can be told again from
the tensor at the cut. Named blocks are the network's own child modules, the one dominant container opened up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from headstart.backbones.blocks import TracedBlock, find_blocks
from headstart.backbones.flow import Values, record


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A traced network and its blocks, first to last."""

    graph: fx.GraphModule
    blocks: tuple[TracedBlock, ...]
    values: Values
    """What each step gave for batches of 2 and of 3: shapes of tensors, and integers as they are."""


def trace(
    network: nn.Module,
    sample: Callable[[int], torch.Tensor],
    *,
    leaf_types: Iterable[type[nn.Module]] = (),
    leaf_functions: Iterable[Callable[..., Any]] = (),
) -> Trace:
    """Trace a network and find its blocks.

    Args:
        network: in evaluation mode; not changed, save that in-place activations are switched to out-of-place ones,
            so that a tensor at a block's end keeps its value.
        sample: gives an input batch of the size asked for.
        leaf_types: modules that the tracer must not look into.
        leaf_functions: functions that the tracer must not look into.

    Returns:
        The trace, with at least one block.

    Raises:
        torch.fx.proxy.TraceError: or whatever else the network raises when it meets a symbolic input.
    """
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    graph = _traced(network, tuple(leaf_types), tuple(leaf_functions))
    with torch.no_grad():
        seen = [record(graph, sample(size)) for size in (2, 3)]
    values = {node: (seen[0][node], seen[1][node]) for node in graph.graph.nodes}
    return Trace(graph=graph, blocks=find_blocks(graph, values), values=values)


def _traced(
    network: nn.Module, leaf_types: tuple[type[nn.Module], ...], leaf_functions: tuple[Callable[..., Any], ...]
) -> fx.GraphModule:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, leaf_types) or super().is_leaf_module(m, module_qualified_name)

    tracer = Tracer(autowrap_functions=leaf_functions)
    parameters = list(inspect.signature(network.forward).parameters.values())[1:]
    fixed = {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
    graph = tracer.trace(network, concrete_args=fixed or None)
    for placeholder in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        _erase(graph, placeholder)
    traced = fx.GraphModule(network, graph)
    drop_from_state(traced, network.state_dict())
    return traced


def drop_from_state(traced: fx.GraphModule, kept: Container[str]) -> None:
    """Leave out of a traced network's `state_dict` what is only computed from the architecture, such as attention's masks.

    Args:
        traced: changed in place; its buffers stay what they are.
        kept: the names that stay: those of the network before tracing.
    """
    for name, buffer in list(traced.named_buffers()):
        if name not in kept:
            owner, _, last = name.rpartition(".")
            traced.get_submodule(owner).register_buffer(last, buffer, persistent=False)


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Take out an argument fixed at its default, with the assertions that it has that value."""
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)
