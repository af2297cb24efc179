"""Whole evaluations: keys, intervals, bases and warnings."""

import json
import subprocess
import sys

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.evidence import metrics, multilabel
from headstart.evidence.comparison import compare, item_scores
from headstart.evidence.evaluate import evaluate_multi, evaluate_repeated, evaluate_single, evaluate_value
from headstart.heads.temperature import sigmoid, softmax


def make_single(seed=0, num_items=120, num_classes=4, gain=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_items)
    logits = rng.normal(size=(num_items, num_classes))
    logits[np.arange(num_items), labels] += gain
    return softmax(logits), labels


def test_single_has_the_contracts_keys_and_an_interval_around_each():
    probabilities, labels = make_single()
    evaluation = evaluate_single(probabilities, labels, list("abcd"), seed=0)
    entries = evaluation.as_json()
    assert list(entries) == [
        "accuracy", "accuracy_ci95", "macro_f1", "macro_f1_ci95", "log_loss", "log_loss_ci95", "ece", "ece_ci95",
    ]  # fmt: skip
    for name in ("accuracy", "macro_f1", "log_loss", "ece"):
        low, high = entries[f"{name}_ci95"]
        assert low <= entries[name] <= high
        assert low < high
    assert evaluation.basis == "120 test items"
    assert evaluation.confusion.sum() == 120
    counts = np.bincount(labels)
    assert evaluation.majority == {"label": "abcd"[counts.argmax()], "accuracy": pytest.approx(counts.max() / 120)}
    assert sum(row["count"] for row in evaluation.reliability) == 120
    assert len(evaluation.reliability) == 12
    assert not evaluation.warnings
    json.dumps(evaluation.as_report(), allow_nan=False)


def test_the_seed_decides():
    probabilities, labels = make_single()
    first, again, other = (evaluate_single(probabilities, labels, list("abcd"), seed=seed) for seed in (0, 0, 1))
    assert first.as_json() == again.as_json()
    assert first.intervals["log_loss"] != other.intervals["log_loss"]
    assert first.metrics == other.metrics


def test_chance_is_called_chance():
    probabilities, labels = make_single(gain=0.0)
    warning = evaluate_single(probabilities, labels, ["cat", "dog", "emu", "fox"], seed=0).warnings[0]
    assert "better than always answering" in warning
    assert "check preprocessing and labels" in warning


def test_worse_than_the_majority_says_no_better():
    labels = np.array([0] * 60 + [1] * 40)
    always_other = np.tile([0.1, 0.9], (100, 1))
    evaluation = evaluate_single(always_other, labels, ["cat", "dog"], seed=0)
    assert evaluation.warnings[0].startswith("no better than always answering 'cat' (accuracy 0.400")


def test_a_few_more_right_than_the_majority_asks_for_more_items():
    labels = np.array([0] * 6 + [1] * 4)
    probabilities = np.tile([0.9, 0.1], (10, 1))
    probabilities[6] = [0.1, 0.9]
    evaluation = evaluate_single(probabilities, labels, ["cat", "dog"], seed=0)
    assert "not shown to be better" in evaluation.warnings[0]
    assert "more items" in evaluation.warnings[0]


def test_a_perfect_score_on_few_items_is_not_certain():
    labels = np.arange(20) % 2
    evaluation = evaluate_single(np.eye(2)[labels] * 0.8 + 0.1, labels, ["a", "b"], seed=0)
    assert evaluation.metrics["accuracy"] == evaluation.metrics["macro_f1"] == 1.0
    assert evaluation.intervals["accuracy"][0] == pytest.approx(0.832, abs=0.001)
    assert evaluation.intervals["macro_f1"][0] == pytest.approx(0.832, abs=0.001)


def test_repeats_are_not_more_items():
    probabilities, labels = make_single(num_items=40, gain=1.0)
    once = evaluate_repeated([(probabilities, labels)], list("abcd"), seed=0)
    five = evaluate_repeated([(probabilities, labels)] * 5, list("abcd"), seed=0)
    assert five.metrics == pytest.approx(once.metrics)
    assert five.intervals["accuracy"] == pytest.approx(once.intervals["accuracy"])
    assert five.intervals["macro_f1"] == pytest.approx(once.intervals["macro_f1"], abs=0.03)
    assert five.confusion.sum() == 40
    assert five.basis == "cross-validation repeated 5 times over 40 items: an estimate, no separate test set"


def test_repeats_are_averaged():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 30)
    repeats = [(softmax(rng.normal(size=(30, 3)) + 1.5 * np.eye(3)[labels]), labels) for _ in range(4)]
    evaluation = evaluate_repeated(
        repeats, ["a", "b", "c"], seed=0, basis="5-fold cross-validation repeated 4 times over 30 items"
    )
    singles = [evaluate_single(each, labels, ["a", "b", "c"], seed=0) for each, _ in repeats]
    for name in evaluation.metrics:
        assert evaluation.metrics[name] == pytest.approx(np.mean([single.metrics[name] for single in singles]))
    assert evaluation.basis.startswith("5-fold")


def test_repeats_of_other_items_are_refused():
    probabilities, labels = make_single(num_items=20)
    with pytest.raises(DataError, match="labels differ"):
        evaluate_repeated([(probabilities, labels), (probabilities, labels[::-1])], list("abcd"), seed=0)


@pytest.mark.parametrize(
    ("probabilities", "labels", "match"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "shape"),
        (np.full((3, 3), 1 / 3), np.zeros(3, int), r"\(3, 3\)"),
        (np.full((3, 2), np.nan), np.zeros(3, int), "NaN"),
        (np.full((3, 2), 0.5), np.array([0, 1, 2]), "2 classes"),
        (np.full((3, 2), 0.5), np.array([0, -1, 0]), "2 classes"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_words(probabilities, labels, match):
    with pytest.raises(DataError, match=match):
        evaluate_single(probabilities, labels, ["a", "b"], seed=0)


def test_a_class_without_test_items_is_listed_and_left_out_of_the_mean():
    evaluation = evaluate_single(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 1]), ["a", "b", "c"], seed=0)
    assert evaluation.per_class[2] == {"label": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert evaluation.metrics["macro_f1"] == 1.0


def make_multi(num_items=300, num_labels=5, gain=2.0):
    rng = np.random.default_rng(0)
    targets = rng.random((num_items, num_labels)) < 0.25
    return sigmoid(rng.normal(size=targets.shape) + gain * targets - 1.0), targets


def test_multi_has_the_contracts_keys_and_uses_the_thresholds():
    probabilities, targets = make_multi()
    evaluation = evaluate_multi(probabilities, targets, list("abcde"), seed=0, thresholds=np.full(5, 0.4))
    assert list(evaluation.metrics) == ["macro_f1", "micro_f1", "mean_average_precision"]
    assert evaluation.metrics["micro_f1"] == metrics.micro_f1(targets, probabilities >= 0.4)
    for name, (low, high) in evaluation.intervals.items():
        assert low < evaluation.metrics[name] < high
    assert not evaluation.warnings
    json.dumps(evaluation.as_report(), allow_nan=False)


def test_multi_at_chance_is_called_chance():
    _, targets = make_multi(num_items=60)
    worst = evaluate_multi(1.0 - targets * 1.0, targets, list("abcde"), seed=0).warnings
    assert "how frequent each label is" in worst[0]


def test_influences_are_the_derivatives_by_weight():
    probabilities, targets = make_multi(num_items=40, num_labels=3)
    probabilities = probabilities.round(1)  # ties
    predicted = probabilities >= 0.5
    influences = multilabel.influence_multi(probabilities, targets, predicted)
    base = multilabel.measure_multi(probabilities, targets, predicted)
    # An item repeated 400 times over among 400 copies of all is a weight of 1 + 1/400.
    for item in (0, 7, 23):
        copies = np.append(np.repeat(np.arange(40), 400), item)
        moved = multilabel.measure_multi(probabilities[copies], targets[copies], predicted[copies])
        for name, influence in influences.items():
            assert (moved[name] - base[name]) * 400 == pytest.approx(influence[item], rel=0.02, abs=2e-5)


def test_influences_and_bootstrap_agree_where_both_are_possible(monkeypatch):
    probabilities, targets = make_multi(num_items=600)
    predicted = probabilities >= 0.5
    drawn = multilabel.bound_multi(probabilities, targets, predicted, seed=0)
    monkeypatch.setattr(multilabel, "_MOST_PAIRS", 0)
    computed = multilabel.bound_multi(probabilities, targets, predicted, seed=0)
    for name, (low, high) in drawn.items():
        assert computed[name][1] - computed[name][0] == pytest.approx(high - low, rel=0.1)
        assert sum(computed[name]) / 2 == pytest.approx((low + high) / 2, abs=0.15 * (high - low))


def test_value_has_the_contracts_keys_and_intervals():
    rng = np.random.default_rng(0)
    targets = rng.normal(50, 10, 80)
    evaluation = evaluate_value(targets + rng.normal(0, 4, 80), targets, seed=0)
    assert list(evaluation.metrics) == ["mae", "rmse", "r2"]
    for name, (low, high) in evaluation.intervals.items():
        assert low < evaluation.metrics[name] < high
    assert not evaluation.warnings
    assert "always answering the mean" in evaluate_value(rng.normal(50, 10, 80), targets, seed=0).warnings[0]


@pytest.mark.parametrize("num_items", [1, 2, 3])
def test_tiny_sets_give_finite_numbers(num_items):
    labels = np.arange(num_items) % 2
    for evaluation in (
        evaluate_single(np.full((num_items, 2), 0.5), labels, ["a", "b"], seed=0),
        evaluate_multi(np.full((num_items, 2), 0.5), np.eye(2)[labels] > 0, ["a", "b"], seed=0),
        evaluate_value(np.ones(num_items), labels.astype(float), seed=0),
    ):
        assert np.isfinite(list(evaluation.metrics.values())).all()
        assert np.isfinite(list(evaluation.intervals.values())).all()


def test_evidence_loads_neither_scipy_nor_sklearn():
    code = (
        "import sys, numpy as np; from headstart.evidence.evaluate import evaluate_single;"
        "from headstart.heads.temperature import fit_temperature;"
        "evaluate_single(np.full((9, 2), .5), np.arange(9) % 2, ['a', 'b'], seed=0);"
        "fit_temperature(np.eye(9), np.arange(9));"
        "assert not {'scipy', 'sklearn', 'torch', 'matplotlib'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_comparison_says_better_worse_or_unsure_by_paired_items():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    right = np.eye(2)[truth] * 0.8 + 0.1
    poor = np.where((rng.random(400) < 0.2)[:, None], 1 - right, right)
    sides = [(evaluate_single(p, truth, ("a", "b"), seed=0), item_scores(p, truth, "single")) for p in (right, poor)]
    better, worse, same = compare(*sides, seed=0), compare(*sides[::-1], seed=0), compare(sides[0], sides[0], seed=0)
    assert (better.code, worse.code, same.code) == ("better", "worse", "unsure")
    told = better.as_json()
    assert told["gain"] == pytest.approx(told["tuned"] - told["baseline"]) and told["metric"] == "accuracy"
    assert json.loads(json.dumps(told)) == told


def test_a_comparison_of_values_counts_a_smaller_error_as_gain():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    sides = [truth + rng.normal(scale=scale, size=300) for scale in (0.1, 1.0)]
    made = [(evaluate_value(side, truth, seed=0), item_scores(side[:, None], truth, "value")) for side in sides]
    told = compare(*made, seed=0).as_json()
    assert told["code"] == "better" and told["gain"] == pytest.approx(told["baseline"] - told["tuned"])


def test_a_comparison_of_label_sets_has_scores_and_no_paired_gain():
    truth = np.random.default_rng(0).random((60, 3)) > 0.5
    made = evaluate_multi(truth * 0.8 + 0.1, truth, ("a", "b", "c"), seed=0, thresholds=np.full(3, 0.5))
    told = compare((made, item_scores(truth * 1.0, truth, "multi")), (made, None), seed=0).as_json()
    assert told["metric"] == "micro_f1" and told["gain"] is None and told["code"] is None
