"""What flows through a traced network: which steps carry data, and after which one tensor alone is alive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

Values = dict[fx.Node, tuple[Any, Any]]
"""What each step gave for batches of 2 and of 3: shapes of tensors, and integers as they are."""


@dataclass(frozen=True)
class Shape:
    """The shape of a tensor, batch first."""

    sizes: tuple[int, ...]


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - torch's signature
        result = super().run_node(n)
        self.seen[n] = _summary(result)
        return result


def record(graph: fx.GraphModule, inputs: torch.Tensor) -> dict[fx.Node, Any]:
    """Run a network on a batch and note what every step gave: tensors as their shapes, all else as it is."""
    recorder = _Recorder(graph)
    recorder.run(inputs)
    return recorder.seen


def _summary(value: Any) -> Any:  # noqa: ANN401 - any value that a traced step gives
    match value:
        case torch.Tensor():
            return Shape(tuple(value.shape))
        case tuple() | list():
            return tuple(_summary(part) for part in value)
        case _:
            return value


def holds_tensor(summary: Any) -> bool:  # noqa: ANN401 - as above
    """Whether there is a tensor in what a step gave."""
    return isinstance(summary, Shape) or (isinstance(summary, tuple) and any(holds_tensor(part) for part in summary))


def data_nodes(graph: fx.GraphModule, values: Values) -> list[fx.Node]:
    """The steps that carry the input's data, in order; what is computed from weights or sizes alone is not among them."""
    data: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        if node.op == "output" or not holds_tensor(values[node][0]):
            continue
        if node.op == "placeholder" or any(source in data for source in node.all_input_nodes):
            data[node] = None
    return list(data)


def with_sources(steps: Iterable[fx.Node], *, but: Iterable[fx.Node] = ()) -> list[fx.Node]:
    """Some steps with all those that lead to them, save the steps named and what leads to these alone."""
    found = list(steps)
    seen = {*found, *but}
    for step in found:
        found += [source for source in step.all_input_nodes if source not in seen]
        seen.update(step.all_input_nodes)
    return found


def parameters_of(graph: fx.GraphModule, steps: Iterable[fx.Node]) -> dict[int, nn.Parameter]:
    """The parameters that some steps use themselves, by their identity, under which shared ones are one."""
    modules, named = dict(graph.named_modules()), dict(graph.named_parameters())
    used: dict[int, nn.Parameter] = {}
    for step in steps:
        if step.op == "call_module":
            used |= {id(parameter): parameter for parameter in modules[str(step.target)].parameters()}
        if step.op == "get_attr" and str(step.target) in named:
            used[id(named[str(step.target)])] = named[str(step.target)]
    return used


def cut_nodes(graph: fx.GraphModule, values: Values) -> list[fx.Node]:
    """The steps after which their own single tensor is the only data alive."""
    data = set(data_nodes(graph, values))
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
    return all(isinstance(value, Shape) and value.sizes[:1] == (size,) for value, size in zip(seen, (2, 3), strict=True))


def channel_axis(shape: tuple[int, ...]) -> int:
    """Say which axis of a block's output, batch left out, holds the channels.

    Maps are (C, H, W) in most networks and (H, W, C) in Swin's kin; the two equal sides tell. Sequences are (T, C).
    """
    if len(shape) == 3 and shape[0] == shape[1] != shape[2]:
        return 2
    return 0 if len(shape) in {1, 3} else len(shape) - 1


def channel_axes(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Say which axis holds the channels for every block of a network.

    Where all three sides of a map are equal, as a Swin's of width 96 may be at 384 pixels, the nearest other map tells.

    Args:
        shapes: of the blocks' outputs, batch left out, first to last.

    Returns:
        The axis for each.
    """
    axes = [channel_axis(shape) for shape in shapes]
    clear = [i for i, shape in enumerate(shapes) if len(shape) == 3 and len(set(shape)) > 1]
    if not clear:
        return axes
    unclear = [i for i, shape in enumerate(shapes) if len(shape) == 3 and i not in clear]
    nearest = {i: min((abs(i - other), other) for other in clear)[1] for i in unclear}
    return [axes[nearest.get(i, i)] for i in range(len(shapes))]
