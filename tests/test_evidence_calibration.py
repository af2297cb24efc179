"""Temperatures and thresholds against scipy's optimisers, and on scores made to trip them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from sklearn.metrics import f1_score

from headstart.errors import DataError
from headstart.evidence import calibration, metrics
from headstart.heads import temperature


def make_scores(seed, num_items=2000, num_classes=6, sharpness=1.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.0, (num_items, num_classes))
    labels = (special.softmax(logits, axis=1).cumsum(axis=1) > rng.random((num_items, 1))).argmax(axis=1)
    return logits * sharpness, labels


@pytest.mark.parametrize("sharpness", [0.05, 0.3, 1.0, 4.0, 30.0])
def test_temperature_undoes_the_sharpness_and_agrees_with_scipy(sharpness):
    logits, labels = make_scores(0, sharpness=sharpness)
    fitted = temperature.fit_temperature(logits, labels)

    def loss(log_temperature):
        return -special.log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean()

    best = optimize.minimize_scalar(loss, bounds=np.log([0.01, 100]), method="bounded", options={"xatol": 1e-8})
    assert fitted == pytest.approx(sharpness, rel=0.06)
    assert loss(np.log(fitted)) == pytest.approx(best.fun, abs=1e-5)


def test_temperature_lowers_the_calibration_error_of_over_sure_scores():
    logits, labels = make_scores(1, sharpness=5.0)
    fitted = temperature.fit_temperature(logits[:1000], labels[:1000])
    before = metrics.ece(temperature.softmax(logits[1000:]), labels[1000:])
    after = metrics.ece(temperature.softmax(logits[1000:], fitted), labels[1000:])
    assert after < before / 3


@pytest.mark.parametrize("num_items", [4, 50, 2000])
def test_separable_scores_are_as_sure_as_their_number_allows(num_items):
    labels = np.arange(num_items) % 4
    probabilities = temperature.softmax(
        np.eye(4)[labels] * 2 - 1, temperature.fit_temperature(np.eye(4)[labels] * 2 - 1, labels)
    )
    wrong = 1.0 - probabilities.max()
    assert wrong == pytest.approx(0.75 / (num_items + 2), rel=1e-3)


def test_temperature_stays_in_its_bounds_whatever_the_unit_of_the_scores():
    labels = np.arange(40) % 2
    for unit in (1e-6, 1.0, 1e4):
        against = np.eye(2)[1 - labels] * unit
        assert temperature.fit_temperature(against, labels) == pytest.approx(10.0 * unit / 2, rel=0.01)
        sure = temperature.fit_temperature(np.eye(2)[labels] * unit, labels)
        assert temperature.softmax(np.eye(2) * unit, sure).min() == pytest.approx(0.5 / 42, rel=1e-3)
    assert temperature.fit_temperature(np.zeros((40, 2)), labels) == 1.0


def test_rows_without_weight_do_not_count_and_equal_weights_change_nothing():
    logits, labels = make_scores(3, 400)
    wrong = np.concatenate([logits, -50 * logits[:200]])
    weights = np.concatenate([np.ones(400), np.zeros(200)])
    plain = temperature.fit_temperature(logits, labels)
    assert temperature.fit_temperature(wrong, np.concatenate([labels, labels[:200]]), weights) == pytest.approx(plain, rel=1e-9)
    assert temperature.fit_temperature(logits, labels, np.full(400, 3.0)) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_temperature_does_not_see_a_shift_and_does_not_overflow(offset):
    logits, labels = make_scores(2, 300)
    assert temperature.fit_temperature(logits + offset, labels) == pytest.approx(
        temperature.fit_temperature(logits, labels), rel=1e-5
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6), st.integers(1, 30), st.integers(2, 5))
def test_temperature_is_always_a_number_in_its_bounds(seed, scale, num_items, num_classes):
    rng = np.random.default_rng(seed)
    fitted = temperature.fit_temperature(
        rng.normal(0, scale, (num_items, num_classes)), rng.integers(0, num_classes, num_items)
    )
    assert np.isfinite(fitted) and 0 < fitted <= 10.01 * max(scale * 10, 1)


def test_softmax_and_sigmoid_agree_with_scipy_far_out():
    values = np.array([[-1e4, 0.0, 1e4], [1.0, 2.0, 3.0], [-745.0, -745.0, -744.0]])
    np.testing.assert_allclose(temperature.softmax(values), special.softmax(values, axis=1))
    np.testing.assert_allclose(temperature.sigmoid(values), special.expit(values), atol=1e-300)


def make_multi(seed, num_items, shares, sharpness):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, (num_items, len(shares))) + special.logit(shares)
    targets = rng.random(scores.shape) < special.expit(scores)
    return scores * sharpness, targets


def test_label_temperatures_undo_each_labels_sharpness():
    sharpness = np.array([0.2, 1.0, 5.0])
    scores, targets = make_multi(0, 4000, np.array([0.3, 0.5, 0.4]), sharpness)
    np.testing.assert_allclose(calibration.fit_label_calibration(scores, targets).temperatures, sharpness, rtol=0.1)


def test_threshold_of_a_frequent_label_is_the_best_for_f1():
    scores, targets = make_multi(1, 4000, np.array([0.3, 0.15]), 1.0)
    fitted = calibration.fit_label_calibration(scores, targets)
    probabilities = temperature.sigmoid(scores / fitted.temperatures)
    for label in range(2):
        reached = f1_score(targets[:, label], probabilities[:, label] >= fitted.thresholds[label])
        best = max(f1_score(targets[:, label], probabilities[:, label] >= cut) for cut in np.linspace(0.02, 0.98, 97))
        assert reached >= best - 0.004
        assert fitted.thresholds[label] < 0.5  # where answers overlap, F1 wants half its own best value


def test_a_rare_labels_threshold_stays_near_a_half():
    rng = np.random.default_rng(0)
    scores = rng.normal(-3, 1, (500, 3))
    targets = np.zeros((500, 3), bool)
    targets[:400, 0] = True
    targets[0, 1] = True
    fitted = calibration.fit_label_calibration(scores, targets)
    assert abs(fitted.thresholds[1] - 0.5) <= 0.5 / 11 + 1e-9
    assert fitted.thresholds[2] == 0.5
    assert fitted.thresholds[0] < 0.3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused_in_words(value):
    scores = np.zeros((5, 2))
    scores[3, 1] = value
    with pytest.raises(DataError, match=r"1 of 5 items.*row 3"):
        temperature.fit_temperature(scores, np.zeros(5, int))
    with pytest.raises(DataError, match=r"1 of 5 items.*row 3"):
        calibration.fit_label_calibration(scores, np.zeros((5, 2), bool))


def test_shapes_that_disagree_are_refused_in_words():
    with pytest.raises(DataError, match=r"\(5, 2\) and 4 labels"):
        temperature.fit_temperature(np.zeros((5, 2)), np.zeros(4, int))
    with pytest.raises(DataError, match=r"\(0, 2\)"):
        calibration.fit_label_calibration(np.zeros((0, 2)), np.zeros((0, 2), bool))
