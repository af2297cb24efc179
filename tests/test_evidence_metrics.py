"""Every metric against scikit-learn's own."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from headstart.evidence import metrics


def random_answers(seed, num_items, num_classes):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_classes, num_items), rng.integers(0, num_classes, num_items)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 12))
def test_class_scores_agree_with_sklearn_also_when_classes_are_missing(seed, num_items, num_classes):
    labels, predicted = random_answers(seed, num_items, num_classes)
    confusion = metrics.count_confusion(labels, predicted, num_classes)
    every = range(num_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, f1, support = reference.precision_recall_fscore_support(
            labels, predicted, labels=every, zero_division=0
        )
        macro = reference.f1_score(labels, predicted, average="macro", zero_division=0)
        expected_confusion = reference.confusion_matrix(labels, predicted, labels=every)
    scores = metrics.score_classes(confusion)
    np.testing.assert_array_equal(confusion, expected_confusion)
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.f1, f1)
    np.testing.assert_array_equal(scores.support, support)
    assert metrics.macro_f1(confusion) == pytest.approx(macro)
    assert metrics.accuracy(labels, predicted) == pytest.approx(reference.accuracy_score(labels, predicted))


@pytest.mark.parametrize("seed", range(3))
def test_log_loss_agrees_with_sklearn(seed):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.full(7, 0.3), 200), rng.integers(0, 7, 200)
    expected = reference.log_loss(labels, probabilities, labels=range(7))
    assert metrics.log_loss(probabilities, labels) == pytest.approx(expected, rel=1e-9)


def test_log_loss_of_a_certain_mistake_is_finite():
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(36.04, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 80), st.integers(1, 6), st.integers(1, 20))
def test_average_precision_agrees_with_sklearn_with_ties(seed, num_items, num_labels, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels + 1, (num_items, num_labels)) / levels
    targets = rng.random((num_items, num_labels)) < 0.3
    expected = [
        reference.average_precision_score(targets[:, label], scores[:, label]) if targets[:, label].any() else np.nan
        for label in range(num_labels)
    ]
    np.testing.assert_allclose(metrics.average_precisions(scores, targets), expected)
    known = ~np.isnan(expected)
    wanted = np.asarray(expected)[known].mean() if known.any() else 0.0
    assert metrics.mean_average_precision(scores, targets) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_micro_f1_agrees_with_sklearn(seed):
    rng = np.random.default_rng(seed)
    targets, predicted = rng.random((50, 6)) < 0.4, rng.random((50, 6)) < 0.4
    assert metrics.micro_f1(targets, predicted) == pytest.approx(reference.f1_score(targets, predicted, average="micro"))
    assert metrics.micro_f1(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_value_metrics_agree_with_sklearn(seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(1e6, 3.0, 80)
    predictions = targets + rng.normal(0, 1.0, 80)
    assert metrics.mae(predictions, targets) == pytest.approx(reference.mean_absolute_error(targets, predictions))
    assert metrics.rmse(predictions, targets) == pytest.approx(reference.root_mean_squared_error(targets, predictions))
    assert metrics.r2(predictions, targets) == pytest.approx(reference.r2_score(targets, predictions))


def test_r2_of_equal_targets_follows_sklearn():
    targets = np.full(4, 2.0)
    assert metrics.r2(targets, targets) == reference.r2_score(targets, targets) == 1.0
    assert metrics.r2(targets + 1, targets) == reference.r2_score(targets, targets + 1) == 0.0


def test_ece_agrees_with_a_plain_reading_of_its_definition():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(5), 300), rng.integers(0, 5, 300)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(confidence)
    expected = 0.0
    for start in range(0, 300, 20):  # 15 bins of 20 items
        items = order[start : start + 20]
        expected += abs(confidence[items].mean() - correct[items].mean()) * 20 / 300
    assert metrics.ece(probabilities, labels) == pytest.approx(expected)


def test_ece_does_not_hang_on_the_order_of_equally_confident_items():
    probabilities = np.tile([0.7, 0.3], (100, 1))
    labels = np.array([0] * 70 + [1] * 30)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert metrics.ece(probabilities, labels) == pytest.approx(0.0, abs=1e-12)
    assert metrics.ece(probabilities, shuffled) == pytest.approx(0.0, abs=1e-12)
    assert metrics.ece(np.tile([1.0, 0.0], (100, 1)), shuffled) == pytest.approx(0.3)


@pytest.mark.parametrize(("count", "bins"), [(2, 1), (19, 1), (20, 2), (149, 14), (150, 15), (1000, 15)])
def test_a_bin_has_ten_items_or_more(count, bins):
    found = metrics.bin_confidences(np.linspace(0.5, 1.0, count))
    assert len(found) == bins
    assert sorted(np.concatenate(found)) == list(range(count))
    assert bins == 1 or min(map(len, found)) >= metrics.LEAST_IN_BIN


def test_what_single_items_are_right_about_is_no_calibration_error():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    assert metrics.ece(probabilities, np.array([0, 1, 0, 0])) == pytest.approx(0.0, abs=1e-12), "75 % sure, 75 % right"
