"""What a network does not know, or does not read, of a set of texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headstart.records import Finding

if TYPE_CHECKING:
    import tokenizers

MOST_UNKNOWN = 0.02
"""Of all tokens; English mails have under 0.001, and a language that a tokenizer does not know far more."""
MOST_LEFT_OUT = 0.2
"""Of all words, where those without a vector are left out: a fifth of a text is more than names and misspellings."""
WORST_TEXT = 0.2
"""Of a text's own tokens, from where on the text is named."""
STRANGE_TEXT = 0.5
"""Of a text's own tokens, from where on it is named although the others are known."""
FEWEST_CHARACTERS = 1.6
"""A token, within words: English has 4, and a language of which a tokenizer knows little more than the letters 1.2."""
MOST_TOKENS = 3.0
"""A word, where there are so few characters a token: English has 1.3."""
_READ = {
    "head": "of those only the beginning is read",
    "head+tail": "of those the beginning and the end are read",
    "windows": "those are read window after window",
}


def notice_texts(encodings: Mapping[str, tokenizers.Encoding], unknown: int | None, room: int, fitting: str) -> list[Finding]:
    """Say what share of texts is unknown to their tokenizer, and how many are longer than the network reads at once.

    Args:
        encodings: of each text, by its id, without special tokens.
        unknown: the token that stands for what is unknown; None where there is none.
        room: tokens that are read at once.
        fitting: what becomes of longer texts.

    Returns:
        A warning, a note, both or neither.
    """
    return [*_tell_unknown(encodings, unknown), *tell_longer(encodings, room, fitting)]


def tell_left_out(encodings: Mapping[str, tokenizers.Encoding], unknown: int) -> list[Finding]:
    """Say what share of the words of some texts has no vector, and is left out.

    Args:
        encodings: of each text, by its id.
        unknown: the token that stands for a word without a vector.

    Returns:
        A note; a warning from a fifth of all words on, or where some texts have no word with a vector.
    """
    counts = {id_: (encoding.ids.count(unknown), len(encoding.ids)) for id_, encoding in encodings.items()}
    total, missed = (sum(column) for column in ((pair[1] for pair in counts.values()), (pair[0] for pair in counts.values())))
    empty = tuple(sorted(id_ for id_, (count, length) in counts.items() if count == length))
    share = missed / max(total, 1)
    grave = share >= MOST_LEFT_OUT or len(empty) > MOST_UNKNOWN * len(counts)
    none = f" {len(empty):,} of the texts have no other words, and look all alike to it." if empty else ""
    return [
        Finding(
            kind="unknown_words",
            severity="warning" if grave else "info",
            items=empty,
            message=f"{share:.1%} of the words of {len(counts):,} texts looked at have no vector and are left out.{none}",
            mend="choose vectors for this language and kind of text, or a backbone that reads pieces of words: --backbone auto."
            if grave
            else "nothing: names, numbers and misspelt words seldom have one.",
        )
    ]


def tell_spelled(encodings: Mapping[str, tokenizers.Encoding], texts: Sequence[str], room: int) -> list[Finding]:
    """Say so where a tokenizer knows little more than the letters of some texts, as one of another language does.

    Args:
        encodings: of each text, by its id, without special tokens.
        texts: the same texts in this order. Those mostly in wide characters (Chinese, Japanese, Korean) have few a word anyway.
        room: tokens that are read at once.

    Returns:
        A warning or nothing.
    """
    spelled = [
        _count_spelling(encoding) for encoding, text in zip(encodings.values(), texts, strict=True) if not _is_wide(text)
    ]
    characters, tokens, words = (sum(counts) for counts in zip(*spelled, strict=True)) if spelled else (0, 0, 0)
    if not tokens or characters >= FEWEST_CHARACTERS * tokens or tokens <= MOST_TOKENS * words:
        return []
    each = tokens / words
    return [
        Finding(
            kind="unknown_language",
            severity="warning",
            items=(),
            message="the backbone's tokenizer takes these texts apart nearly letter by letter: "
            f"{characters / tokens:.1f} characters a token and {each:.1f} tokens a word, where a language that it knows has "
            f"about 4 and 1.3. It reads about {room / each:.0f} words at once, and the network has learned little of this "
            "language.",
            mend="choose a backbone for this language: --backbone hf:NAME, such as hf:xlm-roberta-base.",
        )
    ]


def _count_spelling(encoding: tokenizers.Encoding) -> tuple[int, int, int]:
    """Characters, tokens and words of a text, in words of two or more characters."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for word, span in zip(encoding.word_ids, encoding.offsets, strict=True):
        if word is not None:
            spans.setdefault(word, []).append(span)
    sizes = [(found[-1][1] - found[0][0], len(found)) for found in spans.values()]
    sizes = [(size, count) for size, count in sizes if size > 1]
    return sum(size for size, _ in sizes), sum(count for _, count in sizes), len(sizes)


def _is_wide(text: str) -> bool:
    looked_at = [character for character in text[:1000] if character.isalpha()]
    return sum(unicodedata.east_asian_width(character) in "WF" for character in looked_at) > len(looked_at) / 2


def _tell_unknown(encodings: Mapping[str, tokenizers.Encoding], unknown: int | None) -> list[Finding]:
    if unknown is None:
        return []
    counts = {id_: (encoding.ids.count(unknown), len(encoding.ids)) for id_, encoding in encodings.items()}
    total = sum(length for _, length in counts.values())
    missed = sum(count for count, _ in counts.values())
    if missed <= MOST_UNKNOWN * total:
        return _tell_strangers([id_ for id_, (count, length) in counts.items() if count > STRANGE_TEXT * length], len(counts))
    worst = sorted((id_ for id_, (count, length) in counts.items() if count >= WORST_TEXT * max(length, 1)))
    return [
        Finding(
            kind="unknown_tokens",
            severity="warning",
            items=tuple(worst),
            message=f"{missed / total:.0%} of the tokens of {len(counts):,} texts looked at are unknown to the backbone's "
            "tokenizer: it sees no difference between such words.",
            mend="choose a backbone for this language or kind of text: --backbone hf:NAME, such as hf:xlm-roberta-base.",
        )
    ]


def _tell_strangers(ids: list[str], looked_at: int) -> list[Finding]:
    """Name the few texts that a tokenizer mostly does not know, where it knows the others."""
    if not ids:
        return []
    return [
        Finding(
            kind="unknown_tokens",
            severity="warning",
            items=tuple(sorted(ids)),
            message=f"{len(ids):,} of {looked_at:,} texts looked at are mostly unknown to the backbone's tokenizer: "
            "to it they look all alike.",
            mend="remove them, or choose a backbone for their language: --backbone hf:NAME, such as hf:xlm-roberta-base.",
        )
    ]


def tell_longer(encodings: Mapping[str, tokenizers.Encoding], room: int, fitting: str) -> list[Finding]:
    """Say how many texts are longer than the network reads at once, and what becomes of those.

    Args:
        encodings: of each text, by its id, without special tokens.
        room: tokens that are read at once.
        fitting: what becomes of longer texts.
    """
    longer = [id_ for id_, encoding in encodings.items() if len(encoding.ids) > room]
    if not longer:
        return []
    return [
        Finding(
            kind="long_texts",
            severity="info",
            items=tuple(longer),
            message=f"{len(longer):,} of {len(encodings):,} texts looked at are longer than the {room} tokens that are read "
            f"at once: {_READ[fitting]}.",
            mend="nothing, unless what matters comes late in them: --geometry head+tail or windows reads on.",
        )
    ]
