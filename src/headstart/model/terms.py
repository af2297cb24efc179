"""The terms of a saved model: plain data, read strictly, and what they add to the network's answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from headstart.heads.terms import PARTS, RULES, TermsHead, Vocabulary

TERMS_INPUT = "terms_scores"
"""The network's second input, where terms are part: (B, K) float32."""
VOCABULARY, WEIGHTS = "terms.json", "terms.safetensors"


def pack_terms(head: TermsHead) -> dict[str, bytes]:
    """Write a head on terms as two files: the terms in words, and their numbers.

    Args:
        head: with all factors and temperatures in its weights.

    Returns:
        terms.json, `{"rules": 1, "words": [...], "characters": [...]}`, and terms.safetensors with `rarity` (V,) float64,
        `weight` (V, K) and `bias` (K,) float32; the same head gives the same bytes.
    """
    told = {"rules": RULES} | {vocabulary.part: list(vocabulary.terms) for vocabulary in head.vocabularies}
    tensors = {
        "rarity": np.concatenate([vocabulary.rarity for vocabulary in head.vocabularies]),
        "weight": np.ascontiguousarray(head.weight),
        "bias": np.ascontiguousarray(head.bias),
    }
    content = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    return {VOCABULARY: content, WEIGHTS: save_tensors(tensors)}


def unpack_terms(contents: Mapping[str, bytes], num_outputs: int) -> TermsHead:
    """Read what `pack_terms` wrote.

    Args:
        contents: of the two files, by name.
        num_outputs: K.

    Returns:
        The head.

    Raises:
        ValueError: if the files are not what `pack_terms` writes; the message says how.
    """
    try:
        told, tensors = json.loads(contents[VOCABULARY]), load_tensors(contents[WEIGHTS])
    except (ValueError, RecursionError, SafetensorError) as problem:
        raise ValueError(f"it cannot be read ({type(problem).__name__})") from problem
    if not isinstance(told, dict) or set(told) != {"rules", *PARTS} or told["rules"] != RULES:
        raise ValueError(f"it holds no terms of rules {RULES}")
    if not all(_are_different_texts(told[part]) for part in PARTS):
        raise ValueError("its terms are not texts, each one once")
    count = sum(len(told[part]) for part in PARTS)
    wanted = {
        "rarity": ((count,), np.float64),
        "weight": ((count, num_outputs), np.float32),
        "bias": ((num_outputs,), np.float32),
    }
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if found != wanted or not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(f"its {count} terms and the numbers in {WEIGHTS} do not fit each other")
    rarities = np.split(tensors["rarity"], [len(told[PARTS[0]])])
    vocabularies = tuple(
        Vocabulary(part=part, terms=tuple(told[part]), rarity=rarity) for part, rarity in zip(PARTS, rarities, strict=True)
    )
    return TermsHead(vocabularies=vocabularies, weight=tensors["weight"], bias=tensors["bias"])


def _are_different_texts(values: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(values, list) and all(isinstance(value, str) for value in values) and len(set(values)) == len(values)
