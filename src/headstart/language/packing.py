"""Documents as blocks of tokens, all of one length: every token is learned once and none is lost.

Documents follow each other in a stream, each begun by the tokenizer's first token (its end token, where it has no first) and
closed by its end token; the stream is cut into blocks. Position by position a block says what is read and what comes next. A
pair of prompt and completion is cut only where it is longer than a block, so that no completion loses its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.errors import DataError
from headstart.language.corpus import Document

NO_TARGET = -100
"""In place of the next token where it is not learned: in prompts, and behind the last document."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One document's tokens."""

    read: np.ndarray
    """(T,) int64."""
    following: np.ndarray
    """(T,) int64: the token that comes next, or `NO_TARGET`."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Tokens of documents, packed."""

    read: np.ndarray
    """(N, T) int64; 0 behind the last document."""
    following: np.ndarray
    """(N, T) int64: the token that comes next, or `NO_TARGET`."""
    owner: np.ndarray
    """(N, T) int32: the number of the document that the position belongs to; -1 for none."""
    num_bytes: int
    """UTF-8 bytes of the text that is learned."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are learned."""
        return int((self.following != NO_TARGET).sum())

    def __len__(self) -> int:
        return len(self.read)


def encode(document: Document, tokenizer: Any) -> Encoded:  # noqa: ANN401 - a fast tokenizer of transformers
    """Turn a document into tokens.

    Args:
        document: with its prompt, if it has one; the two are joined as they are.
        tokenizer: of the model.

    Returns:
        What is read, and what comes next.
    """
    backend = tokenizer.backend_tokenizer
    given = backend.encode(document.prompt, add_special_tokens=False).ids if document.prompt else []
    learned = backend.encode(document.text, add_special_tokens=False).ids
    end = tokenizer.eos_token_id
    start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    last = [] if end is None or document.goes_on else [end]
    tokens = np.array([*([] if start is None else [start]), *given, *learned, *last], np.int64)
    following = tokens[1:].copy()
    following[: max(len(given) - (start is None), 0)] = NO_TARGET
    return Encoded(read=tokens[:-1], following=following)


def pack(documents: Sequence[Document], tokenizer: Any, context: int) -> Blocks:  # noqa: ANN401 - as above
    """Pack documents into blocks.

    Args:
        documents: at least one.
        tokenizer: of the model.
        context: T, tokens of a block.

    Returns:
        The blocks; what is left of the last one is empty.
    """
    encoded = [encode(document, tokenizer) for document in documents]
    whole = [bool(document.prompt) for document in documents]
    gaps = _gaps([len(one.read) for one in encoded], whole, context)
    reads, followings, owners = [], [], []
    for number, (one, gap) in enumerate(zip(encoded, gaps, strict=True)):
        reads += [np.zeros(gap, np.int64), one.read]
        followings += [np.full(gap, NO_TARGET, np.int64), one.following]
        owners += [np.full(gap, -1, np.int32), np.full(len(one.read), number, np.int32)]
    rest = -sum(map(len, reads)) % context
    return Blocks(
        read=np.concatenate([*reads, np.zeros(rest, np.int64)]).reshape(-1, context),
        following=np.concatenate([*followings, np.full(rest, NO_TARGET, np.int64)]).reshape(-1, context),
        owner=np.concatenate([*owners, np.full(rest, -1, np.int32)]).reshape(-1, context),
        num_bytes=sum(len(document.text.encode()) for document in documents),
    )


def _gaps(lengths: list[int], whole: list[bool], context: int) -> list[int]:
    """How many positions stay empty before each document, so that those to be kept whole are."""
    gaps, place = [], 0
    for length, keep in zip(lengths, whole, strict=True):
        room = context - place % context
        gap = room if keep and room < length <= context else 0
        gaps.append(gap)
        place += gap + length
    return gaps


def check_length(blocks: Blocks, part: str) -> None:
    """Refuse a part of a corpus that is too short to say anything.

    Args:
        blocks: of the part.
        part: its name.

    Raises:
        DataError: if it has less than one block's tokens to learn from (`part` "train"), or none.
    """
    least = blocks.read.shape[1] if part == "train" else 1
    if blocks.num_tokens < least:
        raise DataError(
            f"the corpus is too short: its {part} part has {blocks.num_tokens} tokens to learn from.",
            expected=f"at least one block of {blocks.read.shape[1]} tokens to train on, and some to test on.",
            mend="more text, or a shorter block: --context 32.",
        )
