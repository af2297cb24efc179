"""Text items as strings: read once, named in messages, shown in part."""

from __future__ import annotations

from headstart.encodings import guess_encoding
from headstart.preprocess.items import UnreadableItemError, item_name, load_bytes

SHOWN_CHARACTERS = 300
"""Of a text that is shown to people."""


def excerpt(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """The beginning of a text on one line, with an ellipsis where it goes on.

    Args:
        text: of any length.
        limit: characters, at least 1, the ellipsis included.

    Returns:
        At most `limit` characters; no word is cut where one ends in the last quarter.
    """
    # Four times as many, so that runs of spaces leave enough.
    words = " ".join(text[: 4 * limit].split())
    if len(words) <= limit and len(text) <= 4 * limit:
        return words
    kept = words[: limit - 1]
    space = kept.rfind(" ")
    return (kept[:space] if space > 3 * limit // 4 and words[limit - 1 : limit].strip() else kept.rstrip()) + "…"


def read_text(item: object, *, name: str = "") -> str:
    """Read a text: a string as it is, a file or bytes as UTF-8.

    Args:
        item: a string, which is the text itself; a `Path`; or bytes.
        name: what to call the item in an error; by default the item itself.

    Returns:
        The text, without a byte order mark.

    Raises:
        UnreadableItemError: if it cannot be read, is no UTF-8 (the line is named), or holds only white space.
    """
    name = name or (f"the text {item[:30]!r}" if isinstance(item, str) else item_name(item))
    content = item if isinstance(item, str) else load_bytes(item, name=name)
    if isinstance(content, bytes):
        content = _decode(content, name)
    if not isinstance(content, str):
        raise UnreadableItemError(
            name,
            f"is no text, but {item_name(content)}",
            kind="unsupported",
            expected="a string, the path of a text file, or bytes.",
            mend="convert it first.",
        )
    if not content.strip():
        reason = "is empty" if not content else "holds only white space"
        raise UnreadableItemError(name, reason, kind="empty", expected="a text of at least one character.")
    try:
        content.encode()
    except UnicodeEncodeError as problem:
        raise _no_unicode(content, problem.start, name) from problem
    return content


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        guess = guess_encoding(content)
        looks = f"; it looks like {guess}" if guess else ""
        raise UnreadableItemError(
            name,
            f"line {line} is no UTF-8 (byte {content[problem.start]:#04x}){looks}",
            expected="a text file in UTF-8.",
            mend=f"convert it: iconv -f {(guess or 'ENCODING').upper()} -t UTF-8 FILE",
        ) from problem


def _no_unicode(content: str, place: int, name: str) -> UnreadableItemError:
    line, code = content.count("\n", 0, place) + 1, ord(content[place])
    # Python hands on bytes that it cannot decode as these (PEP 383).
    if 0xDC80 <= code <= 0xDCFF:
        reason, mend = f"line {line} is no UTF-8 (byte {code - 0xDC00:#04x})", "iconv -f ENCODING -t UTF-8 converts it."
    else:
        reason, mend = f"holds half a character (a lone surrogate) in line {line}", "read the text with its true encoding."
    return UnreadableItemError(name, reason, expected="text in Unicode.", mend=mend)
