import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from headstart.data import duplicates
from headstart.data.duplicates import NEAR_DUPLICATE_THRESHOLD, UnionFind, duplicate_groups, near_duplicate_groups
from headstart.errors import DataError


def activations(num_items, seed=0, width=256, rank=40):
    """Positive, correlated features like a pooled network's: any two have a high plain cosine."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(num_items, rank)) @ rng.normal(size=(rank, width))
    return (np.maximum(latent / np.sqrt(rank) + 2.5, 0) * rng.uniform(0.1, 2, width)).astype(np.float32)


def test_items_of_equal_bytes_are_grouped():
    assert duplicate_groups({"c": "1", "a": "1", "b": "2", "e": "3", "d": "3"}) == [("a", "c"), ("d", "e")]
    assert duplicate_groups({}) == []


def test_copies_are_found_among_features_that_are_all_alike():
    features = activations(300)
    rng = np.random.default_rng(1)
    copies = features[:40] * rng.uniform(0.97, 1.05, (40, 256)).astype(np.float32)
    both = np.concatenate([features, copies])
    ids = [f"{i:03d}" for i in range(340)]
    assert np.quantile(cosine_similarity(features), 0.1) > 0.8
    before = both.copy()
    assert near_duplicate_groups(ids, both) == [(f"{i:03d}", f"{i + 300:03d}") for i in range(40)]
    np.testing.assert_array_equal(both, before)


def reference(ids, features, threshold):
    """The same rule by scikit-learn and scipy."""
    spread = features.astype(np.float64).std(0)
    scaler = StandardScaler().fit(features.astype(np.float64))
    scaler.scale_ = np.sqrt(spread**2 + duplicates.VARIANCE_FLOOR * (spread**2).mean())
    close = cosine_similarity(scaler.transform(features.astype(np.float64))) >= threshold
    _, component = connected_components(close, directed=False)
    groups = [tuple(sorted(np.array(ids)[component == c].tolist())) for c in range(component.max() + 1)]
    return sorted(group for group in groups if len(group) > 1)


@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.6, 0.95])
def test_agrees_with_scikit_learn_and_scipy_across_blocks(monkeypatch, threshold):
    features = activations(230, seed=3)
    ids = [f"{i}" for i in np.random.default_rng(0).permutation(230)]
    expected = reference(ids, features, threshold)
    for block_bytes in (1, 4 * 230 * 7, 2**26):
        monkeypatch.setattr(duplicates, "BLOCK_BYTES", block_bytes)
        assert near_duplicate_groups(ids, features, threshold) == expected


def test_the_order_of_the_items_does_not_matter():
    features = activations(120, seed=5)
    ids = [f"{i}" for i in range(120)]
    order = np.random.default_rng(0).permutation(120)
    shuffled = near_duplicate_groups([ids[i] for i in order], features[order], 0.4)
    assert shuffled == near_duplicate_groups(ids, features, 0.4) and shuffled


def test_items_that_all_coincide_are_one_group():
    features = np.repeat(activations(1), 5, 0)
    assert near_duplicate_groups(list("abcde"), features) == [tuple("abcde")]
    assert near_duplicate_groups(["a"], features[:1]) == []
    assert near_duplicate_groups([], features[:0]) == []
    assert near_duplicate_groups(list("ab"), np.zeros((2, 3), np.float32)) == [("a", "b")]


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=st.floats(0, 100, width=32)), st.data()
)
def test_exact_copies_are_always_found(features, data):
    copied = data.draw(st.integers(0, len(features) - 1))
    both = np.concatenate([features, features[copied : copied + 1]])
    ids = [f"{i:02d}" for i in range(len(both))]
    groups = near_duplicate_groups(ids, both)
    assert any({ids[copied], ids[-1]} <= set(group) for group in groups)
    assert len({name for group in groups for name in group}) == sum(map(len, groups))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_cannot_be_compared_are_refused(bad):
    features = activations(4)
    features[2, 1] = bad
    with pytest.raises(DataError, match="1 items hold NaN or infinity, first 'c'"):
        near_duplicate_groups(list("abcd"), features)
    with pytest.raises(DataError, match="do not belong to 3 ids"):
        near_duplicate_groups(list("abc"), features)
    assert 0 < NEAR_DUPLICATE_THRESHOLD < 1


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_union_find_agrees_with_scipy(case):
    size, pairs = case
    linked, matrix = UnionFind(size), np.zeros((size, size))
    for one, other in pairs:
        linked.join(one, other)
        matrix[one, other] = 1
    _, component = connected_components(matrix, directed=False)
    assert linked.sets() == sorted(np.flatnonzero(component == c).tolist() for c in range(component.max() + 1))
