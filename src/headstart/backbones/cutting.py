"""Taking a traced network apart: the frozen prefix, the trainable tail, and the whole with a tap behind every block."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from headstart.backbones.flow import data_nodes, holds_tensor, parameters_of, with_sources
from headstart.backbones.tracing import Trace, drop_from_state


class Frozen(nn.Module):
    """A network that stays in evaluation mode and without gradients whatever is called on it.

    Normalisation statistics and dropout belong to being frozen: a network that only loses its gradients still moves its
    BatchNorm statistics in training mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, inputs: torch.Tensor) -> Any:  # noqa: ANN401 - whatever the network gives
        """Run the network."""
        return self.network(inputs)


def cut(traced: Trace, block: str) -> tuple[nn.Module, nn.Module]:
    """Split a traced network after a block.

    Args:
        traced: the trace.
        block: the name of one of its blocks.

    Returns:
        The frozen prefix, which shares the network's weights, and the tail, which has its own copy of them. A weight that
        both use stays frozen in the tail, too.
    """
    end = next(found.end for found in traced.blocks if found.name == block)
    return Frozen(_prefix(traced, [end])), _tail(traced, end)


def tapped(traced: Trace) -> nn.Module:
    """The whole network, giving every block's output as a list in the order of the blocks."""
    return Frozen(_tapped(traced))


def tapped_prefix(traced: Trace, block: str) -> nn.Module:
    """The frozen network up to and including a block, giving the outputs of its blocks as a list.

    Args:
        traced: the trace.
        block: the name of one of its blocks.
    """
    return Frozen(_prefix(traced, _ends(traced)[: _behind(traced, block)], tap=True))


def tapped_tail(traced: Trace, block: str) -> nn.Module:
    """The network behind a block, with a trainable copy of the weights, giving the outputs of its blocks as a list.

    Args:
        traced: the trace.
        block: the name of one of its blocks, not the last; the tail takes its output.
    """
    ends, behind = _ends(traced), _behind(traced, block)
    return _tail(traced, ends[behind - 1], ends[behind:])


def tapped_copy(traced: Trace) -> nn.Module:
    """The whole network as `tapped` gives it, with its own trainable copy of the weights."""
    return _own_copy(traced, _tapped(traced))


def _tapped(traced: Trace) -> fx.GraphModule:
    return _prefix(traced, _ends(traced), tap=True)


def _ends(traced: Trace) -> list[fx.Node]:
    return [block.end for block in traced.blocks]


def _behind(traced: Trace, block: str) -> int:
    """The number of blocks up to and including one."""
    return [found.name for found in traced.blocks].index(block) + 1


def _prefix(traced: Trace, ends: list[fx.Node], *, tap: bool = False) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.graph.nodes:
        if node.op == "output":
            break
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node is ends[-1]:
            break
    graph.output([copies[end] for end in ends] if tap else copies[ends[-1]])
    return _without_dead_code(fx.GraphModule(traced.graph, graph))


def _without_dead_code(network: fx.GraphModule) -> fx.GraphModule:
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


class _TailGraph:
    """Copies the steps behind a cut; integers from before it are told again from the tensor at the cut."""

    def __init__(self, traced: Trace, end: fx.Node) -> None:
        self.values = traced.values
        self.graph = fx.Graph()
        self.entry = self.graph.placeholder("cut")
        self.copies: dict[fx.Node, fx.Node] = {end: self.entry}

    def fetch(self, node: fx.Node) -> Any:  # noqa: ANN401 - a step, or a plain value
        """What stands for a step of the whole network in the tail."""
        if node in self.copies:
            return self.copies[node]
        first, second = self.values[node]
        match first:
            case bool() | None | str():
                return first
            case int():
                return self._size(first, second)
            case tuple() if not holds_tensor(first):
                return tuple(self._size(a, b) for a, b in zip(first, second, strict=True))
        self.copies[node] = self.graph.node_copy(node, self.fetch)
        return self.copies[node]

    def _size(self, first: int, second: int) -> Any:  # noqa: ANN401 - a number, or a step that tells it
        """An integer that was `first` for a batch of 2 and `second` for a batch of 3."""
        if first == second:
            return first
        if first * 3 != second * 2:
            raise ValueError(f"a size of {first} at batch 2 and {second} at batch 3 does not follow the batch")
        shape = self.graph.call_function(getattr, (self.entry, "shape"))
        batch = self.graph.call_function(operator.getitem, (shape, 0))
        return batch if first == 2 else self.graph.call_function(operator.mul, (batch, first // 2))


def _tail(traced: Trace, end: fx.Node, taps: Sequence[fx.Node] = ()) -> nn.Module:
    """The rest of the network, from the tensor at the cut, with its own copy of the weights; it gives the taps, if any."""
    tail = _TailGraph(traced, end)
    nodes = list(traced.graph.graph.nodes)
    data = set(data_nodes(traced.graph, traced.values))
    for node in nodes[nodes.index(end) + 1 :]:
        if node.op == "output":
            given = [tail.fetch(tap) for tap in taps]
            tail.graph.output(given or tail.fetch(node.all_input_nodes[0]))
        elif node in data:
            tail.fetch(node)
    return _own_copy(traced, _without_dead_code(fx.GraphModule(traced.graph, tail.graph)), frozen_up_to=end)


def _own_copy(traced: Trace, part: fx.GraphModule, *, frozen_up_to: fx.Node | None = None) -> nn.Module:
    """A copy with trainable weights of its own, but for those that the frozen steps use too: a weight has one value."""
    used = parameters_of(traced.graph, with_sources([] if frozen_up_to is None else [frozen_up_to]))
    shared = [name for name, parameter in part.named_parameters() if id(parameter) in used]
    # The network's own weights are frozen, and a copy of a frozen tensor is frozen too.
    copied = copy.deepcopy(part).requires_grad_(True)
    for name in shared:
        copied.get_parameter(name).requires_grad_(False)
    drop_from_state(copied, traced.graph.state_dict())
    return copied
