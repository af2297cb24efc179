import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid

from headstart.errors import DataError, SettingError
from headstart.heads.choose import ChoicePlan, choose_head
from headstart.heads.folds import make_folds
from headstart.heads.logistic import fit_logistic
from headstart.heads.means import fit_lda, fit_nearest_mean
from headstart.heads.ridge import balanced_class_weights, fit_ridge
from headstart.heads.scaling import learn_scaling


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return features[:500].astype(np.float32), labels[:500]


def test_the_nearest_mean_is_scikit_learns_nearest_centroid(digits):
    # A little noise, as scikit-learn warns of columns that never vary within a class.
    features, labels = digits[0] + 0.1 * np.random.default_rng(0).standard_normal(digits[0].shape), digits[1]
    ours = fit_nearest_mean(features, labels, num_classes=10).scores(features).argmax(axis=1)
    assert (ours == NearestCentroid().fit(features, labels).predict(features)).all()


@pytest.mark.parametrize("num_rows", [40, 500])
def test_lda_is_the_textbook_formula_with_scikit_learns_shrinkage(digits, num_rows):
    features, labels = digits[0][:num_rows], digits[1][:num_rows]
    scaled = learn_scaling(features).apply(features.astype(np.float64))
    means = np.stack([scaled[labels == label].mean(axis=0) for label in range(10)])
    covariance, _ = ledoit_wolf(scaled - means[labels], assume_centered=True)
    weight = np.linalg.solve(covariance, means.T).T
    expected = scaled @ weight.T - 0.5 * (weight * means).sum(axis=1) + np.log(np.bincount(labels) / num_rows)
    ours = fit_lda(features, labels, num_classes=10).scores(features)
    np.testing.assert_allclose(
        ours - ours.mean(axis=1, keepdims=True), expected - expected.mean(axis=1, keepdims=True), atol=5e-3
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_folds_hold_every_class_evenly(data, num_folds, seed):
    labels = np.array(data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=60)))
    folds = make_folds(labels, task="single", seed=seed, num_folds=num_folds)
    count = min(num_folds, len(labels))
    assert sorted(np.unique(folds)) == list(range(count))
    for label in np.unique(labels):
        inside = np.bincount(folds[labels == label], minlength=count)
        assert inside.max() - inside.min() <= 1
    assert (folds == make_folds(labels, task="single", seed=seed, num_folds=num_folds)).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_folds_keep_groups_whole(data, seed):
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=6, max_size=60)))
    groups = np.array(
        [f"g{number}" for number in data.draw(st.lists(st.integers(0, 20), min_size=len(labels), max_size=len(labels)))]
    )
    if len(np.unique(groups)) < 2:
        with pytest.raises(DataError, match="one group"):
            make_folds(labels, task="single", seed=seed, groups=groups)
        return
    folds = make_folds(labels, task="single", seed=seed, groups=groups)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
    assert len(np.unique(folds)) == min(5, len(np.unique(groups)))


def test_folds_of_many_labels_and_of_values_look_like_the_whole():
    generator = np.random.default_rng(0)
    table = (generator.random((200, 4)) < [0.05, 0.2, 0.5, 0.9]).astype(int)
    folds = make_folds(table, task="multi", seed=0)
    rare = np.array([table[folds == fold, 0].sum() for fold in range(5)])
    assert rare.max() - rare.min() <= 1
    values = generator.standard_normal(200) ** 3
    folds = make_folds(values, task="value", seed=0)
    medians = [np.median(values[folds == fold]) for fold in range(5)]
    assert np.ptp(medians) < 0.3


def test_the_choice_is_good_and_its_scores_are_out_of_fold(digits):
    features, labels = digits
    choice = choose_head(features, labels, task="single", num_classes=10)
    assert {candidate.kind for candidate in choice.candidates} == {"nearest-mean", "lda", "ridge", "logistic"}
    assert len(choice.candidates) == 31
    assert choice.chosen.cv_accuracy == (choice.scores.argmax(axis=1) == labels).mean()
    assert choice.chosen.cv_accuracy > 0.93
    assert choice.chosen.gap <= choice.chosen.standard_error
    assert min(candidate.cv_log_loss for candidate in choice.candidates) == pytest.approx(
        choice.chosen.cv_log_loss - choice.chosen.gap
    )
    assert choice.chosen.kind in choice.reason
    kept = choice.folds != 0
    if choice.chosen.kind == "ridge":
        refit = fit_ridge(features[kept], labels[kept], num_classes=10, penalties=[choice.chosen.penalty]).head
    else:
        refit = fit_logistic(features[kept], labels[kept], num_classes=10, penalties=choice.chosen.penalty)
    agreement = refit.scores(features[~kept]).argmax(axis=1) == choice.scores[~kept].argmax(axis=1)
    assert agreement.mean() > 0.97


@pytest.mark.parametrize("kind", ["nearest-mean", "lda", "ridge", "logistic"])
def test_each_winner_is_refitted_on_all_rows_as_its_own_solver_would(digits, kind):
    features, labels = digits
    head = choose_head(features, labels, task="single", num_classes=10, plan=ChoicePlan(candidates=(kind,))).head
    alone = {
        "nearest-mean": lambda: fit_nearest_mean(features, labels, num_classes=10),
        "lda": lambda: fit_lda(features, labels, num_classes=10),
        "ridge": lambda: fit_ridge(features, labels, num_classes=10, penalties=[head.penalty]).head,
        "logistic": lambda: fit_logistic(features, labels, num_classes=10, penalties=head.penalty),
    }[kind]()
    scores = [which.scores(features) - which.scores(features).mean(axis=1, keepdims=True) for which in (head, alone)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3 * np.abs(scores[1]).max())
    assert head.kind == kind


def test_noise_is_given_the_strongest_penalty_or_the_plainest_head():
    generator = np.random.default_rng(0)
    choice = choose_head(generator.standard_normal((200, 30)), np.arange(200) % 4, task="single", num_classes=4)
    assert choice.chosen.cv_accuracy < 0.4
    assert choice.chosen.cv_log_loss > np.log(4) - 0.05


def test_groups_stay_together_and_take_the_flattery_away():
    generator = np.random.default_rng(1)
    groups = np.arange(160) // 4
    features = np.repeat(generator.standard_normal((40, 100)), 4, axis=0) + 0.01 * generator.standard_normal((160, 100))
    labels = np.r_[0, 1, generator.integers(0, 2, 38)][groups]
    apart = choose_head(features, labels, task="single", num_classes=2)
    together = choose_head(features, labels, task="single", num_classes=2, groups=groups)
    assert apart.chosen.cv_accuracy > 0.9
    assert together.chosen.cv_accuracy < 0.75
    assert all(len(np.unique(together.folds[groups == group])) == 1 for group in range(40))


def test_classes_of_one_and_two_samples_are_survived(digits):
    features, labels = digits
    kept = np.r_[np.flatnonzero(labels < 3), np.flatnonzero(labels == 3)[:1], np.flatnonzero(labels == 4)[:2]]
    choice = choose_head(features[kept], labels[kept], task="single", num_classes=5)
    assert np.isfinite(choice.scores).all()
    assert choice.scores[labels[kept] == 3].argmax() != 3
    assert all(np.isfinite(candidate.cv_log_loss) for candidate in choice.candidates)
    assert choice.head.scores(features[kept])[labels[kept] == 3].argmax() == 3


def test_balance_raises_the_recall_of_the_rare_class():
    generator = np.random.default_rng(2)
    labels = np.r_[np.zeros(285, int), np.ones(15, int)]
    features = generator.standard_normal((300, 10))
    features[labels == 1, 0] += 1.7
    recalls = [
        (
            choose_head(features, labels, task="single", num_classes=2, balance=balance).scores.argmax(axis=1)[labels == 1] == 1
        ).mean()
        for balance in (None, balanced_class_weights(labels, 2))
    ]
    assert recalls[1] > recalls[0] + 0.3


def test_multilabel_and_value_tasks_have_their_own_contest(digits):
    features, labels = digits
    table = np.stack([labels % 2 == 0, labels > 4, labels == 3], axis=1).astype(int)
    multi = choose_head(features, table, task="multi")
    assert {candidate.kind for candidate in multi.candidates} == {"ridge", "logistic"}
    assert multi.chosen.cv_accuracy > 0.85 and multi.scores.shape == (500, 3)
    value = choose_head(features, features[:, 20] - 2 * features[:, 30] + 5.0, task="value")
    assert value.chosen.cv_rmse < 0.05 and value.chosen.cv_log_loss is None and value.head.scores(features).shape == (500, 1)


def test_a_large_contest_is_held_on_a_part_and_the_winner_fitted_on_all(digits):
    features, labels = digits
    choice = choose_head(features, labels, task="single", num_classes=10, plan=ChoicePlan(max_rows=200, candidates=("ridge",)))
    assert 150 <= len(choice.rows) <= 200 and choice.scores.shape == (len(choice.rows), 10)
    everything = fit_ridge(features, labels, num_classes=10, penalties=[choice.head.penalty]).head
    np.testing.assert_allclose(choice.head.weight, everything.weight, atol=1e-5)


def test_blocks_choose_the_scaling_and_the_seed_the_folds(digits):
    features, labels = digits
    assert choose_head(features, labels, task="single", num_classes=10).scaling == "global"
    plan = ChoicePlan(block_widths=(32, 32), candidates=("ridge",), seed=3)
    blocks = choose_head(features, labels, task="single", num_classes=10, plan=plan)
    again = choose_head(features, labels, task="single", num_classes=10, plan=plan)
    assert blocks.scaling == "root"
    networks = ChoicePlan(block_widths=(32, 32), network_widths=(32, 32), candidates=("ridge",), seed=3)
    assert choose_head(features, labels, task="single", num_classes=10, plan=networks).scaling == "network"
    np.testing.assert_array_equal(blocks.scores, again.scores)
    other = choose_head(features, labels, task="single", num_classes=10, plan=ChoicePlan(candidates=("ridge",), seed=4))
    assert (other.folds != blocks.folds).any()


def test_candidates_the_task_has_not_are_refused(digits):
    features, labels = digits
    with pytest.raises(SettingError, match="nearest-mean, lda, ridge, logistic"):
        choose_head(features, labels, task="single", num_classes=10, plan=ChoicePlan(candidates=("forest",)))
    with pytest.raises(SettingError, match="one or more of ridge"):
        choose_head(features, features[:, 0], task="value", plan=ChoicePlan(candidates=("lda",)))
