"""A table of token vectors as a network: looked up, then made one vector of a text in two ways."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from headstart.backbones.encoder import masked_mean
from headstart.backbones.word_weights import common_component, root_mean_square, sif_weights, zipf_frequencies


class WordTable(nn.Module):
    """Vectors of V tokens, their weights in a text, and the direction that texts share.

    The vectors are kept with a root mean square of 1, and `scale` brings them back: one learning rate then suits every table,
    and no number is too small or too large for float16.
    """

    table: torch.Tensor
    places: torch.Tensor
    weights: torch.Tensor
    component: torch.Tensor
    scale: torch.Tensor

    def __init__(self, vectors: np.ndarray, ranks: np.ndarray) -> None:
        """Take over a table.

        Args:
            vectors: (V, D); rows of tokens that are left out are 0.
            ranks: (V,) place of each token by frequency; -1 for those that are left out.
        """
        super().__init__()
        known = ranks >= 0
        weights = np.zeros(len(vectors))
        frequencies = np.zeros(len(vectors))
        frequencies[known] = zipf_frequencies(ranks[known])
        weights[known] = sif_weights(frequencies[known])
        scale = root_mean_square(vectors)
        self.table = nn.Parameter(torch.from_numpy((vectors / np.float32(scale)).astype(np.float16)))
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))
        component = common_component(vectors, frequencies, weights)
        self.register_buffer("component", torch.from_numpy(component.astype(np.float32)))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.rows: nn.Parameter | None = None

    def train_tokens(self, ids: np.ndarray) -> None:
        """Let the vectors of some tokens train, in float32, and freeze all others.

        No other token's vector has a gradient, and to go over a whole table at every step takes most of a training's time.

        Args:
            ids: of the tokens that occur.
        """
        whole = self.table.detach()
        chosen = torch.from_numpy(np.unique(ids[ids >= 0]))
        places = torch.full((len(whole),), -1)
        places[chosen] = torch.arange(len(chosen))
        del self.table
        self.register_buffer("table", whole, persistent=False)
        self.register_buffer("places", places, persistent=False)
        self.rows = nn.Parameter(whole[chosen].float())

    def put_back(self) -> None:
        """Put the vectors that trained back into the table, as it was before `train_tokens`."""
        if self.rows is None:
            return
        whole = self.table.clone()
        whole[self.places >= 0] = self.rows.detach().to(whole.dtype)
        del self.table, self.places
        self.table = nn.Parameter(whole)
        self.rows = None

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up tokens (B, T), -1 where there is none: gives vectors (B, T, D) and weights (B, T), 0 where there is none."""
        ids = tokens.clamp(min=0)
        vectors = nn.functional.embedding(ids, self.table).float()
        if self.rows is not None:
            places = self.places[ids]
            trained = nn.functional.embedding(places.clamp(min=0), self.rows)
            vectors = torch.where((places >= 0)[..., None], trained, vectors)
        return vectors * self.scale, self.weights[ids] * (tokens >= 0)


class WordEncoder(nn.Module):
    """A table of vectors, and the two ways of making one vector of a text's."""

    layers = ""
    num_layers = 0

    def __init__(self, network: WordTable) -> None:
        """Wrap a table."""
        super().__init__()
        self.network = network

    def pooled(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make vectors of texts.

        Args:
            tokens: (B, T) int64 ids, -1 where there is none.

        Returns:
            (B, 2 D), the mean of the vectors that are known, and their SIF mean, 0 where none is known; and the mask (B, T).
        """
        vectors, weights = self.network(tokens)
        known = weights > 0
        weighted = masked_mean(vectors * weights[..., None], known)
        component = self.network.component
        shared = (weighted * component).sum(1, keepdim=True) * component
        return torch.cat([masked_mean(vectors, known), weighted - shared], dim=1), tokens >= 0
