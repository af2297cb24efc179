"""A class that is nearly one group: no fold can test it, so it neither chooses the head nor spoils its calibration."""

import numpy as np
import pytest

from headstart.api.content import _warn_of_untested, compare_with_cross_validation, warn_of_unknown
from headstart.data.folds import cross_validation_folds
from headstart.data.split import split
from headstart.evidence import metrics
from headstart.evidence.evaluate import evaluate_repeated, evaluate_single
from headstart.heads.choose import ChoicePlan, choose_head
from headstart.heads.folds import known_rows, make_folds
from headstart.heads.judge import Judge, Mark
from headstart.heads.temperature import log_losses, softmax
from headstart.records import Dataset, Sample, Splits
from headstart.select.calibration import calibrate
from headstart.select.gate import mark_items
from headstart.select.trial import Contestants, better, hold_trial

NUM_CLASSES = 6


def copies_and_others(seed, share_of_copies=0.97, num_copies=150):
    """Features of five classes that overlap, and of a sixth that is all but wholly copies of one item; with fresh items."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(NUM_CLASSES, 24)) * 0.9
    labels = np.repeat(np.arange(NUM_CLASSES - 1), 70)
    features = centres[labels] + random.normal(size=(len(labels), 24))
    copies = np.tile(centres[-1] + random.normal(size=24), (num_copies, 1)) + 0.05 * random.normal(size=(num_copies, 24))
    num_others = round(num_copies / share_of_copies) - num_copies
    others = centres[-1] + random.normal(size=(num_others, 24))
    features = np.concatenate([features, copies, others]).astype(np.float32)
    labels = np.concatenate([labels, np.full(num_copies + num_others, NUM_CLASSES - 1)])
    groups = np.arange(len(labels))
    groups[350 : 350 + num_copies] = 350
    fresh = np.repeat(np.arange(NUM_CLASSES - 1), 100)
    return features, labels, groups, (centres[fresh] + random.normal(size=(len(fresh), 24))).astype(np.float32), fresh


@pytest.mark.parametrize("seed", range(5))
def test_one_group_of_a_class_leaves_probabilities_calibrated(seed):
    features, labels, groups, fresh, truth = copies_and_others(seed)
    choice = choose_head(features, labels, task="single", num_classes=NUM_CLASSES, groups=groups, plan=ChoicePlan(seed=seed))
    calibration = calibrate(choice.scores, labels, task="single", num_labels=NUM_CLASSES, known=choice.known)
    answers = calibration.answers(choice.head.scores(fresh), "single")
    accuracy = (answers.argmax(axis=1) == truth).mean()
    assert metrics.ece(answers, truth) <= 0.1
    assert choice.chosen.cv_accuracy == pytest.approx(accuracy, abs=0.08)
    assert not choice.known[350:500].any() and choice.known[:350].all()


@pytest.mark.parametrize(("share", "counts"), [(0.97, False), (0.8, False), (0.7, True), (0.4, True)])
def test_a_group_counts_where_the_other_folds_have_a_quarter_of_its_class(share, counts):
    _, labels, groups, _, _ = copies_and_others(0, share)
    folds = make_folds(labels, task="single", seed=0, groups=groups)
    assert known_rows(labels, folds, task="single")[350:500].all() == counts


def test_labels_of_one_group_do_not_count_either_and_values_always_do():
    table = np.zeros((60, 2))
    table[::2, 0] = 1
    table[:20, 1] = 1
    groups = np.arange(60)
    groups[:20] = 0
    known = known_rows(table, make_folds(table, task="multi", seed=0, groups=groups), task="multi")
    assert not known[:20].any() and known[20:].all()
    assert known_rows(np.arange(60.0), np.arange(60) % 5, task="value").all()
    one = np.zeros(10, int)
    assert known_rows(np.arange(10), np.arange(10) % 2, task="single").all(), "where no row is known, all count"
    assert known_rows(one, np.arange(10) % 2, task="single").all()


def test_repeated_cross_validation_always_trains_on_such_a_group():
    samples = [Sample(id=f"a{i:02d}", item="x", labels=("a",), group="one" if i < 18 else None) for i in range(20)]
    samples += [Sample(id=f"b{i:02d}", item="x", labels=("b",)) for i in range(20)]
    data = Dataset(samples=tuple(samples), labels=("a", "b"), task="single", modality="image", source="test")
    folds = cross_validation_folds(data, list(data.by_id), seed=0, num_repeats=2)
    assert (folds[:, :18] == -1).all() and (folds[:, 18:] >= 0).all()


def test_every_comparison_gives_the_same_scores_the_same_loss():
    features, labels, groups, *_ = copies_and_others(1)
    plan = ChoicePlan(seed=3, candidates=("ridge",))
    choice = choose_head(features, labels, task="single", num_classes=NUM_CLASSES, groups=groups, plan=plan)
    items = Contestants(task="single", targets=labels, num_classes=NUM_CLASSES, groups=groups)
    trial = hold_trial("x", features, (24,), items, seed=3)
    assert trial.loss == pytest.approx(choice.chosen.cv_log_loss, rel=1e-6)
    assert trial.score == choice.chosen.cv_accuracy
    calibration = calibrate(choice.scores, labels, task="single", num_labels=NUM_CLASSES, known=choice.known)
    assert calibration.temperatures[0] == pytest.approx(choice.chosen.temperature, rel=1e-4)
    known = choice.known
    assert mark_items(choice.scores[known], labels[known], "single").losses.mean() == pytest.approx(trial.loss, rel=1e-4)
    judge = Judge.of("single", labels, choice.folds, None)
    assert judge.mark(choice.scores).log_loss == pytest.approx(trial.loss, rel=1e-4)


def test_a_comparison_of_features_has_the_standard_error_of_that_of_heads():
    features, labels, groups, *_ = copies_and_others(2)
    groups[:350] = np.arange(350) // 7
    items = Contestants(task="single", targets=labels, num_classes=NUM_CLASSES, groups=groups)
    one, other = (
        hold_trial(name, part, (24,), items, seed=0) for name, part in (("x", features), ("y", features[:, ::-1] ** 2))
    )
    plan = ChoicePlan(seed=0, candidates=("ridge",))
    folds = choose_head(features, labels, task="single", num_classes=NUM_CLASSES, groups=groups, plan=plan).folds
    known = known_rows(labels, folds, task="single")
    judge = Judge.of("single", labels[known], folds[known], groups[known])
    marks = [Mark(losses=trial.losses, temperature=1.0, accuracy=None, log_loss=None, rmse=None) for trial in (other, one)]
    gain, error = judge.compare(*marks)
    assert better(one, other)[1].endswith(f"lower by {gain:.4f} ± {error:.4f}")


def test_labels_have_one_loss_in_every_comparison_too():
    random = np.random.default_rng(0)
    table = (random.random((200, 3)) < (0.5, 0.3, 0.1)).astype(float)
    features = (table @ random.normal(size=(3, 12)) + random.normal(size=(200, 12))).astype(np.float32)
    choice = choose_head(features, table, task="multi", plan=ChoicePlan(candidates=("ridge",)))
    trial = hold_trial("x", features, (12,), Contestants(task="multi", targets=table, num_classes=3), seed=0)
    gate = mark_items(choice.scores, table, "multi")
    assert trial.loss == pytest.approx(choice.chosen.cv_log_loss, rel=1e-6)
    assert gate.losses.mean() == pytest.approx(trial.loss, rel=1e-4)


def test_probabilities_far_from_the_truth_are_a_warning_and_calibrated_ones_are_not():
    random = np.random.default_rng(0)
    names = list("abcd")
    for num_items in (40, 130, 1_000):
        logits = random.normal(0, 2, (num_items, 4))
        labels = np.array([random.choice(4, p=row) for row in softmax(logits)])
        assert evaluate_single(softmax(logits), labels, names, seed=0).warnings == ()
        for wrong in (30.0, 0.05):
            if num_items > 40:
                told = evaluate_single(softmax(logits, wrong), labels, names, seed=0).warnings
                assert len(told) == 1 and "not calibrated" in told[0]
    repeats = [(softmax(logits, 30.0), labels), (softmax(logits * 1.1, 30.0), labels)]
    assert any("not calibrated" in each for each in evaluate_repeated(repeats, names, seed=0).warnings)


def test_the_chance_of_a_calibration_error_is_that_of_drawn_labels():
    random = np.random.default_rng(1)
    probabilities = softmax(random.normal(0, 1.5, (200, 3)))
    drawn = [
        metrics.ece(probabilities, (probabilities.cumsum(axis=1) < random.random((200, 1))).sum(axis=1)) for _ in range(400)
    ]
    mean, deviation = metrics.chance_ece(probabilities)
    assert mean == pytest.approx(np.mean(drawn), rel=0.08) and deviation == pytest.approx(np.std(drawn), rel=0.15)
    assert log_losses(np.log(probabilities), np.zeros(200, int)).min() > 0


def test_cross_validation_far_from_the_test_is_a_warning():
    assert compare_with_cross_validation(0.85, 500, 0.80, [0.73, 0.86]) == []
    assert compare_with_cross_validation(0.70, 30, 0.90, [0.83, 0.95]) == []
    for expected, count in ((0.556, 800), (0.99, 300)):
        (told,) = compare_with_cross_validation(expected, count, 0.79, [0.72, 0.85])
        assert f"{expected:.3f}" in told and "0.790 [0.720, 0.850]" in told


def test_classes_without_a_test_item_are_named_and_the_best_constant_is_that_of_the_test():
    samples = [Sample(id=f"s{i}", item="x", labels=("star",), group="one") for i in range(30)]
    samples += [Sample(id=f"{c}{i}", item="x", labels=(c,)) for c in "ab" for i in range(10)]
    data = Dataset(samples=tuple(samples), labels=("a", "b", "star"), task="single", modality="image", source="test")
    splits = split(data, seed=0)
    (told,) = _warn_of_untested(data, splits)
    assert "'star'" in told and "'a'" not in told
    assert _warn_of_untested(data, Splits(train=tuple(data.by_id))) == []
    even = split(Dataset(samples=data.samples[30:], labels=("a", "b"), task="single", modality="image", source="t"), seed=0)
    assert _warn_of_untested(data, even) == []
    truth = np.array([0, 0, 0, 1])  # of the classes a, b, star; most of what trained is star
    evaluation = evaluate_single(softmax(np.eye(3)[truth] * 3), truth, ["a", "b", "star"], seed=0)
    assert evaluation.majority == {"label": "a", "accuracy": 0.75}


def test_classes_that_cross_validation_cannot_test_are_named():
    samples = [Sample(id=f"star{i}", item="x", labels=("star",), group="one" if i < 18 else None) for i in range(20)]
    samples += [Sample(id=f"moon{i}", item="x", labels=("moon",)) for i in range(20)]
    data = Dataset(samples=tuple(samples), labels=("moon", "star"), task="single", modality="image", source="test")
    splits = Splits(train=tuple(data.by_id), groups={f"star{i}": "one" for i in range(18)})
    (told,) = warn_of_unknown(data, splits, [f"star{i}" for i in range(18)])
    assert "'star' (18 of 20)" in told and "moon" not in told
    assert warn_of_unknown(data, splits, []) == []
    assert warn_of_unknown(data, splits, ["moon0"]) == []
