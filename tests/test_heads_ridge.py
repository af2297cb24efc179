import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeClassifierCV

from headstart.errors import SettingError
from headstart.heads import leave_out
from headstart.heads.leave_out import leave_fold_out, leave_one_out, pose_ridge
from headstart.heads.ridge import fit_ridge, fit_ridge_multilabel, fit_ridge_value
from headstart.heads.scaling import learn_scaling


def brute_force(rows, targets, folds, penalty, weights):
    held_out = np.empty_like(targets)
    for fold in np.unique(folds):
        kept = folds != fold
        model = Ridge(alpha=penalty, solver="svd").fit(rows[kept], targets[kept], sample_weight=weights[kept])
        held_out[~kept] = model.predict(rows[~kept]).reshape(held_out[~kept].shape)
    return held_out


@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(6, 25),
    width=st.integers(1, 40),
    penalty=st.sampled_from([1e-3, 0.5, 30.0]),
    weighted=st.booleans(),
    repeated=st.booleans(),
    seed=st.integers(0, 99),
)
def test_left_out_scores_are_those_of_refitting(num_rows, width, penalty, weighted, repeated, seed):
    generator = np.random.default_rng(seed)
    features, targets = generator.standard_normal((num_rows, width)), generator.standard_normal((num_rows, 2))
    if repeated:
        features[1] = features[0]
    weights = generator.uniform(0.3, 3, num_rows) if weighted else np.ones(num_rows)
    folds = generator.permutation(np.arange(num_rows) % 3)
    scaling = learn_scaling(features, weights=weights)
    problem = pose_ridge(features, targets, scaling, weights if weighted else None)
    rows = scaling.apply(features)
    penalties = np.array([penalty])
    one = next(leave_one_out(problem, penalties))
    np.testing.assert_allclose(one, brute_force(rows, targets, np.arange(num_rows), penalty, weights), atol=1e-6)
    fold = next(leave_fold_out(problem, folds, penalties))
    np.testing.assert_allclose(fold, brute_force(rows, targets, folds, penalty, weights), atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("width", [30, 300])
def test_both_ways_of_leaving_folds_out_are_exact(width, weighted):
    generator = np.random.default_rng(0)
    features, targets = generator.standard_normal((400, width)), generator.standard_normal((400, 3))
    weights = generator.uniform(0.5, 2, 400) if weighted else np.ones(400)
    folds = np.arange(400) % 5
    problem = pose_ridge(features, targets, learn_scaling(features, weights=weights), weights if weighted else None)
    members = [np.flatnonzero(folds == fold) for fold in range(5)]
    penalties = np.array([1e-2, 10.0])
    for index, scores in enumerate(leave_fold_out(problem, folds, penalties)):
        reference = brute_force(problem.scaling.apply(features), targets, folds, penalties[index], weights)
        np.testing.assert_allclose(scores, reference, atol=1e-8)
        np.testing.assert_allclose(list(leave_out._fold_blocks(problem, members, penalties))[index], reference, atol=1e-8)


@pytest.mark.parametrize("shape", [(120, 30, 4), (60, 200, 3), (300, 40, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_classifier_is_scikit_learns_ridge_classifier_cv(shape, dtype):
    num_rows, width, num_classes = shape
    generator = np.random.default_rng(1)
    labels = np.arange(num_rows) % num_classes
    features = (
        generator.standard_normal((num_classes, width))[labels] + 2 * generator.standard_normal((num_rows, width)) + 3
    ).astype(dtype)
    penalties = np.logspace(-1, 4, 12)
    fit = fit_ridge(features, labels, num_classes=num_classes, penalties=penalties)
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    model = RidgeClassifierCV(alphas=penalties, store_cv_results=True).fit(scaled, labels)
    assert fit.head.penalty == pytest.approx(model.alpha_)
    theirs = model.decision_function(scaled)
    ours = fit.head.scores(features)
    np.testing.assert_allclose(ours[:, 1] if num_classes == 2 else ours, theirs, atol=2e-4)
    errors = model.cv_results_.reshape(-1, 12).mean(axis=0)
    np.testing.assert_allclose(fit.loo_errors, errors, rtol=1e-3)


def test_class_weights_are_sample_weights():
    generator = np.random.default_rng(2)
    labels = np.r_[np.zeros(50, int), np.ones(15, int), np.full(10, 2)]
    features = generator.standard_normal((75, 20)) + labels[:, None]
    weights = np.array([0.5, 1.5, 3.0])
    fit = fit_ridge(features, labels, num_classes=3, penalties=[5.0], class_weights=weights)
    scaled = learn_scaling(features, weights=weights[labels]).apply(features)
    model = Ridge(alpha=5.0).fit(scaled, np.where(labels[:, None] == np.arange(3), 1, -1), sample_weight=weights[labels])
    np.testing.assert_allclose(fit.head.scores(features), model.predict(scaled), atol=1e-5)


def test_leaving_single_rows_out_flatters_duplicates_and_folds_do_not():
    generator = np.random.default_rng(3)
    groups = np.arange(120) // 2
    features = np.repeat(generator.standard_normal((60, 150)), 2, axis=0) + 1e-3 * generator.standard_normal((120, 150))
    labels = generator.integers(0, 2, 60)[groups]
    single = fit_ridge(features, labels, num_classes=2, penalties=[1e-2])
    whole = fit_ridge(features, labels, num_classes=2, penalties=[1e-2], folds=groups)
    accuracy = [(fit.loo_scores.argmax(axis=1) == labels).mean() for fit in (single, whole)]
    assert accuracy[0] > 0.95
    assert accuracy[1] < 0.7
    np.testing.assert_allclose(single.head.weight, whole.head.weight)


def test_values_and_multilabel_tables_are_solved_alike():
    generator = np.random.default_rng(4)
    features = generator.standard_normal((80, 10))
    values = features @ generator.standard_normal((10, 2)) * 100 + 1000
    fit = fit_ridge_value(features, values)
    assert np.abs(fit.loo_scores - values).max() < 5
    table = (values > 1000).astype(int)
    signs = fit_ridge_value(features, 2 * table - 1.0, penalties=[7.0])
    np.testing.assert_array_equal(fit_ridge_multilabel(features, table, penalties=[7.0]).head.weight, signs.head.weight)


@pytest.mark.parametrize("penalties", [[], [0.0], [1.0, -2.0], [np.nan], [np.inf], [[1.0]]])
def test_penalties_that_cannot_work_are_refused(penalties):
    with pytest.raises(SettingError, match="above 0"):
        fit_ridge(np.eye(4), np.array([0, 1, 0, 1]), num_classes=2, penalties=penalties)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, np.nan]])
def test_class_weights_that_cannot_work_are_refused(weights):
    with pytest.raises(SettingError, match="2 finite numbers above 0"):
        fit_ridge(np.eye(4), np.array([0, 1, 0, 1]), num_classes=2, class_weights=weights)
