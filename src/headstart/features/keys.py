"""Keys of the feature store, and records that show whether they are still what was put."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from headstart.errors import CacheError, SettingError

_CHECKSUM_BYTES = 4
_MAX_KEY_BYTES = 511


def store_key(digest: bytes, view: str = "") -> bytes:
    """Make the key of one view of one item.

    Args:
        digest: the 32 bytes of the SHA-256 of the item's content.
        view: the name of the view, at most 400 bytes in UTF-8; empty for the item as it is.

    Returns:
        The key, at most 432 bytes.

    Raises:
        SettingError: if the digest is of another length, or the name too long.
    """
    name = view.encode("utf-8")
    if len(digest) != 32 or len(name) > 400:
        raise SettingError(
            f"a digest of {len(digest)} bytes and a view name of {len(name)} make no key.",
            expected="32 bytes of SHA-256 and a name of at most 400.",
            mend="use content_key(item) and a short view name.",
        )
    return digest + name


def check_keys(keys: Sequence[bytes]) -> None:
    """Refuse keys that LMDB cannot hold.

    Raises:
        CacheError: if one is empty or longer than 511 bytes.
    """
    if not all(0 < len(key) <= _MAX_KEY_BYTES for key in keys):
        raise CacheError(
            "a key of the feature store is empty or too long.",
            expected=f"1 to {_MAX_KEY_BYTES} bytes.",
            mend="make keys by store_key(digest, view).",
        )


def sealed(key: bytes, payload: bytes) -> bytes:
    """Put a checksum (CRC-32 of key and payload) before the payload: LMDB itself would not notice a flipped bit."""
    return zlib.crc32(payload, zlib.crc32(key)).to_bytes(_CHECKSUM_BYTES, "little") + payload


def unsealed(key: bytes, record: bytes | memoryview) -> memoryview | None:
    """Give the payload of a record that `sealed` made for the key; None if either is not what it was."""
    payload = memoryview(record)[_CHECKSUM_BYTES:]
    intact = zlib.crc32(payload, zlib.crc32(key)) == int.from_bytes(record[:_CHECKSUM_BYTES], "little")
    return payload if intact else None
