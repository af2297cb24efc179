"""Features once computed are never computed again: a table on disk from an item's content to its features.

The key is the SHA-256 of the item's bytes and the name of the view; there is one environment for each fingerprint of what made
the features (weights, cut, preprocess, type). So a renamed file is a hit; a changed file, weight, preprocess or cut is a miss.
The store never stands in the way: where it cannot write, it says why and the work goes on without it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

import lmdb
import numpy as np

from headstart.errors import CacheError
from headstart.features.environment import DAMAGE, Environment, release, retire
from headstart.features.keys import check_keys, sealed, store_key, unsealed
from headstart.features.opening import make_meta, open_environment
from headstart.features.upkeep import StoredFeatures, cache_limit, clear, info, parse_limit, prune, set_aside

__all__ = [
    "FailureRecord",
    "FeatureStore",
    "StoredFeatures",
    "cache_limit",
    "clear",
    "info",
    "parse_limit",
    "prune",
    "store_key",
]

_LITTLE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """Why an item gave no features, so that it need not be tried again."""

    kind: str
    reason: str


@final
class FeatureStore:
    """The features of one fingerprint; made by `open`, shared by threads and processes, closed by `close` or `with`.

    A child process must not use a store that its parent opened before the fork: it finds no values there and stores none.

    Attributes:
        hits: how many keys `get_many` found, since this object was made.
        misses: how many it did not find.
        why: why nothing is stored, or what was found damaged; empty if all is well.
    """

    def __init__(self, environment: Environment | None, *, meta: Mapping[str, Any], why: str, limit_bytes: int) -> None:
        """Made by `open`."""
        self.dtype = np.dtype(meta["dtype"])
        self.shape: tuple[int, ...] = tuple(meta["shape"])
        self.hits = 0
        self.misses = 0
        self.why = why
        self._environment = environment
        self._writable = environment is not None and not environment.readonly
        self._limit_bytes = limit_bytes
        self._meta = meta

    @classmethod
    def open(
        cls, root: Path, fingerprint: str, *, dtype: str | np.dtype, shape: Sequence[int], describe: Mapping[str, Any]
    ) -> FeatureStore:
        """Open the store for one fingerprint; never fails for the disk's sake.

        A damaged environment is removed and begun anew, and `why` says so. In a cache that cannot be written to, an environment
        that is there is read only; otherwise nothing is cached.

        Args:
            root: the cache root, as `headstart.runtime.cache_root()` gives it; made if need be.
            fingerprint: names all that made the features: 1 to 128 letters, digits, "-", "_" or ".", no "." first.
            dtype: float16, float32 or float64: what values are rounded to.
            shape: of the features of one item, such as (1280,).
            describe: plain JSON values that tell a person what these features are.

        Returns:
            The store.

        Raises:
            SettingError: if fingerprint, type, shape or description is none.
        """
        meta = make_meta(fingerprint, dtype, shape, describe)
        limit_bytes = cache_limit()
        environment, why = open_environment(root, meta)
        if environment is not None and not environment.readonly:
            prune(root, limit_bytes, keep=fingerprint)
        return cls(environment, meta=meta, why=why, limit_bytes=limit_bytes)

    @classmethod
    def nowhere(cls, *, dtype: str | np.dtype, shape: Sequence[int]) -> FeatureStore:
        """A store that keeps nothing and finds nothing, for what is not worth keeping."""
        return cls(None, meta=make_meta("nowhere", dtype, shape, {}), why="", limit_bytes=0)

    @property
    def writable(self) -> bool:
        """Whether values put are kept."""
        return self._writable

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Round values to the stored type, as a later `get_many` returns them.

        Args:
            values: (N, *shape) of any real type.

        Returns:
            (N, *shape) of `dtype`; `values` itself if it is so already.

        Raises:
            CacheError: if the shape is another, or a finite value is beyond the range of the stored type.
        """
        if values.shape[1:] != self.shape:
            raise CacheError(
                f"features of shape {values.shape[1:]} do not belong in a store of {self.shape}.",
                expected=f"(N, {', '.join(map(str, self.shape))}).",
                mend="open the store with the shape of the features.",
            )
        if values.dtype == self.dtype:
            return values
        with np.errstate(over="ignore", invalid="ignore"):
            result = values.astype(self.dtype)
        beyond = np.isfinite(values) & ~np.isfinite(result)
        if beyond.any():
            raise CacheError(
                f"features reach {float(np.abs(values[beyond]).max()):g}, which {self.dtype} cannot hold.",
                expected=f"values that fit {self.dtype}.",
                mend="store them as float32.",
            )
        return result

    def get_many(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Look up many items in one transaction.

        Args:
            keys: N keys, as `store_key` makes them.

        Returns:
            Values (N, *shape) of `dtype`, zero where nothing was found, and found (N,) bool. A value whose checksum is wrong
            is not found.
        """
        values = np.empty((len(keys), *self.shape), self.dtype)
        found = np.zeros(len(keys), bool)
        environment = self._environment
        if environment is not None and keys:
            check_keys(keys)
            target = values.reshape(-1).view(np.uint8).data
            size = values.nbytes // len(keys)

            def look_up(transaction: lmdb.Transaction) -> None:
                for position, key in enumerate(keys):
                    stored = transaction.get(key, db=environment.values)
                    payload = None if stored is None else unsealed(key, stored)
                    if payload is not None and len(payload) == size:
                        target[position * size : (position + 1) * size] = payload
                        found[position] = True

            try:
                environment.read(look_up)
            except lmdb.Error as problem:
                self._failed(problem, "read")
                found[:] = False
        values[~found] = 0
        self.hits += int(found.sum())
        self.misses += len(keys) - int(found.sum())
        return values, found

    def put_many(self, keys: Sequence[bytes], values: np.ndarray) -> np.ndarray:
        """Store many items in one transaction: all of them or, if that fails, none and `why` says it.

        Args:
            keys: N keys, as `store_key` makes them.
            values: (N, *shape) of any real type.

        Returns:
            The values as `rounded` gives them, whether they could be stored or not.

        Raises:
            CacheError: if keys and values differ in number, or `rounded` refuses the values.
        """
        if len(keys) != len(values):
            raise CacheError(
                f"{len(keys)} keys cannot be stored with {len(values)} values.",
                expected="one value for each key.",
                mend="pass as many keys as values.",
            )
        result = self.rounded(values)
        rows = np.ascontiguousarray(result)
        environment = self._environment
        if self._writable and environment is not None and keys:
            check_keys(keys)
            records = [(key, sealed(key, row.tobytes())) for key, row in zip(keys, rows, strict=True)]

            def store(transaction: lmdb.Transaction) -> None:
                for key, record in records:
                    transaction.put(key, record, db=environment.values)

            self._write(environment, store)
        return result

    def put_failure(self, key: bytes, kind: str, reason: str) -> None:
        """Remember that an item gives no features.

        Args:
            key: as `store_key` makes it.
            kind: the sort of trouble.
            reason: what was wrong, in words.
        """
        environment = self._environment
        if self._writable and environment is not None:
            check_keys([key])
            record = sealed(key, json.dumps([kind, reason]).encode())
            self._write(environment, lambda transaction: transaction.put(key, record, db=environment.failures))

    def get_failures(self, keys: Iterable[bytes]) -> dict[bytes, FailureRecord]:
        """Look up which items are known to give no features.

        Args:
            keys: as `store_key` makes them.

        Returns:
            A record for each key that failed before.
        """
        environment = self._environment
        failures: dict[bytes, FailureRecord] = {}
        if environment is None:
            return failures

        def look_up(transaction: lmdb.Transaction) -> None:
            if transaction.stat(environment.failures)["entries"] == 0:
                return
            for key in keys:
                stored = transaction.get(key, db=environment.failures)
                payload = None if stored is None else unsealed(key, stored)
                if payload is not None:
                    kind, reason = json.loads(bytes(payload))
                    failures[key] = FailureRecord(kind=kind, reason=reason)

        try:
            environment.read(look_up)
        except lmdb.Error as problem:
            self._failed(problem, "read")
            failures.clear()
        return failures

    def close(self) -> None:
        """Close the store; twice is no harm, and afterwards it finds and stores nothing."""
        environment, self._environment, self._writable = self._environment, None, False
        if environment is not None:
            release(environment)

    def __enter__(self) -> FeatureStore:
        """Give the store itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the store."""
        self.close()

    def _write(self, environment: Environment, action: Callable[[lmdb.Transaction], object]) -> None:
        try:
            environment.write(action)
        except lmdb.Error as problem:
            self._failed(problem, "written to")
            return
        if environment.num_bytes() > self._limit_bytes:
            self._writable = False
            self.why = (
                f"the features here have reached the limit of the cache ({self._limit_bytes:,} bytes): no more are stored"
            )

    def _failed(self, problem: lmdb.Error, action: str) -> None:
        """Go on without what failed: a damaged environment is begun anew, one that cannot be written to is only read."""
        environment = self._environment
        self._writable = False
        self.why = f"the feature store cannot be {action} ({_disk_reason(environment) or problem}): no more features are stored"
        if environment is None or not isinstance(problem, DAMAGE) or environment.readonly:
            return
        root = environment.folder.parent.parent
        if retire(environment):
            with contextlib.suppress(OSError):
                set_aside(environment.folder)
        release(environment)
        self._environment, why = open_environment(root, self._meta)
        self._writable = self._environment is not None and not self._environment.readonly
        self.why = why or f"the feature store was damaged ({problem}) and is begun anew"


def _disk_reason(environment: Environment | None) -> str:
    # A write that is cut short by a full disk reaches us as an error of input and output only.
    try:
        full = environment is not None and shutil.disk_usage(environment.folder).free < _LITTLE_BYTES
    except OSError:
        return ""
    return "the disk is full" if full else ""
