"""Which blocks a traced network has: its own child modules, the one dominant container opened up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx

from headstart.backbones.flow import Shape, Values, channel_axis, cut_nodes, data_nodes, parameters_of, with_sources

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


def find_blocks(graph: fx.GraphModule, values: Values) -> tuple[TracedBlock, ...]:
    """Name the blocks of a traced network.

    Args:
        graph: the network, traced.
        values: what its steps gave.

    Returns:
        The blocks, first to last; steps that cannot end a block belong to the one they lead to.
    """
    data = [node for node in data_nodes(graph, values) if node.op != "placeholder"]
    units = _units(graph, data)
    cuts = set(cut_nodes(graph, values))
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
    blocks, before, counted = [], -1, set[int]()
    for index, (name, end) in enumerate(ordered):
        steps = data[before + 1 : position[end] + 1]
        before = position[end]
        shown = "stem" if index == 0 and "." not in name and len(ordered) > 1 else name
        shape = values[end][0].sizes[1:]
        # A class token, a table of positions or a standardised weight reaches its step by way of others that see no data.
        used = parameters_of(graph, with_sources(steps, but=data))
        # A weight that several blocks use belongs to the first of them.
        num_parameters = sum(parameter.numel() for key, parameter in used.items() if key not in counted)
        counted |= set(used)
        blocks.append(TracedBlock(name=shown, end=end, shape=shape, num_parameters=num_parameters))
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


def _owner(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack), "").split("@")[0]


def _holds_matrix(graph: fx.GraphModule, unit: str) -> bool:
    module = dict(graph.named_modules()).get(unit)
    return module is not None and any(parameter.ndim > 1 for parameter in module.parameters())


def _name_pool(
    data: list[fx.Node],
    named: list[str],
    units: list[str],
    weighty: set[str],
    cuts: set[fx.Node],
    values: Values,
) -> list[str]:
    """Call the weightless steps 'pool' that follow the last map or sequence, up to the next weights."""
    last_weights = {units[i]: i for i, node in enumerate(data) if _applies_weights(node)}
    # Tokens and heads look like a map inside of an attention that pools; no map is finished before its unit's last weights.
    finished = [i for i, node in enumerate(data) if node in cuts and i >= last_weights.get(units[i], 0)]
    spatial = [i for i in finished if _is_spatial(values[data[i]][0].sizes)]
    if not spatial or spatial[-1] + 1 == len(data):
        return named
    if _ends_in_weights(data[spatial[-1] + 1 :], values):
        return named
    renamed = list(named)
    for index in range(spatial[-1] + 1, len(data)):
        if units[index] in weighty and units[index] != units[spatial[-1]] and _applies_weights(data[index]):
            break
        renamed[index] = "pool"
    return renamed


def _ends_in_weights(steps: list[fx.Node], values: Values) -> bool:
    """Whether the map shrinks to one place by weights: by the stride of a convolution, say, where the image is small."""
    for step in steps:
        seen = values[step][0]
        if isinstance(seen, Shape) and not _is_spatial(seen.sizes):
            return _applies_weights(step)
    return False


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
