"""Learning from pairs: features of one label are drawn together, those of two labels apart.

The loss is SetFit's (Tunstall et al. 2022, arXiv 2209.11055), the squared error of each pair's cosine against 1 or 0. There
a pair is a sample of its own, so that a text goes through the network once for each pair it is part of. Here all pairs of a
batch are compared, and each text of it goes through the network once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from headstart.backbones.parts import Tail
from headstart.tuning.network import TrainedHead, TunableNetwork


def pair_losses(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean squared error of the cosines of a batch's pairs: 1 is wanted within a label, and 0 between two.

    Pairs within a label count together as much as those between labels, as in SetFit's oversampling, and a text is not compared
    with itself. Where a batch has pairs of one sort only, the other sort counts nothing.

    Args:
        vectors: (B, D) features, of any length.
        labels: (B,) int64.

    Returns:
        (B,) losses, of which the mean is the batch's.
    """
    directions = functional.normalize(vectors, dim=1)
    same = labels[:, None] == labels[None]
    errors = (directions @ directions.T - same.to(vectors.dtype)).square()
    together = same & ~torch.eye(len(labels), dtype=torch.bool, device=vectors.device)
    weights = sum(sort / (2 * sort.sum().clamp(min=1)) for sort in (together, ~same))
    return len(labels) * (weights * errors).sum(dim=1)


def count_alike(vectors: torch.Tensor, labels: torch.Tensor) -> float:
    """How many of a batch's samples have the label of the one nearest to them by the cosine.

    Args:
        vectors: (B, D) features.
        labels: (B,) int64.
    """
    if len(labels) < 2:
        return 0.0
    directions = functional.normalize(vectors, dim=1)
    cosines = (directions @ directions.T).fill_diagonal_(-2.0)
    return float((labels[cosines.argmax(dim=1)] == labels).sum())


def network_of_features(tail: Tail, columns: slice, width: int) -> TunableNetwork:
    """A network that gives a tail's features as they are, in place of scores.

    Args:
        tail: trained by the pairs; not copied.
        columns: which of its features.
        width: D, how many they are.
    """
    head = TrainedHead(np.zeros((1, width), np.float32), nn.Sequential())
    head.scale.fill_(1.0)
    return TunableNetwork(tail, head, columns=columns)
