"""Writing: one token after the other, drawn from what the model thinks likely."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch

from headstart.backbones.causal import CausalBackbone
from headstart.errors import SettingError
from headstart.language.draws import Sampling

_HALF = "\N{REPLACEMENT CHARACTER}"


def write(backbone: CausalBackbone, prompt: str, sampling: Sampling) -> Iterator[str]:
    """Go on from a prompt.

    The same model, prompt and numbers give the same text, whatever torch's random state is.

    Args:
        backbone: in evaluation mode.
        prompt: what comes before; '' begins anew.
        sampling: how tokens are drawn.

    Yields:
        Pieces of the text, the prompt left out, as soon as they are whole characters.

    Raises:
        SettingError: if the prompt is empty, and the tokenizer has no token that begins a text.
    """
    given = encode_prompt(backbone, prompt)
    tokens: list[int] = []
    told = ""
    for token in _draw(backbone, given, sampling):
        tokens.append(token)
        text = _decode(backbone, given, tokens)
        # Half a character's bytes are shown as this mark, until the other half is there.
        if not text.endswith(_HALF):
            yield text[len(told) :]
            told = text
    rest = _decode(backbone, given, tokens)[len(told) :]
    if rest:
        yield rest


def encode_prompt(backbone: CausalBackbone, prompt: str) -> list[int]:
    """The tokens that a model reads before it writes: as in training, begun by the tokenizer's first token."""
    tokenizer = backbone.tokenizer
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    tokens = tokenizer.backend_tokenizer.encode(prompt, add_special_tokens=False).ids if prompt else []
    given = [*([] if start is None else [start]), *tokens]
    if not given:
        raise SettingError(
            "the prompt is empty.", expected="at least one character.", mend='headstart generate ARTIFACT "Once"'
        )
    return given


def _decode(backbone: CausalBackbone, given: list[int], tokens: list[int]) -> str:
    """What the tokens add to the prompt: decoded together, since some tokenizers drop a space at the beginning."""
    decode = backbone.tokenizer.backend_tokenizer.decode
    before = given[-1:]
    return decode([*before, *tokens], skip_special_tokens=True)[len(decode(before, skip_special_tokens=True)) :]


def _draw(backbone: CausalBackbone, given: list[int], sampling: Sampling) -> Iterator[int]:
    """Token after token, until the end token or as many as are asked for."""
    network, most = backbone.network, backbone.max_tokens
    device = next(network.parameters()).device
    random = torch.Generator().manual_seed(sampling.seed)
    end = backbone.tokenizer.eos_token_id
    argument = _past_argument(network)
    read, past = given[-(most - 1) :], None
    fresh = read
    for _ in range(sampling.max_new_tokens):
        if len(read) >= most:
            # What is written no longer fits: the model goes on from its later half.
            read, past = read[-(most // 2) :], None
            fresh = read
        with torch.no_grad():
            found = network(input_ids=torch.tensor([fresh], device=device), use_cache=True, **{argument: past})
        past = found[argument]
        token = _choose(found.logits[0, -1].float().cpu(), sampling, random)
        if token == end:
            return
        yield token
        read, fresh = [*read, token], [token]


def _past_argument(network: torch.nn.Module) -> str:
    """How the network calls what it has read: transformers renamed it in 5.24, in what it takes and what it gives."""
    names = inspect.signature(network.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def _choose(scores: torch.Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """One token by its score (V,)."""
    if sampling.temperature == 0:
        return int(scores.argmax())
    ordered, tokens = torch.sort(scores / sampling.temperature, descending=True, stable=True)
    shares = torch.softmax(ordered, 0)
    kept = torch.ones_like(shares, dtype=torch.bool)
    kept[sampling.top_k or len(shares) :] = False
    # The token that reaches the probability is in, and so is always the first.
    kept &= torch.cumsum(shares, 0) - shares < sampling.top_p
    place = torch.multinomial(shares * kept, 1, generator=random)
    return int(tokens[place])


def write_whole(backbone: CausalBackbone, prompt: str, **numbers: Any) -> str:  # noqa: ANN401 - those of Sampling
    """Go on from a prompt, and give the whole text.

    Args:
        backbone: in evaluation mode.
        prompt: what comes before.
        **numbers: of `Sampling`.
    """
    return "".join(write(backbone, prompt, Sampling(**numbers)))
