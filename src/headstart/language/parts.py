"""The four parts of a corpus: what is learned from, what ends the training, what the gate judges on, what is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.data.duplicates import join_pairs
from headstart.errors import DataError
from headstart.language.corpus import Corpus, Document
from headstart.preprocess.shingles import find_near_copies
from headstart.records import Finding

# Fewer documents than this are each cut in four, in the order of the text.
LEAST_DOCUMENTS = 20
SHARES = {"test": 0.1, "valid": 0.06, "watch": 0.06}
"""Of all characters; the rest is 'train'."""
# Comparing runs of characters takes about a millisecond a document.
MOST_COMPARED = 5_000
MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Documents by what they are for."""

    train: tuple[Document, ...]
    watch: tuple[Document, ...]
    """Training ends by its loss on these."""
    valid: tuple[Document, ...]
    """On these the gate compares."""
    test: tuple[Document, ...]
    """Read once, at the end."""
    origin: str
    findings: tuple[Finding, ...] = ()


def part(corpus: Corpus, *, seed: int) -> Parts:
    """Divide a corpus.

    Args:
        corpus: as read.
        seed: of the random order of documents.

    Returns:
        Whole documents where there are at least 20, copies of each other on one side; else each document's beginning, and what
        follows it, in the text's own order.

    Raises:
        DataError: if there are pairs of prompt and completion, which cannot be cut, and too few of them.
    """
    if len(corpus.documents) < LEAST_DOCUMENTS:
        if corpus.paired:
            raise DataError(
                f"{corpus.source} holds {len(corpus.documents)} pairs of prompt and completion.",
                expected=f"at least {LEAST_DOCUMENTS}, so that some can be kept aside to judge by.",
                mend="write more of them.",
            )
        cut = [_cut(document) for document in corpus.documents]
        train, watch, valid, test = (
            tuple(one[name] for one in cut if one[name].text.strip()) for name in ("train", "watch", "valid", "test")
        )
        origin = "the text's own order: the last tenth is the test"
        return Parts(train=train, watch=watch, valid=valid, test=test, origin=origin)
    groups, finding = _group(corpus.documents)
    order = np.random.default_rng(seed).permutation(len(groups))
    total = sum(len(document.text) for document in corpus.documents)
    sides: dict[str, list[Document]] = {"train": [], **{name: [] for name in SHARES}}
    for group in (groups[place] for place in order):
        length = sum(len(document.text) for document in group)
        side = next((name for name, share in SHARES.items() if _has_room(sides[name], length, share * total)), "train")
        sides[side] += group
    return Parts(
        train=tuple(sides["train"]),
        watch=tuple(sides["watch"]),
        valid=tuple(sides["valid"]),
        test=tuple(sides["test"]),
        origin=f"whole documents at random, seed {seed}",
        findings=() if finding is None else (finding,),
    )


def _has_room(side: Sequence[Document], length: int, wanted: float) -> bool:
    """Whether a group brings a part closer to the size it should have."""
    held = sum(len(document.text) for document in side)
    return held + length / 2 <= wanted or (not side and length <= 2 * wanted)


def _cut(document: Document) -> dict[str, Document]:
    """A document in four, each cut where a line or a word ends."""
    text, rest = document.text, {}
    end = len(text)
    for name, share in SHARES.items():
        start = _boundary(text, end - round(share * len(text)), end)
        rest[name] = replace(document, id=f"{document.id} ({name})", text=text[start:end], goes_on=end < len(text))
        end = start
    return {**rest, "train": replace(document, text=text[:end], goes_on=True)}


def _boundary(text: str, place: int, end: int) -> int:
    """The end of a line behind a place in a text, or of a word, or the place itself."""
    for mark in ("\n", " "):
        found = text.find(mark, place, end - 1)
        if found >= 0 and found - place <= (end - place) // 2:
            return found + 1
    return place


def _group(documents: Sequence[Document]) -> tuple[list[list[Document]], Finding | None]:
    """Documents that are copies of each other together."""
    by_text: dict[str, list[Document]] = {}
    for document in documents:
        by_text.setdefault(document.prompt + document.text, []).append(document)
    groups = list(by_text.values())
    if len(groups) <= MOST_COMPARED:
        names = tuple(str(place) for place in range(len(groups)))
        joined = join_pairs(names, find_near_copies(list(by_text)))
        alike = [[document for place in ids for document in groups[int(place)]] for ids in joined]
        taken = {int(place) for ids in joined for place in ids}
        groups = alike + [group for place, group in enumerate(groups) if place not in taken]
    copies = [group for group in groups if len(group) > 1]
    if not copies:
        return groups, None
    named = "; ".join(" and ".join(document.id for document in group[:2]) for group in copies[:MOST_NAMED])
    finding = Finding(
        kind="duplicate",
        severity="warning",
        items=tuple(document.id for group in copies for document in group),
        message=(
            f"{sum(map(len, copies))} documents are copies or near copies of each other ({named}); each group is on one side."
        ),
        mend="leave copies out: a text that is there twice is learned twice.",
    )
    return groups, finding
