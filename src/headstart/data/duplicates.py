"""Which items are copies of each other: the same bytes, or features that all but coincide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from headstart.errors import DataError

NEAR_DUPLICATE_THRESHOLD = 0.85
"""Cosine of standardised features from which two items count as near duplicates.

Chosen on EfficientNet-lite0 features of 643 stamps (padded to a square) and of scikit-learn's 1,797 digits at 64 px, of which
no two are copies. At 0.85, of 120 stamps the copy is found for 83 % saved anew as JPEG of quality 50, 97 % brightened by a
tenth, 99 % with 5 % cropped away, 100 % mirrored, 52 % halved in size; and 15 digits in 6 groups, never of two classes, are
taken for copies. At 0.80 it is 91 % and 71 % for JPEG and halved ones, and 64 digits. Plain cosine is of no use: pooled
activations are positive, so all point the same way (more than half of all pairs of digits are above 0.85). What is close is
then confirmed by pixels, where items are pictures (`preprocess.picture_copies`).
"""

VARIANCE_FLOOR = 0.01
"""Added to every feature's variance as a share of the mean variance, so that features that hardly vary stay quiet."""

BLOCK_BYTES = 64 * 2**20
"""Memory for one block of the matrix of cosines, in bytes."""

MOST_PAIRS = 50_000
"""Pairs that are joined before those of one group are left out."""

_SAME = 1e-6
"""Rows whose distance to the mean is below this share of the mean row length all coincide with the mean."""


class UnionFind:
    """Disjoint sets of the numbers 0 … size - 1, joined two at a time.

    Args:
        size: how many numbers; each begins as a set of its own.
    """

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def find(self, member: int) -> int:
        """Return the smallest member of the set that holds `member`."""
        root = member
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[member] != root:
            self._parents[member], member = root, self._parents[member]
        return root

    def join(self, one: int, other: int) -> None:
        """Make one set of the two that hold these members."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parents[second] = first

    def roots(self) -> np.ndarray:
        """(size,) int64: the smallest member of each number's set."""
        return np.array([self.find(member) for member in range(len(self._parents))], np.int64)

    def sets(self) -> list[list[int]]:
        """All sets, each in ascending order, ordered by their smallest members."""
        members: dict[int, list[int]] = {}
        for member in range(len(self._parents)):
            members.setdefault(self.find(member), []).append(member)
        return list(members.values())


def duplicate_groups(hashes: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Group the ids whose items are the same byte for byte.

    Args:
        hashes: id → hex sha256 of the item's bytes.

    Returns:
        Groups of two or more ids, each sorted, ordered by their first ids.
    """
    by_hash: dict[str, list[str]] = {}
    for item_id, digest in hashes.items():
        by_hash.setdefault(digest, []).append(item_id)
    return sorted(tuple(sorted(ids)) for ids in by_hash.values() if len(ids) > 1)


def join_pairs(ids: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[tuple[str, ...]]:
    """Group the ids that pairs join, neighbours of neighbours included.

    Args:
        ids: N ids.
        pairs: of positions in them.

    Returns:
        Groups of two or more ids, each sorted, ordered by their first ids.
    """
    linked = UnionFind(len(ids))
    for one, other in pairs:
        linked.join(one, other)
    return _named_groups(ids, linked)


def _named_groups(ids: Sequence[str], linked: UnionFind) -> list[tuple[str, ...]]:
    return sorted(tuple(sorted(ids[member] for member in members)) for members in linked.sets() if len(members) > 1)


def near_duplicate_groups(
    ids: Sequence[str],
    features: np.ndarray,
    threshold: float = NEAR_DUPLICATE_THRESHOLD,
    confirm: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[tuple[str, ...]]:
    """Group the ids whose standardised features have a cosine of at least `threshold`, neighbours of neighbours included.

    Features alone take different drawings of one kind for copies, and neighbours of neighbours then make one group of many
    items; so `confirm` compares each pair by another measure before it joins two items.

    Every feature is centred and divided by its standard deviation over the N items first: what all items share says
    nothing about copies. Time grows with N², memory with N·D plus one block.

    Args:
        ids: N ids.
        features: (N, D) float from one backbone at its last block, before the head; not modified.
        threshold: in (0, 1]; see NEAR_DUPLICATE_THRESHOLD for how the default was found.
        confirm: called with pairs of positions that are close, (P, 2) int64; gives (P,) bool, the pairs to join. Pairs that
            are in one group already are not asked for.

    Returns:
        Groups of two or more ids, each sorted, ordered by their first ids; exact copies are among them.

    Raises:
        DataError: if the features are not (N, D), or hold NaN or infinity.
    """
    if features.ndim != 2 or len(features) != len(ids):
        raise DataError(
            f"features of shape {features.shape} do not belong to {len(ids)} ids.",
            expected=f"one row per id: ({len(ids)}, D).",
            mend="pass the features of exactly these ids, in their order.",
        )
    if not np.isfinite(features).all():
        bad = [ids[row] for row in np.flatnonzero(~np.isfinite(features).all(1)).tolist()]
        raise DataError(
            f"features of {len(bad)} items hold NaN or infinity, first {bad[0]!r}.",
            expected="finite features.",
            mend="leave out the items whose features could not be computed.",
        )
    if not len(ids):
        return []
    linked = UnionFind(len(ids))
    for pairs in _close_pairs(_standardise(features), threshold):
        _join(linked, pairs, confirm)
    return _named_groups(ids, linked)


def _join(linked: UnionFind, pairs: np.ndarray, confirm: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Join pairs (P, 2) that are confirmed, a part at a time: after the first, few of those of a large group are left."""
    for start in range(0, len(pairs), MOST_PAIRS):
        some = pairs[start : start + MOST_PAIRS]
        if start:
            roots = linked.roots()
            some = some[roots[some[:, 0]] != roots[some[:, 1]]]
        if confirm is not None and len(some):
            some = some[confirm(some)]
        for one, other in some.tolist():
            linked.join(one, other)


def _standardise(features: np.ndarray) -> np.ndarray:
    """Centre, scale and normalise rows to (N, D) float32; rows at the mean itself share one extra direction."""
    mean = features.mean(0, dtype=np.float64)
    variance = features.var(0, dtype=np.float64)
    scale = 1 / np.sqrt(variance + VARIANCE_FLOOR * variance.mean() + np.finfo(np.float32).tiny)
    rows = features - mean.astype(np.float32)
    at_mean = np.linalg.norm(rows, axis=1) <= _SAME * np.linalg.norm(mean)
    rows = (rows * scale.astype(np.float32)).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    if at_mean.any():
        rows[at_mean] = 0
        rows = np.concatenate([rows, at_mean[:, None].astype(np.float32)], 1)
    return rows


def _close_pairs(rows: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Yield the pairs (P, 2) of unit rows with a cosine of at least `threshold`, block by block above the diagonal."""
    block = max(1, BLOCK_BYTES // (4 * max(1, len(rows))))
    # A cosine of a row with its exact copy may come out a rounding below 1.
    reach = threshold - 1e-6
    for start in range(0, len(rows), block):
        cosines = rows[start : start + block] @ rows[start:].T
        ones, others = np.nonzero(cosines >= reach)
        later = others > ones
        yield np.column_stack([ones[later], others[later]]) + start
