"""The trainable part of a network: the tail behind the cut, and the head it starts from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import fx, nn

from headstart.backbones.pooling import PooledTail
from headstart.heads.linear import LinearHead
from headstart.tuning.plan import NormStatistics

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


class TrainedHead(nn.Module):
    """A head on standardised features: linear, or with hidden layers.

    Raw features differ in scale by orders of magnitude from block to block, and one learning rate would be too much for some
    weights and nothing for others; so the head sees them with mean 0 and deviation 1, and `as_linear` folds that in.
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
        weight = torch.from_numpy((head.weight / temperatures[:, None]).astype(np.float32))
        bias = torch.from_numpy((head.bias / temperatures).astype(np.float32))
        with torch.no_grad():
            linear = made.layers[0]
            linear.weight.copy_(weight * made.scale)  # type: ignore[operator]
            linear.bias.copy_(bias + weight @ made.mean)  # type: ignore[operator]
        return made

    @classmethod
    def with_hidden(
        cls, features: np.ndarray, num_outputs: int, *, hidden: tuple[int, ...], dropout: float, seed: int
    ) -> TrainedHead:
        """A head with hidden layers, each followed by ReLU and dropout; it begins at random.

        Args:
            features: (N, D) of the training items.
            num_outputs: K.
            hidden: width of each hidden layer.
            dropout: share of a hidden layer's outputs left out in training, in [0, 1).
            seed: of the first weights.
        """
        widths = [features.shape[1], *hidden]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts: list[nn.Module] = []
            for before, behind in pairwise(widths):
                parts += [nn.Linear(before, behind), nn.ReLU(), nn.Dropout(dropout)]
            return cls(features, nn.Sequential(*parts, nn.Linear(widths[-1], num_outputs)))

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
        return [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in pairs]

    def as_linear(self) -> LinearHead:
        """The head on raw features, if it has no hidden layer."""
        ((weight, bias),) = self.dense_layers()
        return LinearHead(kind="tuned", weight=weight, bias=bias)


class TunableNetwork(nn.Module):
    """From the state at a cut and the pooled features before it to scores.

    With no tail the features come as they are, and only the head trains.
    """

    def __init__(
        self, tail: PooledTail | None, head: TrainedHead, *, columns: slice, norm_statistics: NormStatistics = "kept"
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

    def forward(self, state: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Give scores (B, K) for states (B, …) and pooled features (B, P)."""
        features = pooled if self.tail is None else self.tail(state, pooled)
        return self.head(features[:, self.columns])

    def train(self, mode: bool = True) -> TunableNetwork:
        """Training mode, but for normalisation layers whose statistics are kept, and layers without any trained weight."""
        super().train(mode)
        if mode and self.norm_statistics == "kept":
            for module in self.modules():
                if isinstance(module, NORMS):
                    module.train(False)
        return self

    def blocks(self) -> list[list[str]]:
        """Names of the tail's parameters by block, first block first; blocks without parameters are left out."""
        if self.tail is None:
            return []
        return [[f"tail.network.{name}" for name in names] for names in parameters_by_block(self.tail.network)]


def parameters_by_block(network: nn.Module) -> list[list[str]]:
    """Names of a tapped network's parameters, by the block they belong to.

    Args:
        network: gives a list with the output of each of its blocks.

    Returns:
        For each block that has some, its parameters' names.
    """
    if not isinstance(network, fx.GraphModule):
        return [[name for name, _ in network.named_parameters()]]
    (output,) = (node for node in network.graph.nodes if node.op == "output")
    ends = set(output.all_input_nodes)
    seen: set[str] = set()
    blocks: list[list[str]] = [[]]
    for node in network.graph.nodes:
        for name in _parameters_of(network, node):
            if name not in seen:
                seen.add(name)
                blocks[-1].append(name)
        if node in ends:
            blocks.append([])
    return [names for names in blocks if names]


def _parameters_of(network: fx.GraphModule, node: fx.Node) -> Iterator[str]:
    target = str(node.target)
    if node.op == "call_module":
        for name, _ in network.get_submodule(target).named_parameters():
            yield f"{target}.{name}"
    elif node.op == "get_attr" and isinstance(_attribute(network, target), nn.Parameter):
        yield target


def _attribute(network: nn.Module, target: str) -> object:
    owner, _, name = target.rpartition(".")
    return getattr(network.get_submodule(owner), name)
