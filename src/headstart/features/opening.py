"""An environment of the store from its fingerprint, whatever state the disk is in."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from headstart.errors import CacheError, SettingError
from headstart.features.environment import DAMAGE, Environment, acquire
from headstart.features.upkeep import FORMAT, features_folder, make_folder, mark_used, read_meta, set_aside

_FINGERPRINT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
_DTYPES = ("float16", "float32", "float64")


def open_environment(root: Path, meta: Mapping[str, Any]) -> tuple[Environment | None, str]:
    """Open the environment of a fingerprint: make it if need be, anew if it is damaged, read-only if no more is allowed.

    Args:
        root: the cache root; made if need be.
        meta: as `make_meta` makes it.

    Returns:
        The environment, or None if there is nothing to read and no way to write; and what went wrong, in words, or "".

    Raises:
        SettingError: if the fingerprint is that of features of another shape or type.
    """
    folder = features_folder(root) / meta["fingerprint"]
    why = ""
    for _ in range(2):
        try:
            make_folder(root, meta["fingerprint"], meta)
            _refuse_other_meta(folder, meta)
            environment = acquire(folder)
            mark_used(folder)
            return environment, why
        except DAMAGE as problem:
            why = f"the feature store was damaged ({problem}) and is begun anew"
            with contextlib.suppress(OSError):
                set_aside(folder)
        except (OSError, CacheError, lmdb.Error) as problem:
            return _open_readonly(folder, meta, problem)
    return None, f"{why}, but that failed: nothing is cached"


def _open_readonly(folder: Path, meta: Mapping[str, Any], problem: Exception) -> tuple[Environment | None, str]:
    reason = problem.what.rstrip(".") if isinstance(problem, CacheError) else str(problem)
    try:
        _refuse_other_meta(folder, meta)
        return acquire(folder, readonly=True), f"the feature store is only read, not written to ({reason})"
    except (OSError, lmdb.Error):
        return None, f"nothing is cached ({reason})"


def _refuse_other_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    found = read_meta(folder)
    if found is None or any(found.get(name) != meta[name] for name in ("format", "fingerprint")):
        raise lmdb.InvalidError("its description is missing, damaged or of another format")
    if any(found.get(name) != meta[name] for name in ("dtype", "shape")):
        raise SettingError(
            f"the store {folder} holds features of shape {found.get('shape')} and type {found.get('dtype')}.",
            expected=f"shape {meta['shape']} and type {meta['dtype']}, as asked for.",
            mend="put shape and type into what the fingerprint is made of.",
        )


def make_meta(fingerprint: str, dtype: str | np.dtype, shape: Sequence[int], describe: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an environment, as `meta.json` will.

    Args:
        fingerprint: its name.
        dtype: of its values.
        shape: of one value.
        describe: plain JSON values for people.

    Returns:
        JSON values: format, fingerprint, dtype, shape, describe, created (seconds since 1970).

    Raises:
        SettingError: if one of them cannot be.
    """
    try:
        described = json.loads(json.dumps(dict(describe)))
        kind, sizes = np.dtype(dtype).name, [int(size) for size in shape]
    except (TypeError, ValueError) as problem:
        raise SettingError(
            f"the features cannot be stored so: {problem}.",
            expected=f"a type among {', '.join(_DTYPES)}, a shape, and a description of plain JSON values.",
            mend="FeatureStore.open(..., dtype='float32', shape=(1280,), describe={'backbone': name})",
        ) from problem
    if not _FINGERPRINT.fullmatch(fingerprint) or kind not in _DTYPES or any(size < 1 for size in sizes):
        raise SettingError(
            f"the features cannot be stored so: fingerprint {fingerprint!r}, type {kind}, shape {sizes}.",
            expected=f"1 to 128 of A-Z a-z 0-9 - _ and . (not first); one of {', '.join(_DTYPES)}; sizes of at least 1.",
            mend="use a hexadecimal digest as the fingerprint.",
        )
    facts = {"format": FORMAT, "fingerprint": fingerprint, "dtype": kind, "shape": sizes}
    return facts | {"describe": described, "created": time.time()}
