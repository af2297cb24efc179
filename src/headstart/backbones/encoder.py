"""A text encoder as it is used: the pooled outputs of all its layers side by side, whole or cut between two layers.

Encoders of transformers keep their layers in one list, and everything else (masks, positions, relative biases) is made by the
code around it. So nothing here knows an architecture: a tail runs the encoder's own code, with the layers before the cut taken
out and the state put in where the first layer behind it would be called.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import nn

Summary = Literal["mean", "cls", "last"]
EMBEDDINGS, POOL = "embeddings", "pool"
# The one block of an encoder that keeps its layers in no list.
WHOLE = "encoder"


class Encoder(nn.Module):
    """An encoder of transformers, on token ids in which -1 stands for none."""

    def __init__(self, network: nn.Module, *, layers: str, summary: Summary, normalised: bool) -> None:
        """Wrap a network.

        Args:
            network: takes input_ids and attention_mask, and gives `last_hidden_state`.
            layers: the name of its list of layers; '' where it keeps them in none.
            summary: what the checkpoint makes of the last layer's output: the mean over the tokens, or one token's.
            normalised: whether that is then brought to length 1.
        """
        super().__init__()
        self.network = network
        self.layers = layers
        self.summary = summary
        self.normalised = normalised

    @property
    def num_layers(self) -> int:
        """How many layers the list holds."""
        return len(self.listed) if self.layers else 0

    @property
    def listed(self) -> list[nn.Module]:
        """The layers, first to last."""
        return list(self.network.get_submodule(self.layers).children())

    def forward(self, tokens: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Run the encoder.

        Args:
            tokens: (B, T) int64 ids, -1 where there is none.

        Returns:
            What the embeddings give, and each layer, (B, T, H) each; of layers in no list, what the last one gives. And the
            mask (B, T).
        """
        mask = tokens >= 0
        return self.run(tokens.clamp(min=0), mask), mask

    def run(self, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """Run the network on ids (B, T) and mask (B, T); gives what enters the first layer, and what each layer gives."""
        if not self.layers:
            return [self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state]
        outputs: list[torch.Tensor] = []
        layers = self.listed
        handles = [
            layers[0].register_forward_pre_hook(lambda _, given, named: outputs.append(_hidden(given, named)), with_kwargs=True)
        ]
        handles += [layer.register_forward_hook(lambda _, __, output: outputs.append(_first(output))) for layer in layers]
        try:
            given = self.network(input_ids=ids, attention_mask=mask.long())
        finally:
            for handle in handles:
                handle.remove()
        # The last is as the network gives it, behind a last normalisation, if it has one.
        return [*outputs[:-1], given.last_hidden_state]

    def pooled(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors of texts: the mean over the tokens of every output, and the summary of the last, side by side.

        Args:
            tokens: (B, T) int64 ids, -1 where there is none.

        Returns:
            (B, W), and the mask (B, T).
        """
        outputs, mask = self(tokens)
        return torch.cat([*(masked_mean(output, mask) for output in outputs), self.summarise(outputs[-1], mask)], dim=1), mask

    def summarise(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the checkpoint makes of the last layer's output: (B, T, H) to (B, H)."""
        match self.summary:
            case "mean":
                vector = masked_mean(hidden, mask)
            case "cls":
                vector = hidden[:, 0]
            case "last":
                vector = hidden[torch.arange(len(hidden)), (mask.long().sum(1) - 1).clamp(min=0)]
        return nn.functional.normalize(vector, dim=1) if self.normalised else vector


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are there: (B, T, H) to (B, H); 0 where there is none."""
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def in_windows(tokens: torch.Tensor, most: int) -> torch.Tensor:
    """Cut rows of tokens into windows: (B, L, …) to (B·V, L / V, …), V the least number that leaves at most `most` in each.

    Args:
        tokens: L is at most `most`, or a multiple of it.
        most: tokens that a network reads at once.
    """
    length = tokens.shape[1]
    num_windows = (length + most - 1) // most
    return tokens.reshape(-1, length // num_windows, *tokens.shape[2:])


def mean_over_windows(vectors: torch.Tensor, counts: torch.Tensor, rows: int) -> torch.Tensor:
    """Mean of each text's windows, weighted by their tokens: (B·V, W) and (B·V,) to (B, W)."""
    weights = counts.to(vectors.dtype).reshape(rows, -1, 1)
    return (vectors.reshape(rows, -1, vectors.shape[1]) * weights).sum(1) / weights.sum(1).clamp(min=1)


class EncoderTail(nn.Module):
    """The layers behind a cut: (B, T, H) and a mask (B, T) to the outputs of these layers."""

    def __init__(self, encoder: Encoder, first: int) -> None:
        """Copy an encoder's weights.

        Args:
            encoder: not changed.
            first: the number of the first layer that runs; their number, where none does.
        """
        super().__init__()
        self.encoder = without_layers(encoder, range(first))
        self.first = first
        self.state: torch.Tensor | None = None
        _shrink_embeddings(self.encoder.network)
        layers = self.encoder.listed
        if first < len(layers):
            layers[first].register_forward_pre_hook(self._enter, with_kwargs=True)

    def forward(self, state: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """Go on from the cut."""
        if self.first == self.encoder.num_layers:
            return []
        self.state = state
        try:
            return self.encoder.run(torch.zeros_like(mask, dtype=torch.long), mask)[self.first + 1 :]
        finally:
            self.state = None

    def freeze_what_does_not_run(self) -> None:
        """Let only the layers behind the cut train: what comes before them, embeddings above all, has no say any more."""
        behind = {id(parameter) for layer in self.encoder.listed[self.first :] for parameter in layer.parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in behind)

    def _enter(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put the state where the layer's input would be."""
        if given:
            return (self.state, *given[1:]), named
        return given, named | {"hidden_states": self.state}


def without_layers(encoder: Encoder, numbers: range) -> Encoder:
    """A copy of an encoder in which some layers give what they are given, and have no weights.

    Args:
        encoder: not changed.
        numbers: of the layers, counted from 0.
    """
    lengths = _tuple_lengths(encoder)
    copied = copy.deepcopy(encoder)
    layers = copied.listed
    for number in numbers:
        _leave_out(layers[number], lengths[number])
    return copied


def _shrink_embeddings(network: nn.Module) -> None:
    """Keep one row of the table of tokens: behind a cut every token is called 0, and copies of the table would be large."""
    table = network.get_input_embeddings()  # type: ignore[operator]
    if isinstance(table, nn.Embedding):
        table.weight = nn.Parameter(table.weight[:1].detach().clone(), requires_grad=False)
        table.num_embeddings, table.padding_idx = 1, None


def _leave_out(layer: nn.Module, length: int) -> None:
    """Make a layer give back what it is given, and take its weights away; other attributes stay, for who looks at them."""

    def forward(_: nn.Module, hidden_states: torch.Tensor, *__: object, **___: object) -> Any:  # noqa: ANN401 - as the layer
        return (hidden_states, *[None] * (length - 1)) if length else hidden_states

    layer.__class__ = type(f"LeftOut{type(layer).__name__}", (type(layer),), {"forward": forward})
    for name, _ in list(layer.named_children()):
        delattr(layer, name)
    for name, _ in list(layer.named_parameters(recurse=False)):
        delattr(layer, name)


def _tuple_lengths(encoder: Encoder) -> list[int]:
    """Of what each layer gives, where that is a tuple; 0 where it is a tensor."""
    seen: list[int] = []
    layers = encoder.listed
    handles = [
        layer.register_forward_hook(lambda _, __, output: seen.append(len(output) if isinstance(output, tuple) else 0))
        for layer in layers
    ]
    try:
        with torch.no_grad():
            encoder(torch.zeros(1, 4, dtype=torch.long))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _hidden(given: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
    """What enters a layer."""
    return given[0] if given else named["hidden_states"]


def _first(output: Any) -> torch.Tensor:  # noqa: ANN401 - a tensor, or a tuple that begins with it
    return output[0] if isinstance(output, tuple) else output
