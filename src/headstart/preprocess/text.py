"""Texts become network input: one frozen record is the whole recipe, the tokenizer included.

A batch is one array of token ids, -1 where there is none; the network makes its attention mask of it. Texts longer than the
network reads are cut to their beginning, to beginning and end, or into windows whose features are averaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from headstart.errors import ArtifactError, SettingError
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.shingles import LEAST_SHARED, RUN, find_near_copies
from headstart.preprocess.text_findings import notice_texts, tell_left_out, tell_longer, tell_spelled
from headstart.preprocess.text_items import excerpt, read_text
from headstart.preprocess.token_patterns import is_catastrophic, patterns_in
from headstart.records import Finding, Modality

if TYPE_CHECKING:
    import tokenizers

Fitting = Literal["head", "head+tail", "windows"]

RULES = 1
"""Goes up when the same settings come to mean other tokens, so that nothing cached or saved is mistaken."""
TOKENIZER = "tokenizer.json"
_PROBE = "a Zq9! \u4e00 \u0378"
"""Words, digits and signs that are known or not: what a damaged tokenizer cannot do is found out before it is used."""
MOST_TOKENS = 1 << 20
"""That are read at once; of windows, too."""
PADDING = -1
"""Stands where there is no token."""
HEAD_SHARE = 0.25
"""Of the tokens that `head+tail` keeps: Sun et al. 2019 (arXiv 1905.05583, table 2) kept 128 of 510 from the beginning."""
LEAST_LONGER = 0.05
"""Of the texts, where it is worth asking what to do with longer ones."""
KEPT_CHARACTERS = 2_000
"""Of a text that is kept for the self-test."""


@dataclass(frozen=True, kw_only=True)
class TextPreprocess:
    """From a text to the input of one network.

    Raises:
        SettingError: if a value cannot work.
    """

    tokenizer: str = field(repr=False)
    """The tokenizer as the `tokenizers` package writes it: JSON, and no code."""
    max_tokens: int = 256
    """T, tokens the network reads at once, its special ones included; at least 8."""
    fitting: Fitting = "head"
    """What is read of a longer text: its beginning, a quarter of the room for the beginning and the rest for the end, or
    window after window."""
    max_windows: int = 8
    """For `windows` only: the first so many."""
    unknown_left_out: bool = False
    """Whether the network leaves out what the tokenizer does not know, as a table of words does."""

    modality: ClassVar[Modality] = "text"
    input_name: ClassVar[str] = "tokens"
    fittings: ClassVar[tuple[str, ...]] = get_args(Fitting)
    fitting_question: ClassVar[str] = "long texts"
    views: ClassVar[tuple[str, ...]] = ()
    free_axes: ClassVar[Mapping[int, str]] = {0: "batch", 1: "length"}
    copies_told_by: ClassVar[str] = f"at least {LEAST_SHARED:.0%} of the runs of {RUN} characters in common"

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        counts = ((8, self.max_tokens), (1, self.max_windows))
        in_range = all(type(count) is int and least <= count <= MOST_TOKENS for least, count in counts)
        if self.fitting not in self.fittings or not in_range:
            raise SettingError(
                f"texts cannot be fitted by {self.fitting!r}, {self.max_tokens!r} tokens and {self.max_windows!r} windows.",
                expected=f"one of {', '.join(self.fittings)}; 8 to {MOST_TOKENS:,} tokens, and 1 to {MOST_TOKENS:,} windows.",
                mend="correct the setting; --geometry auto asks the data.",
            )

    @property
    def assets(self) -> Mapping[str, bytes]:
        """The tokenizer's file."""
        return {TOKENIZER: self.tokenizer.encode()}

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values, the tokenizer by its SHA-256."""
        return {
            "kind": "text",
            "rules": RULES,
            "max_tokens": self.max_tokens,
            "fitting": self.fitting,
            "max_windows": self.max_windows,
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.encode()).hexdigest(),
        } | ({"unknown_left_out": True} if self.unknown_left_out else {})

    @staticmethod
    def from_json(spec: Mapping[str, Any], read: Callable[[str], bytes]) -> TextPreprocess:
        """Read back what `as_json` gave, strictly.

        Args:
            spec: the values of one JSON object.
            read: gives the content of an asset by its name.

        Returns:
            The same recipe.

        Raises:
            ArtifactError: if it is of other rules, has a missing, unknown or wrong setting, or another tokenizer.
        """
        mend = "use the files as headstart wrote them, or a headstart as new as the one that wrote them."
        names = {"kind", "rules", "max_tokens", "fitting", "max_windows", "tokenizer_sha256"}
        if set(spec) - {"unknown_left_out"} != names or (spec["kind"], spec["rules"]) != ("text", RULES):
            seen = {key: spec.get(key) for key in ("kind", "rules")}
            wrong = ", ".join(sorted(map(str, set(spec) ^ names))) or "none missing or unknown"
            raise ArtifactError(
                f"this is no text preprocess of rules {RULES}: {seen!r}; settings missing or unknown: {wrong}.",
                expected=f"an object with {', '.join(sorted(names))}.",
                mend=mend,
            )
        content = read(TOKENIZER)
        if hashlib.sha256(content).hexdigest() != spec["tokenizer_sha256"]:
            raise ArtifactError(f"{TOKENIZER} is another than the recipe names.", expected="the file it came with.", mend=mend)
        settings = {name: spec[name] for name in ("max_tokens", "fitting", "max_windows")}
        settings["unknown_left_out"] = spec.get("unknown_left_out") is True
        try:
            return TextPreprocess(tokenizer=content.decode(), **settings)
        except (SettingError, TypeError, UnicodeDecodeError) as problem:
            raise ArtifactError(f"the text preprocess cannot work: {problem}", expected="its settings.", mend=mend) from problem

    def indifferent(self, items: Sequence[object]) -> str:
        """Whether too few of some texts are longer than the network reads for it to matter what becomes of those.

        Args:
            items: readable or not.

        Returns:
            Why it does not matter, or ''.
        """
        longer = sum(self._is_longer(item) for item in items)
        if longer >= LEAST_LONGER * len(items):
            return ""
        return f"{longer} of {len(items)} texts looked at are longer than the {self.max_tokens} tokens that are read"

    def _is_longer(self, item: object) -> bool:
        try:
            return len(self.opened.encode(read_text(item)).ids) > self.max_tokens
        except UnreadableItemError:
            return False

    def with_fitting(self, fitting: str) -> TextPreprocess:
        """The same recipe with another way of reading long texts.

        Args:
            fitting: head, head+tail or windows.

        Raises:
            SettingError: if it is none of these.
        """
        return replace(self, fitting=fitting)  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        """Name the recipe by its content: 64 hexadecimal digits, the same in every process."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, str | int]:
        """The settings that a user may want to know."""
        return {"fitting": self.fitting, "max_tokens": self.max_tokens}

    def load(self, item: object, *, name: str = "") -> str:
        """Read a text: a string as it is, a file or bytes as UTF-8.

        Args:
            item: a string, which is the text itself; a `Path`; or bytes.
            name: what to call the item in an error; by default the item itself.

        Returns:
            The text.

        Raises:
            UnreadableItemError: if it cannot be read, is no UTF-8 (the line is named), or holds only white space.
        """
        return read_text(item, name=name)

    def digest(self, content: object, *, name: str = "") -> bytes:
        """Hash a text; a file and its content have one key."""
        return hashlib.sha256(read_text(content, name=name).encode()).digest()

    def size(self, item: object) -> int:
        """About how many characters an item has."""
        try:
            return item.stat().st_size if isinstance(item, Path) else len(item)  # type: ignore[arg-type]
        except (OSError, TypeError):  # reading it will say what is wrong
            return 0

    def prepare(self, item: object, *, name: str = "") -> np.ndarray:
        """Tokenize an item.

        Args:
            item: as for `load`.
            name: what to call the item in an error.

        Returns:
            (L,) int64 token ids, L at most T; for several windows (W·T,), the last one padded.

        Raises:
            UnreadableItemError: as `load`.
        """
        left, right = self._special
        body = self.opened.encode(read_text(item, name=name), add_special_tokens=False).ids
        room = self.max_tokens - len(left) - len(right)
        if len(body) > room and self.fitting == "head+tail":
            first = int(HEAD_SHARE * room)
            body = [*body[:first], *body[first - room :]]
        if len(body) <= room or self.fitting != "windows":
            return np.array([*left, *body[:room], *right], np.int64)
        parts = [body[start : start + room] for start in range(0, len(body), room)][: self.max_windows]
        windows = np.full((len(parts), self.max_tokens), PADDING, np.int64)
        for window, part in zip(windows, parts, strict=True):
            ids = [*left, *part, *right]
            window[: len(ids)] = ids
        return windows.ravel()

    def collate(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Put token ids side by side: (B, L) int64, -1 behind shorter ones; L is a multiple of T where it is above T."""
        longest = max(len(ids) for ids in prepared)
        if longest > self.max_tokens:
            longest = -(-longest // self.max_tokens) * self.max_tokens
        batch = np.full((len(prepared), longest), PADDING, np.int64)
        for row, ids in zip(batch, prepared, strict=True):
            row[: len(ids)] = ids
        return batch

    def example(self, count: int) -> np.ndarray:
        """Tokens at random, two windows of them in the first text and fewer in the others."""
        ids = np.random.default_rng(0).integers(0, self.opened.get_vocab_size(), (count, 2 * self.max_tokens))
        for row in range(1, count):
            ids[row, self.max_tokens // row - 3 :] = PADDING
        return ids

    def keep(self, item: object) -> bytes:
        """The beginning of a text, at most 2,000 characters."""
        return read_text(item)[:KEPT_CHARACTERS].encode()

    def compare(self, prepared: np.ndarray, saved: np.ndarray) -> str:
        """Tokens are the same or they are not."""
        return "" if np.array_equal(prepared, saved) else "other tokens here"

    def near_copies(self, items: Sequence[object]) -> list[tuple[int, int]]:
        """Pairs of texts that share most of their runs of characters; see `shingles`."""
        return find_near_copies([read_text(item) for item in items])

    def pixel_comparison(self, items: Sequence[object]) -> None:
        """`near_copies` compares the items themselves."""

    def notice(self, items: Mapping[str, object]) -> list[Finding]:
        """Say what share of some texts the network does not know, or does not read.

        Args:
            items: by id; all can be read, and some hundreds of them tell enough.
        """
        texts = [read_text(item) for item in items.values()]
        encodings = self.opened.encode_batch(texts, add_special_tokens=False)
        found = dict(zip(items, encodings, strict=True))
        spelled = tell_spelled(found, texts, self.room)
        if self.unknown_left_out and self._unknown is not None:
            return [*tell_left_out(found, self._unknown), *tell_longer(found, self.room, self.fitting)]
        return [*spelled, *notice_texts(found, self._unknown, self.room, self.fitting)]

    def illustrate(self, item: object) -> dict[str, str]:
        """The beginning of the text, as `excerpt`."""
        return {"excerpt": excerpt(read_text(item))}

    @cached_property
    def _unknown(self) -> int | None:
        """The id of the token that stands for what the tokenizer does not know; None where it knows every byte."""
        try:
            told = json.loads(self.tokenizer)["model"]
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            raise _unusable(f"its model cannot be read ({problem})") from problem
        if not isinstance(told, dict):
            raise _unusable("its model is no object")
        if isinstance(told.get("unk_id"), int):  # Unigram, as of XLM-R, names it by its number
            return int(told["unk_id"])
        return self.opened.token_to_id(told["unk_token"]) if isinstance(told.get("unk_token"), str) else None

    @property
    def lower_cases(self) -> bool:
        """Whether the tokenizer makes upper case lower case before anything else."""
        normalizer = self.opened.normalizer
        return normalizer is not None and normalizer.normalize_str("A") == normalizer.normalize_str("a")

    @property
    def room(self) -> int:
        """Tokens of a text that are read at once, special ones left out."""
        return self.max_tokens - sum(map(len, self._special))

    @cached_property
    def opened(self) -> tokenizers.Tokenizer:
        """The tokenizer, ready for use, without truncation and padding of its own."""
        import tokenizers

        if any(map(is_catastrophic, patterns_in(self.tokenizer))):
            raise _unusable("a regular expression in it can take exponential time (a repeated group that repeats inside)")
        try:
            opened = tokenizers.Tokenizer.from_str(self.tokenizer)
            opened.no_truncation()
            opened.no_padding()
            opened.encode(_PROBE)
        except Exception as problem:  # the package raises plain exceptions
            raise _unusable(f"it cannot be used ({problem})") from problem
        return opened

    @cached_property
    def _special(self) -> tuple[list[int], list[int]]:
        """The tokens that stand before and behind every text."""
        encoding = self.opened.encode("a")
        plain = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        first, last = (plain[0], plain[-1] + 1) if plain else (len(encoding.ids), len(encoding.ids))
        return encoding.ids[:first], encoding.ids[last:]


def _unusable(why: str) -> ArtifactError:
    return ArtifactError(
        f"{TOKENIZER} cannot be used: {why}.",
        expected="a tokenizer as the tokenizers package writes it.",
        mend="copy the whole folder again from where it was made.",
    )
