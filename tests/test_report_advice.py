"""Advice out of the curves, the gate and the floor: each piece fires where it should, and nowhere else."""

import math

import numpy as np
import pytest

from headstart.report.advice import advise, judge_floor, judge_gate, judge_terms
from headstart.report.curve_advice import judge_curves, judge_start

PLAN = {"head_rate": 0.001, "reasons": {"epochs": "500 steps of 32 for 514 samples"}}


def history(train, valid, accuracy=None):
    rows = [
        {"epoch": epoch, "train_loss": float(lost), "valid_loss": float(seen), "learning_rate": 1e-3, "seconds": 1.0}
        for epoch, (lost, seen) in enumerate(zip(train, valid, strict=True))
    ]
    for row, right in zip(rows, accuracy if accuracy is not None else [], strict=False):
        row["valid_accuracy"] = float(right)
    return rows


def falling(start, end, epochs, half_life):
    return end + (start - end) * 0.5 ** (np.arange(epochs) / half_life)


def kinds(train, valid, plan=PLAN, **more):
    return [advice.kind for advice in judge_curves(history(train, valid), plan, **more)]


HEALTHY = {
    "settled": (falling(1.0, 0.2, 20, 3), falling(1.0, 0.4, 20, 3)),
    "short and settled": (np.array([0.9, 0.5, 0.4, 0.38]), np.array([0.9, 0.61, 0.6, 0.6])),
    "noisy by a little": (
        falling(1.0, 0.2, 20, 3) + 0.01 * np.sin(np.arange(20) * 2.0),
        falling(1.0, 0.4, 20, 3) + 0.01 * np.cos(np.arange(20) * 2.5),
    ),
    "one bump in the warm-up": (
        np.array([0.8, 0.95, 0.6, 0.5, 0.45, 0.42, 0.41, 0.4]),
        np.array([0.8, 0.7, 0.62, 0.6, 0.59, 0.59, 0.59, 0.59]),
    ),
    "a loss near 0 that doubles": (np.array([0.03, 0.01, 0.02, 0.008]), np.array([0.02, 0.011, 0.012, 0.013])),
    "a small rise at the end": (falling(1.0, 0.2, 12, 2), np.r_[falling(1.0, 0.4, 8, 1), 0.41, 0.412, 0.411, 0.41]),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_gets_no_advice(name):
    assert kinds(*HEALTHY[name]) == []


def overfitted(epochs=20, rise=0.02):
    ages = np.maximum(np.arange(epochs) - 6, 0)
    return falling(1.0, 0.01, epochs, 3), falling(1.0, 0.4, epochs, 1.5) + rise * ages


def test_over_fitting_is_a_rising_validation_loss_under_a_falling_training_loss():
    (advice,) = judge_curves(history(*overfitted()), PLAN)
    assert advice.kind == "over-fitting"
    assert "From epoch 8 on" in advice.message or "From epoch 7 on" in advice.message
    assert "training longer does not help" in advice.mend and "more labels" in advice.mend


def test_over_fitting_needs_the_training_loss_to_fall_on():
    train, valid = overfitted()
    lowest = int(valid.argmin())
    train[lowest:] = train[lowest]
    assert kinds(train, valid) == []


def test_over_fitting_needs_the_whole_end_to_lie_higher():
    train, valid = overfitted()
    valid[-2] = valid.min() * 1.02
    assert "over-fitting" not in kinds(train, valid)


def test_over_fitting_says_where_it_is_sureness_alone():
    train, valid = overfitted()
    right = np.linspace(0.8, 0.9, len(train))
    (told,) = judge_curves(history(train, valid, right), PLAN)
    (other,) = judge_curves(history(train, valid, right[::-1]), PLAN)
    assert "too sure rather than wrong" in told.message and "90" in told.message
    assert "too sure" not in other.message


RATES = {
    "jump": ([1.0, 0.6, 1.4, 0.9, 0.7, 0.6, 0.6, 0.6], [1.0, 0.7, 0.7, 0.7, 0.69, 0.68, 0.68, 0.68], "jumped from"),
    "swings": ([1.0, 0.6, 0.8, 0.5, 0.7, 0.45, 0.44], [1.0, 0.7, 0.7, 0.7, 0.69, 0.68, 0.68], "training loss swings"),
    "validation": ([1.0, 0.6, 0.5, 0.4, 0.4, 0.3], [1.0, 0.6, 0.9, 0.6, 0.9, 0.6], "validation loss swings"),
    "diverged": ([1.0, 1.1, 1.2, 1.3, 1.4], [1.0, 1.0, 1.0, 1.0, 1.0], "rose from"),
}  # fmt: skip


@pytest.mark.parametrize("name", RATES)
def test_a_learning_rate_that_is_too_high(name):
    train, valid, told = RATES[name]
    (advice,) = judge_curves(history(train, valid), PLAN)
    assert advice.kind == "learning rate too high" and told in advice.message
    assert "--learning-rate 0.0003" in advice.mend
    (without,) = judge_curves(history(train, valid), {})
    assert "lower --learning-rate" in without.mend


def test_curves_that_swing_say_nothing_else():
    train, valid = overfitted()
    train[3] = 3.0
    assert kinds(train, valid) == ["learning rate too high"]


def test_a_training_that_stopped_too_early():
    train, valid = falling(1.0, 0.1, 6, 4), falling(1.0, 0.2, 6, 4)
    (advice,) = judge_curves(history(train, valid), PLAN)
    assert advice.kind == "stopped too early" and "--epochs 12" in advice.mend
    (fitted,) = judge_curves(history(train, valid), PLAN | {"reasons": {"epochs": "what fits 40 s"}})
    assert "--budget" in fitted.mend
    valid[-1] = valid[-2] + 0.001
    assert kinds(train, valid) == []


def test_a_training_that_learned_nothing():
    flat = np.full(8, 0.7)
    (advice,) = judge_curves(history(flat, flat), PLAN)
    assert advice.kind == "nothing learned" and "--learning-rate 0.003" in advice.mend
    # What label smoothing leaves of the loss cannot be learned away.
    smoothed = PLAN | {"label_smoothing": 0.1}
    least = -0.91 * math.log(0.91) - 9 * 0.01 * math.log(0.01)
    assert kinds(np.full(8, least + 0.005), flat, smoothed, num_labels=10) == []
    assert kinds(np.full(8, least + 0.5), flat, smoothed, num_labels=10) == ["nothing learned"]
    assert kinds(np.full(8, 0.005), flat) == []


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_epochs_say_nothing(rows):
    assert kinds([1.0, 9.0][:rows], [1.0, 9.0][:rows]) == []


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), "no number"])
def test_a_loss_that_is_no_number_says_nothing(bad):
    rows = history(*overfitted())
    rows[4]["valid_loss"] = bad
    assert judge_curves(rows, PLAN) == []


def floor_report(accuracy, counts=(50, 50), *, task="single", weighted=False):
    asked = [{"question": "class weights", "kept": "weights" if weighted else "none"}]
    classes = [{"label": str(number), "train": count} for number, count in enumerate(counts)]
    return {"summary": {"task": task, "floor": {"cv_accuracy": accuracy}}, "data": {"classes": classes}, "choices": asked}


def test_a_floor_at_chance():
    told = judge_floor(floor_report(0.55))
    assert told is not None and told.kind == "at chance" and "check that the labels belong" in told.mend
    assert "55" in told.message and "50" in told.message
    assert judge_floor(floor_report(0.65)) is None
    # Nine tenths of the items have one label, so that 0.91 is nothing.
    assert judge_floor(floor_report(0.91, (90, 10))) is not None
    assert judge_floor(floor_report(0.91, (90, 10), weighted=True)) is None


@pytest.mark.parametrize(
    "report",
    [
        floor_report(0.1, task="multi"),
        floor_report(None),
        floor_report(0.1, ()),
        {"summary": {"task": "single"}},
        {"summary": {}},
    ],
)
def test_chance_is_told_of_labelled_items_alone(report):
    assert judge_floor(report) is None


def gate(gain, low, high, passed=False):
    loss = {
        "loss": "log-loss",
        "floor_loss": 0.5,
        "tuned_loss": 0.5 - gain,
        "loss_gain": gain,
        "loss_low": low,
        "loss_high": high,
    }
    told = {"passed": passed, "gain": gain, "low": low, "high": high, **loss}
    return told | {"num_items": 100, "basis": "100 items of 5 folds"}


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (gate(0.05, 0.01, 0.09, True), None),
        (gate(0.01, -0.02, 0.04), "gain unsure"),
        (gate(-0.05, -0.09, -0.01), "floor better"),
        ({}, None),
    ],
)
def test_what_the_gate_says_of_a_strategy_that_was_asked_for(verdict, kind):
    told = judge_gate({"strategy": "last:2", "gate": verdict})
    assert (told.kind if told else None) == kind
    if told:
        assert "--strategy extract" in told.mend
        assert "--head linear" in judge_gate({"strategy": "head", "gate": verdict}).mend


def test_all_advice_of_a_report_comes_in_order_and_that_of_dropped_strategies_does_not():
    attempt = {"strategy": "last:2", "kept": True, "plan": PLAN, "gate": gate(0.01, -0.02, 0.04)}
    report = floor_report(0.5) | {"tuning": {"kept": "last:2", "attempts": [attempt | {"history": history(*overfitted())}]}}
    assert [advice.kind for advice in advise(report)] == ["at chance", "over-fitting", "gain unsure"]
    report["tuning"]["attempts"][0]["kept"] = False
    assert [advice.kind for advice in advise(report)] == ["at chance"]


def undone(first, last, *, floor=0.3, strategy="last:1", statistics="kept"):
    rows = [{"epoch": 1, "train_loss": first, "valid_loss": first}, {"epoch": 2, "train_loss": last, "valid_loss": last}]
    plan = PLAN | {"norm_statistics": statistics}
    return {"strategy": strategy, "plan": plan, "gate": gate(-0.4, -0.5, -0.3) | {"floor_loss": floor}, "history": rows}


def test_a_first_epoch_that_undoes_the_head_is_told_even_of_two_epochs():
    advice = judge_start(undone(200.0, 150.0))
    assert advice.kind == "learning rate too high" and "--learning-rate 0.0001" in advice.mend
    assert "200" in advice.message and "0.3" in advice.message
    report = floor_report(0.9) | {"tuning": {"attempts": [undone(200.0, 150.0) | {"kept": True}]}}
    assert [told.kind for told in advise(report)] == ["learning rate too high", "floor better"]


@pytest.mark.parametrize(
    "attempt",
    [
        undone(0.5, 0.4),
        undone(2.0, 0.29),
        undone(200.0, 150.0, strategy="head"),
        undone(200.0, 150.0, statistics="updated"),
        undone(200.0, 150.0) | {"history": []},
        undone(200.0, 150.0) | {"gate": None},
    ],
)
def test_a_first_epoch_that_undoes_nothing_is_not_told(attempt):
    assert judge_start(attempt) is None


def test_a_small_jump_at_a_loss_near_zero_is_no_alarm():
    train = [0.3, 0.1, 0.05, 0.034, 0.086, 0.03, 0.02, 0.02]
    assert kinds(train, [0.3] * 8) == []


def test_items_that_chose_the_weights_are_no_proof_and_no_cause_for_doubt():
    told = gate(0.05, 0.0, 0.15) | {"loss_low": 0.01, "chosen": True}
    assert judge_gate({"strategy": "last:1", "gate": told}) is None
    alike = gate(0.0, 0.0, 0.0)
    assert "both answer them alike" in judge_gate({"strategy": "last:1", "gate": alike}).message


def test_an_untrained_network_at_chance_is_told_to_learn():
    report = floor_report(0.5)
    report["summary"]["backbone"] = "random:test_vit"
    assert "pretrained weights" in judge_floor(report).mend


def test_what_the_preprocess_drops_is_named_where_the_floor_is_at_chance():
    plain, cased, clips = (floor_report(0.5) for _ in range(3))
    cased["preprocess"] = {"lower_cases": True}
    clips["summary"]["counts"] = {"clips": 100}
    assert "lower-cases" in judge_floor(cased).mend and "motion" in judge_floor(clips).mend
    assert not any(word in judge_floor(plain).mend for word in ("lower-cases", "motion"))


@pytest.mark.parametrize(("gain", "error", "fires"), [(-0.05, 0.01, True), (-0.05, 0.04, False), (0.05, 0.01, False)])
def test_terms_that_do_better_than_the_network_are_reported(gain, error, fires):
    report = floor_report(0.9)
    candidates = [{"name": "terms", "score": 0.865}, {"name": "backbone", "score": 0.8}]
    found = {"loss_gain": gain, "standard_error": error}
    report["choices"] = [{"question": "features", "candidates": candidates, "network_over_terms": found}]
    advice = judge_terms(report)
    assert (advice is not None) == fires
    if advice:
        assert "0.865" in advice.message and "0.800" in advice.message and advice in advise(report)
