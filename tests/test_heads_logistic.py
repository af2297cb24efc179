import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from headstart.heads import logistic_path
from headstart.heads.folds import make_folds
from headstart.heads.logistic import (
    cross_validate_logistic,
    default_logistic_penalties,
    fit_logistic,
    fit_logistic_multilabel,
)
from headstart.heads.scaling import learn_scaling
from headstart.heads.temperature import fit_temperature, log_losses


def overlapping(num_rows, width, num_classes, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(num_rows) % num_classes
    centres = 2.5 * generator.standard_normal((num_classes, width)) / np.sqrt(width)
    return (centres[labels] + generator.standard_normal((num_rows, width)) + 2).astype(np.float32), labels


def reference(scaled, labels, penalty, weights=None):
    factor = 2 if len(np.unique(labels)) == 2 else 1
    model = LogisticRegression(C=factor / penalty, tol=1e-9, max_iter=5000)
    return model.fit(scaled, labels, sample_weight=weights)


@pytest.mark.parametrize("shape", [(150, 20, 4), (60, 200, 3), (200, 30, 2)])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_probabilities_are_scikit_learns(shape, strength):
    features, labels = overlapping(*shape)
    penalty = strength * shape[1]
    head = fit_logistic(features, labels, num_classes=shape[2], penalties=penalty)
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    theirs = reference(scaled, labels, penalty).predict_proba(scaled)
    np.testing.assert_allclose(softmax(head.scores(features), axis=1), theirs, atol=1e-4)


def test_class_weights_are_sample_weights():
    features, labels = overlapping(120, 15, 3)
    weights = np.array([0.4, 1.0, 2.5])
    head = fit_logistic(features, labels, num_classes=3, penalties=2.0, class_weights=weights)
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    theirs = reference(scaled, labels, 2.0, weights[labels]).predict_proba(scaled)
    np.testing.assert_allclose(softmax(head.scores(features), axis=1), theirs, atol=1e-4)


@pytest.mark.parametrize("shape", [(150, 20, 4), (70, 200, 3)])
def test_out_of_fold_logits_are_those_of_refitting(shape):
    features, labels = overlapping(*shape)
    folds = make_folds(labels, task="single", seed=0, num_folds=3)
    penalties = default_logistic_penalties(shape[1])[:6]
    ours = cross_validate_logistic(features, labels, folds, penalties, num_classes=shape[2])
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    for scores, penalty in zip(ours, penalties, strict=True):
        theirs = np.empty((len(labels), shape[2]))
        for fold in range(3):
            model = reference(scaled[folds != fold], labels[folds != fold], penalty)
            theirs[folds == fold] = model.predict_proba(scaled[folds == fold])
        np.testing.assert_allclose(softmax(scores, axis=1), theirs, atol=1.5e-2)
        assert abs(log_losses(scores, labels).mean() + np.log(theirs[np.arange(len(labels)), labels]).mean()) < 1e-3


@pytest.mark.parametrize("several", [False, True])
def test_folds_solved_one_by_one_are_those_solved_together(monkeypatch, several):
    features, labels = overlapping(120, 20, 3)
    folds = make_folds(labels, task="single", seed=0)
    penalties = default_logistic_penalties(20)[:6]
    weights = np.array([0.5, 1.0, 2.0])
    table = np.stack([labels == 0, labels < 2], axis=0).astype(float)
    if several:
        problem = logistic_path.pose_logistic(features, table, learn_scaling(features), None, "sigmoid")
    else:
        problem = logistic_path.pose_logistic(
            features, np.eye(3)[:, labels], learn_scaling(features), weights[labels], "softmax"
        )
    together = np.stack(list(logistic_path.held_out_logits(problem, folds, penalties)))
    monkeypatch.setattr(logistic_path, "TOGETHER_NUMBERS", 0)
    alone = np.stack(list(logistic_path.held_out_logits(problem, folds, penalties)))
    assert alone.shape == together.shape
    chances = [expit(scores) if several else softmax(scores, axis=2) for scores in (alone, together)]
    np.testing.assert_allclose(*chances, atol=1.5e-2)


def test_a_penalty_of_many_is_the_one_with_the_least_cross_validated_log_loss():
    features, labels = overlapping(150, 20, 4)
    penalties = default_logistic_penalties(20)
    folds = make_folds(labels, task="single", seed=5)
    head = fit_logistic(features, labels, num_classes=4, penalties=penalties, folds=folds)
    scores = cross_validate_logistic(features, labels, folds, penalties, num_classes=4)
    losses = [log_losses(table, labels).mean() for table in scores]
    assert head.penalty == penalties[np.argmin(losses)]
    alone = fit_logistic(features, labels, num_classes=4, penalties=head.penalty)
    np.testing.assert_array_equal(head.weight, alone.weight)


def test_penalties_in_any_order_and_repeated_are_solved():
    features, labels = overlapping(90, 20, 3)
    folds = make_folds(labels, task="single", seed=0)
    jumbled = np.array([0.02, 20.0, 20.0, 0.2, 2.0])
    ours = cross_validate_logistic(features, labels, folds, jumbled, num_classes=3)
    plain = cross_validate_logistic(features, labels, folds, np.array([20.0, 2.0, 0.2, 0.02]), num_classes=3)
    np.testing.assert_allclose(softmax(ours[[1, 4, 3, 0]], axis=2), softmax(plain, axis=2), atol=1.5e-2)


def test_each_label_of_many_is_its_own_logistic_regression():
    features, labels = overlapping(150, 20, 4)
    table = np.stack([labels == 0, labels < 2, labels != 3], axis=1).astype(int)
    head = fit_logistic_multilabel(features, table, penalties=3.0)
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    for label in range(3):
        model = LogisticRegression(C=1 / 3, tol=1e-9, max_iter=5000).fit(scaled, table[:, label])
        ours = expit(head.scores(features)[:, label])
        np.testing.assert_allclose(ours, model.predict_proba(scaled)[:, 1], atol=1e-4)


def test_separable_classes_and_a_class_missing_from_a_fold_end_in_finite_logits():
    features, labels = overlapping(40, 300, 3)
    labels = np.where(labels == 2, 1, labels)
    labels[7] = 2
    folds = make_folds(labels, task="single", seed=0)
    scores = cross_validate_logistic(features, labels, folds, default_logistic_penalties(300), num_classes=3)
    assert np.isfinite(scores).all()
    assert (scores[:, 7].argmax(axis=1) != 2).all()
    table = np.ones((40, 2), int)
    table[0, 0] = 0
    assert np.isfinite(fit_logistic_multilabel(features, table).scores(features)).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), spread=st.sampled_from([1e-2, 1.0, 30.0]), weighted=st.booleans())
def test_the_temperature_is_the_best_of_a_fine_grid(seed, spread, weighted):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, 80)
    scores = spread * (np.eye(4)[labels] + generator.standard_normal((80, 4)))
    weights = generator.uniform(0, 2, 80) if weighted else np.ones(80)
    # Each target gives 1/(N+2) of its mass to all classes alike.
    soft = np.eye(4)[labels] * (1 - 1 / 82) + 1 / 82 / 4
    grid = np.exp(np.linspace(-6.9, 6.9, 400)) * np.abs(scores - scores.mean(axis=1, keepdims=True)).mean()

    def loss(temperature):
        return -weights @ (soft * log_softmax(scores / temperature, axis=1)).sum(axis=1)

    reachable = grid[(grid >= grid[200] / 100) & (grid <= grid[200] * 10)]
    assert loss(fit_temperature(scores, labels, weights)) <= min(map(loss, reachable)) + 1e-6
    assert weights @ log_losses(scores, labels) == pytest.approx(-weights @ log_softmax(scores, axis=1)[np.arange(80), labels])


def test_constant_scores_have_a_temperature_too():
    assert np.isfinite(fit_temperature(np.zeros((5, 3)), np.zeros(5, int)))
