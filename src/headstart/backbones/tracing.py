"""Finding where any network can be cut, without a line of code per architecture.

The network is traced once with `torch.fx`. A cut may stand wherever exactly one tensor that depends on the input is alive;
the integers that transformers carry along (batch size, number of tokens) do not count, because they can be told again from
the tensor at the cut. Named blocks are the network's own child modules, the one dominant container opened up.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

# A child module holding at least this share of all traced steps is opened up: `blocks` of an EfficientNet or a ViT, but
# not `layer3` of a ResNet-152 (0.72), whose four layers are the blocks that people speak of.
DOMINANT_SHARE = 0.75


@dataclass(frozen=True, kw_only=True)
class TracedBlock:
    """One block: its name, the traced step that ends it, and the shape there without the batch."""

    name: str
    end: fx.Node
    shape: tuple[int, ...]
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A traced network and its blocks, first to last."""

    graph: fx.GraphModule
    blocks: tuple[TracedBlock, ...]
    values: dict[fx.Node, tuple[Any, Any]]
    """What each step gave for batches of 2 and of 3: shapes of tensors, and integers as they are."""


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
        seen = [_record(graph, sample(size)) for size in (2, 3)]
    values = {node: (seen[0][node], seen[1][node]) for node in graph.graph.nodes}
    return Trace(graph=graph, blocks=_find_blocks(graph, values), values=values)


def cut(traced: Trace, block: str) -> tuple[nn.Module, nn.Module]:
    """Split a traced network after a block.

    Args:
        traced: the trace.
        block: the name of one of its blocks.

    Returns:
        The frozen prefix, which shares the network's weights, and the tail, which has its own copy of them.
    """
    end = next(found.end for found in traced.blocks if found.name == block)
    return Frozen(_prefix(traced, [end])), _tail(traced, end)


def tapped(traced: Trace) -> nn.Module:
    """The whole network, giving every block's output as a list in the order of the blocks."""
    return Frozen(_prefix(traced, [block.end for block in traced.blocks], tap=True))


def channel_axis(shape: tuple[int, ...]) -> int:
    """Say which axis of a block's output, batch left out, holds the channels.

    Maps are (C, H, W) in most networks and (H, W, C) in Swin's kin; the two equal sides tell. Sequences are (T, C).
    """
    if len(shape) == 3 and shape[0] == shape[1] != shape[2]:
        return 2
    return 0 if len(shape) in {1, 3} else len(shape) - 1


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
    return fx.GraphModule(network, graph)


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Take out an argument fixed at its default, with the assertions that it has that value."""
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - torch's signature
        result = super().run_node(n)
        self.seen[n] = _summary(result)
        return result


def _record(graph: fx.GraphModule, inputs: torch.Tensor) -> dict[fx.Node, Any]:
    recorder = _Recorder(graph)
    recorder.run(inputs)
    return recorder.seen


@dataclass(frozen=True)
class _Shape:
    sizes: tuple[int, ...]


def _summary(value: Any) -> Any:  # noqa: ANN401 - any value that a traced step gives
    match value:
        case torch.Tensor():
            return _Shape(tuple(value.shape))
        case tuple() | list():
            return tuple(_summary(part) for part in value)
        case _:
            return value


def _holds_tensor(summary: Any) -> bool:  # noqa: ANN401 - as above
    return isinstance(summary, _Shape) or (isinstance(summary, tuple) and any(_holds_tensor(part) for part in summary))


def _data_nodes(graph: fx.GraphModule, values: dict[fx.Node, tuple[Any, Any]]) -> list[fx.Node]:
    data: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        if node.op == "output" or not _holds_tensor(values[node][0]):
            continue
        if node.op == "placeholder" or any(source in data for source in node.all_input_nodes):
            data[node] = None
    return list(data)


def _cut_nodes(graph: fx.GraphModule, values: dict[fx.Node, tuple[Any, Any]]) -> list[fx.Node]:
    """The steps after which their own single tensor is the only data alive."""
    data = set(_data_nodes(graph, values))
    order = {node: index for index, node in enumerate(graph.graph.nodes)}
    last_use = {
        node: max((order[user] for user in node.users if user in data or user.op == "output"), default=-1) for node in data
    }
    open_until: dict[fx.Node, int] = {}
    found = []
    for node in graph.graph.nodes:
        if node not in data:
            continue
        open_until[node] = last_use[node]
        open_until = {living: until for living, until in open_until.items() if until > order[node]}
        if list(open_until) == [node] and node.op != "placeholder" and _is_per_item(values[node]):
            found.append(node)
    return found


def _is_per_item(seen: tuple[Any, Any]) -> bool:
    """Whether a value is one tensor whose first axis is the batch, and not, say, windows times pictures."""
    return all(isinstance(value, _Shape) and value.sizes[:1] == (size,) for value, size in zip(seen, (2, 3), strict=True))


def _owner(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack), "").split("@")[0]


def _find_blocks(graph: fx.GraphModule, values: dict[fx.Node, tuple[Any, Any]]) -> tuple[TracedBlock, ...]:
    data = [node for node in _data_nodes(graph, values) if node.op != "placeholder"]
    units = _units(graph, data)
    cuts = set(_cut_nodes(graph, values))
    weighty = {unit for unit in set(units) if _holds_matrix(graph, unit)}
    # A step joins the block before it unless its unit has weights of its own: activations, norms and pools come along.
    named: list[str] = []
    for unit in units:
        named.append(unit if unit in weighty or not named else named[-1])
    named = _name_pool(data, named, units, weighty, cuts, values)
    ends: dict[str, fx.Node] = {}
    for node, name in zip(data, named, strict=True):
        if node in cuts:
            ends[name] = node
    position = {node: index for index, node in enumerate(data)}
    ordered = sorted(ends.items(), key=lambda found: position[found[1]])
    blocks, before = [], -1
    for index, (name, end) in enumerate(ordered):
        steps = data[before + 1 : position[end] + 1]
        before = position[end]
        shown = "stem" if index == 0 and "." not in name and len(ordered) > 1 else name
        shape = values[end][0].sizes[1:]
        blocks.append(TracedBlock(name=shown, end=end, shape=shape, num_parameters=_count_parameters(graph, steps, data)))
    return tuple(blocks)


def _units(graph: fx.GraphModule, data: list[fx.Node]) -> list[str]:
    """The child module that each step belongs to, with dominant containers opened up."""
    owners = [_owner(node).split(".") for node in data]
    prefix: list[str] = []
    while True:
        depth = len(prefix)
        inside = [owner[depth] for owner in owners if owner[:depth] == prefix and len(owner) > depth and owner[depth]]
        largest = max(set(inside), key=inside.count, default=None)
        if largest is None or inside.count(largest) < DOMINANT_SHARE * len(data):
            break
        opened = [*prefix, largest]
        if not any(len(owner) > depth + 1 for owner in owners if owner[: depth + 1] == opened):
            break
        prefix = opened
    units: list[str] = []
    for owner in owners:
        depth = 0
        while depth < len(prefix) and owner[: depth + 1] == prefix[: depth + 1]:
            depth += 1
        name = ".".join(owner[: depth + 1])
        belongs = name and name != ".".join(prefix[:depth])
        units.append(name if belongs else (units[-1] if units else name or "stem"))
    return units


def _holds_matrix(graph: fx.GraphModule, unit: str) -> bool:
    module = dict(graph.named_modules()).get(unit)
    return module is not None and any(parameter.ndim > 1 for parameter in module.parameters())


def _name_pool(
    data: list[fx.Node],
    named: list[str],
    units: list[str],
    weighty: set[str],
    cuts: set[fx.Node],
    values: dict[fx.Node, tuple[Any, Any]],
) -> list[str]:
    """Call the weightless steps 'pool' that follow the last map or sequence, up to the next weights."""
    last_weights = {units[i]: i for i, node in enumerate(data) if _applies_weights(node)}
    # Tokens and heads look like a map inside of an attention that pools; no map is finished before its unit's last weights.
    finished = [i for i, node in enumerate(data) if node in cuts and i >= last_weights.get(units[i], 0)]
    spatial = [i for i in finished if _is_spatial(values[data[i]][0].sizes)]
    if not spatial or spatial[-1] + 1 == len(data):
        return named
    renamed = list(named)
    for index in range(spatial[-1] + 1, len(data)):
        if units[index] in weighty and units[index] != units[spatial[-1]] and _applies_weights(data[index]):
            break
        renamed[index] = "pool"
    return renamed


def _applies_weights(node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    owner = node.graph.owning_module
    module = None if owner is None else owner.get_submodule(str(node.target))
    return module is not None and any(parameter.ndim > 1 for parameter in module.parameters())


def _is_spatial(sizes: tuple[int, ...]) -> bool:
    shape = list(sizes[1:])
    del shape[channel_axis(sizes[1:])]
    return math.prod(shape) > 1


def _count_parameters(graph: fx.GraphModule, steps: list[fx.Node], data: list[fx.Node]) -> int:
    modules, named = dict(graph.named_modules()), dict(graph.named_parameters())
    counted: dict[int, int] = {}
    # A class token, a table of positions or a standardised weight reaches its step by way of others that see no data.
    waiting, seen = [*steps], set(data)
    while waiting:
        node = waiting.pop()
        if node.op == "call_module":
            counted |= {id(parameter): parameter.numel() for parameter in modules[str(node.target)].parameters()}
        if node.op == "get_attr" and str(node.target) in named:
            counted[id(named[str(node.target)])] = named[str(node.target)].numel()
        waiting += [source for source in node.all_input_nodes if source not in seen]
        seen.update(node.all_input_nodes)
    return sum(counted.values())


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
            case tuple() if not _holds_tensor(first):
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


def _tail(traced: Trace, end: fx.Node) -> nn.Module:
    """The rest of the network, from the tensor at the cut, with its own copy of the weights."""
    tail = _TailGraph(traced, end)
    nodes = list(traced.graph.graph.nodes)
    data = set(_data_nodes(traced.graph, traced.values))
    for node in nodes[nodes.index(end) + 1 :]:
        if node.op == "output":
            tail.graph.output(tail.fetch(node.all_input_nodes[0]))
        elif node in data:
            tail.fetch(node)
    # The network's own weights are frozen, and a copy of a frozen tensor is frozen too.
    return copy.deepcopy(_without_dead_code(fx.GraphModule(traced.graph, tail.graph))).requires_grad_(True)
