"""Intervals against scipy, and by how often they cover the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.evidence import binomial, intervals


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 100_000), st.floats(0, 1))
def test_clopper_pearson_agrees_with_scipy(trials, share):
    successes = round(share * trials)
    low, high = intervals.clopper_pearson(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1), st.floats(0.05, 3000), st.floats(0.05, 3000))
def test_incomplete_beta_agrees_with_scipy(point, first, second):
    assert binomial.incomplete_beta(point, first, second) == pytest.approx(stats.beta.cdf(point, first, second), abs=1e-10)


def test_clopper_pearson_takes_fractions_between_its_whole_neighbours():
    low, between, high = (intervals.clopper_pearson(successes, 30)[0] for successes in (20, 20.4, 21))
    assert low < between < high


def test_bootstrap_mean_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=200)
    low, high = intervals.bootstrap_mean(values, seed=1)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = expected.high - expected.low
    assert abs(low - expected.low) < 0.08 * width
    assert abs(high - expected.high) < 0.08 * width


def test_drawing_counts_of_values_is_the_same_bootstrap_as_drawing_items():
    right = np.random.default_rng(0).random(300) < 0.8
    low, high = intervals.bootstrap_mean(right, seed=0)
    plain_low, plain_high = intervals.percentile_interval(intervals.bootstrap_means(right[:, None].astype(float), 5)[:, 0])
    assert low == pytest.approx(plain_low, abs=0.008)
    assert high == pytest.approx(plain_high, abs=0.008)


def test_the_seed_decides_the_draws():
    values = np.random.default_rng(0).normal(size=150)
    assert intervals.bootstrap_mean(values, 3) == intervals.bootstrap_mean(values, 3)
    assert intervals.bootstrap_mean(values, 3) != intervals.bootstrap_mean(values, 4)


def test_paired_bootstrap_sees_a_paired_gain_that_two_intervals_would_miss():
    rng = np.random.default_rng(0)
    worse = rng.random(400) < 0.8
    better = worse.copy()
    better[np.flatnonzero(~worse)[:16]] = True
    difference, low, high = intervals.paired_bootstrap(better, worse, seed=0)
    assert difference == pytest.approx(0.04)
    assert 0.015 < low < 0.04 < high < 0.065
    assert intervals.clopper_pearson(better.sum(), 400)[0] < worse.mean()


def test_paired_bootstrap_of_equal_models_is_zero_and_of_swapped_models_is_mirrored():
    rng = np.random.default_rng(0)
    first, second = rng.random(100) < 0.7, rng.random(100) < 0.7
    assert intervals.paired_bootstrap(first, first, 0) == (0.0, 0.0, 0.0)
    difference, low, high = intervals.paired_bootstrap(first, second, 0)
    mirrored, mirrored_low, mirrored_high = intervals.paired_bootstrap(second, first, 0)
    assert (mirrored, low < mirrored_high, mirrored_low < high) == (-difference, True, True)


def test_macro_f1_bootstrap_agrees_with_drawing_items_within_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [40, 25, 10, 5])
    predicted = np.where(rng.random(80) < 0.7, labels, rng.integers(0, 4, 80))
    drawn = intervals.bootstrap_macro_f1(labels, predicted[None], 4, seed=0)
    from sklearn.metrics import f1_score

    plain = []
    for _ in range(600):
        items = np.concatenate([rng.choice(np.flatnonzero(labels == label), (labels == label).sum()) for label in range(4)])
        plain.append(f1_score(labels[items], predicted[items], average="macro", zero_division=0))
    assert np.mean(drawn) == pytest.approx(np.mean(plain), abs=0.008)
    assert np.std(drawn) == pytest.approx(np.std(plain), rel=0.12)


def test_macro_f1_of_repeats_is_the_mean_over_the_same_draws():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    predicted = np.where(rng.random((4, 40)) < 0.7, labels, rng.integers(0, 3, (4, 40)))
    together = intervals.bootstrap_macro_f1(labels, predicted, 3, seed=0)
    one = intervals.bootstrap_macro_f1(labels, predicted[:1], 3, seed=0)
    same = intervals.bootstrap_macro_f1(labels, np.repeat(predicted[:1], 4, axis=0), 3, seed=0)
    assert np.std(same) == pytest.approx(np.std(one), rel=0.1)
    assert np.std(together) < np.std(one)


def test_a_perfect_score_keeps_an_interval():
    assert intervals.widen_perfect(1.0, (1.0, 1.0), 20) == intervals.clopper_pearson(20, 20)
    assert intervals.widen_perfect(0.0, (0.0, 0.0), 20) == intervals.clopper_pearson(0, 20)
    assert intervals.widen_perfect(0.9, (0.8, 0.95), 20) == (0.8, 0.95)


def test_bootstrap_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = intervals.bootstrap_mean(rng.gamma(2.0, 1.0, 60).round(1), seed)
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_many_items_need_bounded_memory():
    import tracemalloc

    labels = np.random.default_rng(0).integers(0, 10, 100_000)
    tracemalloc.start()
    draws = intervals.bootstrap_means(np.ones((100_000, 1)) * labels[:, None], 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(draws) == 500
    assert peak < 80e6
