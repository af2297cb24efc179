"""What trains of a language model: the layers behind a cut, or all of it; it gives the loss of each token.

The vocabulary's scores are by far the largest array of a language model. Where its weights are frozen, they are never held for
more than a few hundred tokens at once: each token's loss and its gradient are computed together, while the scores are at hand.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from headstart.backbones.encoder import EncoderTail
from headstart.language.packing import NO_TARGET
from headstart.tuning.network import Trainable

ROWS_AT_ONCE = 256
"""Tokens whose scores are held at once: with few, the scores stay where the processor reaches them soonest."""


class _FrozenLoss(torch.autograd.Function):
    """Cross-entropy behind a frozen linear layer, a few rows at a time."""

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401 - torch's own
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        losses = torch.empty(len(hidden), device=hidden.device)
        gradient = torch.empty_like(hidden) if context.needs_input_grad[0] else None
        for start in range(0, len(hidden), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            scores = functional.linear(hidden[rows], weight, bias).float()
            wanted = scores.gather(1, targets[rows, None])
            peak = scores.amax(1, keepdim=True)
            # One exponential a score, in place: these arrays are what takes the time.
            shares = scores.sub_(peak).exp_()
            total = shares.sum(1, keepdim=True)
            losses[rows] = (total.log() + peak - wanted)[:, 0]
            if gradient is not None:
                gradient[rows] = shares.to(weight.dtype) @ weight / total - weight[targets[rows]]
        context.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(context: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:  # noqa: ANN401 - as above
        (gradient,) = context.saved_tensors
        return gradient * upstream[:, None].to(gradient.dtype), None, None, None


def token_losses(hidden: torch.Tensor, vocabulary: nn.Module, following: torch.Tensor) -> torch.Tensor:
    """How unexpected each next token is.

    Args:
        hidden: (B, T, H), the last hidden state.
        vocabulary: from (…, H) to scores (…, V).
        following: (B, T) int64 tokens, or `NO_TARGET`.

    Returns:
        (B, T) float32 cross-entropies in nats; 0 where there is no target.
    """
    counted = following != NO_TARGET
    chosen, targets = hidden[counted], following[counted]
    if any(parameter.requires_grad for parameter in vocabulary.parameters()):
        found = functional.cross_entropy(vocabulary(chosen).float(), targets, reduction="none")
    else:
        found = _FrozenLoss.apply(chosen, vocabulary.weight, vocabulary.bias, targets)
    return torch.zeros(following.shape, device=hidden.device).masked_scatter(counted, found)


class WritingNetwork(Trainable):
    """From states at a cut, or tokens, and the tokens that come next, to the loss of each."""

    def __init__(self, body: nn.Module, vocabulary: nn.Module, *, layers: str) -> None:
        """Put a body and a vocabulary together.

        Args:
            body: an `EncoderTail`, from states (B, T, H); or a network of transformers without its vocabulary, from tokens.
            vocabulary: the linear layer behind it.
            layers: the name of the list of layers in the network of transformers.
        """
        super().__init__()
        self.body = body
        self.vocabulary = vocabulary
        self._layers = ("body.encoder.network." if isinstance(body, EncoderTail) else "body.") + layers

    def forward(self, state: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """Losses (B, T) of the tokens that follow (B, T), for states (B, T, H) or tokens (B, T)."""
        if isinstance(self.body, EncoderTail):
            hidden = self.body(state, torch.ones(state.shape[:2], dtype=torch.bool, device=state.device))[-1]
        else:
            hidden = self.body(input_ids=state, use_cache=False).last_hidden_state
        return token_losses(hidden, self.vocabulary, following)

    def train(self, mode: bool = True) -> Self:
        """Training mode, save for layers that do not train: their dropout stays off."""
        super().train(mode)
        for layer in self.get_submodule(self._layers).children() if mode else ():
            layer.train(any(parameter.requires_grad for parameter in layer.parameters()))
        return self

    def rest_norms(self) -> None:
        """Language models have no normalisation with statistics of a batch."""

    def blocks(self) -> list[list[str]]:
        """Names of the parameters that train, by block: embeddings, each layer, what is behind them."""
        names = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        listed = [f"{self._layers}.{number}." for number in range(len(list(self.get_submodule(self._layers).children())))]
        places = {name: place for name in names for place, start in enumerate(listed, 1) if name.startswith(start)}
        inputs = {id(parameter) for parameter in self._embeddings()}
        parameters = dict(self.named_parameters())
        for name in names:
            places.setdefault(name, 0 if id(parameters[name]) in inputs else len(listed) + 1)
        blocks = [[name for name in names if places[name] == place] for place in range(len(listed) + 2)]
        return [block for block in blocks if block]

    def _embeddings(self) -> list[nn.Parameter]:
        """Parameters of tables that tokens or positions are looked up in."""
        return [
            parameter for module in self.body.modules() if isinstance(module, nn.Embedding) for parameter in module.parameters()
        ]
