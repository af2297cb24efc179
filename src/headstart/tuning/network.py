"""The trainable part of a network: the tail behind the cut, and the head it starts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import fx, nn

from headstart.backbones.encoder import EncoderTail
from headstart.backbones.parts import Tail
from headstart.backbones.sound_network import SoundNetwork
from headstart.backbones.text_blocks import text_blocks
from headstart.backbones.texts import PooledTexts
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import Head, MlpHead
from headstart.tuning.plan import NormStatistics, TuningPlan

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


class InUnits(nn.Module):
    """Puts scores of deviation 1 into the targets' units: a rate that suits one may be nothing to the other."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, targets: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(float(targets.mean())))
        self.register_buffer("scale", torch.tensor(float(targets.std()) or 1.0))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """From (B, 1) to (B, 1)."""
        return scores * self.scale + self.mean


class TrainedHead(nn.Module):
    """A head on standardised features: linear, or with hidden layers.

    Raw features differ in scale by orders of magnitude from block to block, and one learning rate would be too much for some
    weights and nothing for others; so the head sees them with mean 0 and deviation 1, and `as_head` folds that in.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: np.ndarray, layers: nn.Sequential) -> None:
        """Take mean and deviation from features.

        Args:
            features: (N, D) of the training items.
            layers: from (B, D) to (B, K).
        """
        super().__init__()
        deviation = features.std(axis=0, dtype=np.float64)
        floor = max(float(np.median(deviation)) * 1e-2, 1e-6)
        self.register_buffer("mean", torch.from_numpy(features.mean(axis=0, dtype=np.float64).astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(np.maximum(deviation, floor).astype(np.float32)))
        self.layers = layers

    @classmethod
    def from_exact(cls, features: np.ndarray, head: LinearHead, temperatures: np.ndarray) -> TrainedHead:
        """A linear head that begins with an exact head's calibrated scores.

        Args:
            features: (N, D) of the training items.
            head: fitted on them.
            temperatures: (K,), what its scores are divided by.
        """
        num_outputs, width = head.weight.shape
        made = cls(features, nn.Sequential(nn.Linear(width, num_outputs)))
        weight = head.weight.astype(np.float64) / temperatures[:, None]
        linear = made.layers[0]
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight * made.scale.numpy()))  # type: ignore[operator]
            linear.bias.copy_(torch.from_numpy(head.bias / temperatures + weight @ made.mean.numpy()))  # type: ignore[operator]
        return made

    @classmethod
    def with_hidden(
        cls, features: np.ndarray, num_outputs: int, *, plan: TuningPlan, values: np.ndarray | None = None
    ) -> TrainedHead:
        """A head with hidden layers, each followed by ReLU and dropout; it begins at random.

        Args:
            features: (N, D) of the training items.
            num_outputs: K.
            plan: with the widths of the hidden layers, the dropout and the seed of the first weights.
            values: (N,) what the training items' scores are to become, where that is a value in any unit; else None.
        """
        widths = [features.shape[1], *plan.hidden]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            parts: list[nn.Module] = []
            for before, behind in pairwise(widths):
                parts += [nn.Linear(before, behind), nn.ReLU(), nn.Dropout(plan.dropout)]
            parts.append(nn.Linear(widths[-1], num_outputs))
        return cls(features, nn.Sequential(*parts, *([] if values is None else [InUnits(values)])))

    @classmethod
    def from_scratch(
        cls, features: np.ndarray, num_outputs: int, *, plan: TuningPlan, values: np.ndarray | None = None
    ) -> TrainedHead:
        """A head for a network that is trained from scratch: nothing of what the untrained features are like stays in it.

        Args:
            features: (N, D), of which only D counts.
            num_outputs: K.
            plan: with the hidden layers, if any, and the seed.
            values: as for `with_hidden`.
        """
        made = cls.with_hidden(features, num_outputs, plan=plan, values=values)
        made.mean.zero_()
        made.scale.fill_(1.0)
        return made

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """From features (B, D) to scores (B, K)."""
        return self.layers((features - self.mean) / self.scale)

    def dense_layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weight (out, in) and bias (out,) of every dense layer, first to last, on raw features."""
        layers = [part for part in self.layers if isinstance(part, nn.Linear)]
        pairs = [
            (layer.weight.detach().cpu().numpy().astype(np.float64), layer.bias.detach().cpu().numpy()) for layer in layers
        ]
        weight, bias = pairs[0]
        raw = weight / self.scale.cpu().numpy()
        pairs[0] = (raw, bias - raw @ self.mean.cpu().numpy())
        if isinstance(self.layers[-1], InUnits):
            mean, scale = (float(part) for part in (self.layers[-1].mean, self.layers[-1].scale))
            weight, bias = pairs[-1]
            pairs[-1] = (weight * scale, bias * scale + mean)
        return [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in pairs]

    def as_head(self) -> Head:
        """The head on raw features, without torch."""
        layers = self.dense_layers()
        if len(layers) > 1:
            return MlpHead(layers=tuple(layers))
        ((weight, bias),) = layers
        return LinearHead(kind="tuned", weight=weight, bias=bias)


class Trainable(nn.Module, ABC):
    """What the loop trains: from the two arrays of a batch to what the task's loss takes for scores."""

    @abstractmethod
    def rest_norms(self) -> None:
        """Put normalisation with statistics of a batch into evaluation mode."""

    @abstractmethod
    def blocks(self) -> list[list[str]]:
        """Names of the trainable parameters outside of the head, by block, first block first."""


class TunableNetwork(Trainable):
    """From the state at a cut and the pooled features before it to scores.

    With no tail the features come as they are, and only the head trains.
    """

    def __init__(
        self, tail: Tail | None, head: TrainedHead, *, columns: slice, norm_statistics: NormStatistics = "kept"
    ) -> None:
        """Put tail and head together.

        Args:
            tail: the blocks behind the cut, or None.
            head: on the features of `columns`.
            columns: which of the tail's features the head takes.
            norm_statistics: 'kept' leaves normalisation layers in evaluation mode whatever is called on the network.
        """
        super().__init__()
        self.tail = tail
        self.head = head
        self.columns = columns
        self.norm_statistics = norm_statistics
        self.frozen = frozenset(name for name, parameter in self.named_parameters() if not parameter.requires_grad)

    def forward(self, state: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Give scores (B, K) for states (B, …) and pooled features (B, P)."""
        features = pooled if self.tail is None else self.tail(state, pooled)
        return self.head(features[:, self.columns])

    def train(self, mode: bool = True) -> TunableNetwork:
        """Training mode, save for what is frozen: normalisation whose statistics are kept, and blocks that do not train."""
        super().train(mode)
        if mode and self.norm_statistics == "kept":
            self.rest_norms()
        if mode and self.tail is not None:
            network = self.tail.network
            parameters = dict(network.named_parameters())
            for block in tail_blocks(network):
                trains = any(parameters[name].requires_grad for name in block.parameters)
                for layer in () if trains else block.layers:
                    network.get_submodule(layer).train(False)
        return self

    def rest_norms(self) -> None:
        """Put normalisation layers into evaluation mode: they go by the statistics they have, and learn none."""
        for module in self.modules():
            if isinstance(module, NORMS):
                module.train(False)

    def blocks(self) -> list[list[str]]:
        """Names of the tail's parameters by block, first block first, without those that were frozen from the start.

        Blocks without parameters are left out.
        """
        if self.tail is None:
            return []
        named = ([f"tail.network.{name}" for name in names] for names in parameters_by_block(self.tail.network))
        trained = ([name for name in names if name not in self.frozen] for names in named)
        return [names for names in trained if names]


@dataclass(frozen=True, kw_only=True)
class TailBlock:
    """What a block of a tail consists of."""

    parameters: tuple[str, ...]
    """Names, of those that no earlier block has; at least one."""
    layers: tuple[str, ...]
    """Names of the modules."""


def tail_blocks(network: nn.Module) -> list[TailBlock]:
    """Tell a tapped network's parameters and layers by the block they belong to.

    Args:
        network: gives a list with the output of each of its blocks.

    Returns:
        The blocks that have parameters, first to last.
    """
    if isinstance(network, PooledTexts | EncoderTail):
        return [TailBlock(parameters=parameters, layers=modules) for parameters, modules in text_blocks(network)]
    if isinstance(network, SoundNetwork):
        named = {name: tuple(part for part, _ in block.named_parameters(name)) for name, block in _sound_blocks(network)}
        return [TailBlock(parameters=parameters, layers=(name,)) for name, parameters in named.items() if parameters]
    if not isinstance(network, fx.GraphModule):
        children = tuple(name for name, _ in network.named_children())
        return [TailBlock(parameters=tuple(name for name, _ in network.named_parameters()), layers=children)]
    (output,) = (node for node in network.graph.nodes if node.op == "output")
    ends = set(output.all_input_nodes)
    # Taken out one by one, so that each is in one block, under one name, though two layers may share it.
    left = {parameter: name for name, parameter in network.named_parameters()}
    blocks: list[tuple[list[str], list[str]]] = [([], [])]
    for node in network.graph.nodes:
        parameters, layers = blocks[-1]
        parameters += [left.pop(parameter) for parameter in _parameters_of(network, node) if parameter in left]
        if node.op == "call_module":
            layers.append(str(node.target))
        if node in ends:
            blocks.append(([], []))
    return [TailBlock(parameters=tuple(names), layers=tuple(layers)) for names, layers in blocks if names]


def _sound_blocks(network: SoundNetwork) -> list[tuple[str, nn.Module]]:
    return [(f"blocks.{number}", block) for number, block in enumerate(network.blocks)]


def parameters_by_block(network: nn.Module) -> list[list[str]]:
    """Names of a tapped network's parameters, by the block they belong to, first block first."""
    return [list(block.parameters) for block in tail_blocks(network)]


def _parameters_of(network: fx.GraphModule, node: fx.Node) -> Iterator[nn.Parameter]:
    target = str(node.target)
    if node.op == "call_module":
        yield from network.get_submodule(target).parameters()
    elif node.op == "get_attr":
        owner, _, name = target.rpartition(".")
        value = getattr(network.get_submodule(owner), name)
        if isinstance(value, nn.Parameter):
            yield value
