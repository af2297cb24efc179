"""What callbacks do to a training: stop it, change its rate, keep its weights; and what becomes of one that fails."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import headstart
from headstart.callbacks import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
    TimeBudget,
)
from headstart.errors import SettingError, TuningError
from headstart.tuning.checkpoint import Checkpoint
from small_training import LABELS, NUM_TRAIN, WIDTH, features_and_targets, train_head, train_tail


class Scripted(headstart.Callback):
    """Puts given numbers in the place of an epoch's, and remembers its weights and rate."""

    def __init__(self, values, name="valid_loss"):
        self.values, self.name, self.weights, self.rates = values, name, [], []

    def on_epoch_end(self, epoch, logs):
        logs[self.name] = self.values[epoch]
        self.weights.append(self.model.weights())
        self.rates.append(logs["learning_rate"])


class FailsIn(headstart.Callback):
    """Raises in an epoch, counted from 0, as if the process had been ended there."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, batch, logs):
        if self.model.epoch == self.epoch and batch == 1:
            raise RuntimeError("ended")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def resumed(tmp_path, make, *, fails_in, **plan):
    """Train until a failure, then go on with fresh callbacks; gives both trainings' callbacks and the second outcome."""
    path = tmp_path / "training.pt"
    first = make()
    with pytest.raises(TuningError, match="the callback FailsIn failed in on_batch_end: RuntimeError: ended"):
        train_head(*first, FailsIn(fails_in), checkpoint=Checkpoint(path=path, about={"a": "b"}), **plan)
    second = make()
    _, outcome = train_head(*second, checkpoint=Checkpoint(path=path, about={"a": "b"}, resume=True), **plan)
    return first, second, outcome


# The base


def test_every_hook_is_called_in_its_turn():
    told = []

    class Recorder(headstart.Callback):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                told.append(name)
            return super().__getattribute__(name)

    train_head(Recorder(), epochs=2, batch_size=24)
    batch = ["on_batch_begin", "on_batch_end"]
    epoch = ["on_epoch_begin", *batch, *batch, "on_validation_begin", "on_validation_end", "on_epoch_end"]
    assert told == ["on_train_begin", *epoch, *epoch, "on_train_end"]


def test_hooks_are_told_numbers_and_see_model_and_validation_data():
    seen = {}

    class Recorder(headstart.Callback):
        def on_train_begin(self, logs):
            assert (self.model.labels, self.model.num_batches, self.model.is_main_process) == (LABELS, 4, True)
            assert self.validation_data.ids[0] == f"item-{NUM_TRAIN}"

        def on_batch_begin(self, batch, logs):
            seen["batch begin"] = set(logs)

        def on_batch_end(self, batch, logs):
            seen["batch end"] = set(logs)

        def on_validation_end(self, logs):
            seen["validation"] = set(logs)
            logs["twice"] = np.float32(2 * logs["valid_accuracy"])

    _, outcome = train_head(Recorder(), epochs=1)
    assert seen["batch begin"] == {"size", "learning_rate"}
    assert seen["batch end"] == {"size", "learning_rate", "loss"}
    assert seen["validation"] == {"valid_loss", "valid_accuracy"}
    (row,) = outcome.history
    assert row["twice"] == pytest.approx(2 * row["valid_accuracy"])
    assert type(row["twice"]) is float


def test_gradients_of_the_step_are_there_at_the_batchs_end():
    found = {}

    class Reader(headstart.Callback):
        def on_batch_begin(self, batch, logs):
            found["before"] = self.model.weights()

        def on_batch_end(self, batch, logs):
            found["gradient"] = self.model.network.head.layers[0].weight.grad.clone()

    train_head(Reader(), epochs=1, batch_size=NUM_TRAIN, max_gradient_norm=0.0)
    features, targets = features_and_targets()
    before = found["before"]
    standard = (torch.from_numpy(features) - before["head.mean"]) / before["head.scale"]
    weight = before["head.layers.0.weight"].requires_grad_()
    scores = standard[:NUM_TRAIN] @ weight.T + before["head.layers.0.bias"]
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(targets[:NUM_TRAIN])).backward()
    assert float(weight.grad.abs().max()) > 0.01
    torch.testing.assert_close(found["gradient"], weight.grad)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_end", "on_validation_begin", "on_train_end", "state"])
def test_a_callback_that_raises_is_named(hook, tmp_path):
    def fail(*_):
        raise ZeroDivisionError("by zero")

    unlucky = type("Unlucky", (headstart.Callback,), {hook: fail})
    with pytest.raises(TuningError, match=f"the callback Unlucky failed in {hook}: ZeroDivisionError: by zero"):
        train_head(unlucky(), checkpoint=Checkpoint(path=tmp_path / "c.pt", about={}))


def test_the_last_checkpoint_survives_a_callback_that_raises(tmp_path):
    plain = Scripted([5.0, 4.0, 3.0, 2.0])
    _, whole = train_head(plain, epochs=4)
    _, _, outcome = resumed(tmp_path, lambda: [Scripted([5.0, 4.0, 3.0, 2.0])], fails_in=2, epochs=4)
    assert same(outcome.weights, whole.weights)
    assert [row["train_loss"] for row in outcome.history] == [row["train_loss"] for row in whole.history]


@pytest.mark.parametrize(
    ("callback", "told"),
    [(EarlyStopping, "the callback EarlyStopping is a class"), (print, "is no callback"), ("tensorboard", "is no callback")],
)
def test_what_is_no_callback_is_refused_before_anything_is_read(callback, told):
    with pytest.raises(SettingError, match=told):
        headstart.fit("nowhere", callbacks=[callback])
    with pytest.raises(SettingError, match=told):
        train_head(callback)


def test_one_callback_that_is_in_no_list_is_refused():
    with pytest.raises(SettingError, match="callbacks is no list, but EarlyStopping"):
        headstart.fit("nowhere", callbacks=EarlyStopping(patience=1))


def test_what_no_checkpoint_can_hold_may_not_stand_in_the_logs():
    class Careless(headstart.Callback):
        def on_epoch_end(self, epoch, logs):
            logs["confusion"] = np.eye(3)

    with pytest.raises(TuningError, match=r"a callback put 'confusion' \(ndarray\) into the logs"):
        train_head(Careless())


# EarlyStopping


@pytest.mark.parametrize(
    ("values", "arguments", "num_epochs", "best"),
    [
        ([3, 2, 1, 1.5, 1.2, 0.5], {"patience": 2}, 5, 2),
        ([3, 2, 1, 1.5, 0.9, 0.5], {"patience": 2}, 6, 5),
        ([3, 4, 1, 1, 1, 1], {}, 2, 0),
        ([3, 4, 1, 1, 1, 1], {"start_from_epoch": 2}, 4, 2),
        ([3, 2.95, 2.94, 2.93, 1, 1], {"patience": 3, "min_delta": 0.1}, 4, 0),
        ([math.nan, 2, math.nan, math.nan, 1, 1], {"patience": 2}, 4, 1),
        ([1, 2, 3, 2, 1, 9], {"patience": 2, "mode": "max"}, 5, 2),
        ([1, 0.9, 0.8, 0.7, 0.6, 0.5], {"patience": 9}, 6, 5),
        ([1, 0.5, 0.8, 0.7, 0.6, 0.9], {"patience": 9}, 6, 1),
    ],
)
def test_early_stopping_stops_and_restores_the_best_weights(values, arguments, num_epochs, best):
    script, stopping = Scripted(values), EarlyStopping(**arguments)
    network, outcome = train_head(script, stopping, epochs=6)
    assert len(outcome.history) == num_epochs
    assert (stopping.best_epoch, stopping.best) == (best, values[best])
    assert same(outcome.weights, script.weights[best])
    assert same(network.state_dict(), script.weights[best])
    assert bool(outcome.why_stopped) == (num_epochs < 6)


def test_early_stopping_tells_why_and_may_keep_the_last_weights():
    script = Scripted([0.5, 0.7, 0.6, 0.6, 0.6], "valid_accuracy")
    stopping = EarlyStopping("valid_accuracy", patience=2, restore_best_weights=False)
    _, outcome = train_head(script, stopping)
    assert outcome.why_stopped == "valid_accuracy no better for 2 epochs (best, 0.7, in epoch 2)"
    assert same(outcome.weights, script.weights[3])


@pytest.mark.parametrize("fails_in", [2, 3])
def test_early_stopping_survives_a_resume_with_its_best_weights(tmp_path, fails_in):
    values = [3.0, 1.0, 2.0, 2.0, 2.0, 0.1]
    whole = Scripted(values)
    train_head(whole, EarlyStopping(patience=3), epochs=6)
    _, (_, stopping), outcome = resumed(
        tmp_path, lambda: [Scripted(values), EarlyStopping(patience=3)], fails_in=fails_in, epochs=6
    )
    assert len(outcome.history) == 5
    assert (stopping.best_epoch, stopping.wait) == (1, 3)
    assert same(outcome.weights, whole.weights[1])


def test_a_stopped_training_that_is_resumed_ends_with_the_best_weights(tmp_path):
    values, path = [1.0, 2.0, 2.0, 0.1], tmp_path / "c.pt"
    whole = Scripted(values)
    train_head(whole, EarlyStopping(patience=1), checkpoint=Checkpoint(path=path, about={}))
    _, outcome = train_head(
        Scripted(values), EarlyStopping(patience=1), checkpoint=Checkpoint(path=path, about={}, resume=True)
    )
    assert len(outcome.history) == 2
    assert same(outcome.weights, whole.weights[0])


def test_a_callback_used_again_begins_anew(tmp_path):
    stopping, kept = EarlyStopping(patience=1), ModelCheckpoint(tmp_path / "w.safetensors")
    train_head(Scripted([0.1, 0.2, 0.3]), stopping, kept, epochs=3)
    script = Scripted([3.0, 2.0, 2.5])
    _, outcome = train_head(script, stopping, kept, epochs=3)
    assert same(outcome.weights, script.weights[1])
    assert same(load_file(tmp_path / "w.safetensors"), script.weights[1])


def test_early_stopping_restores_averaged_weights_where_the_plan_averages():
    script = Scripted([2.0, 1.0, 3.0, 3.0])
    _, outcome = train_head(script, EarlyStopping(patience=9), epochs=4, averaging="ema", ema_decay=0.5)
    assert same(outcome.weights, script.weights[1])
    plain = Scripted([2.0, 1.0, 3.0, 3.0])
    train_head(plain, epochs=4)
    assert not same(script.weights[1], plain.weights[1])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: EarlyStopping("valid_loss", mode="less"), "mode is 'less'"),
        (lambda: EarlyStopping("harmony"), "'harmony' does not tell whether more is better"),
        (lambda: EarlyStopping(patience=-1), "patience is -1"),
        (lambda: EarlyStopping(min_delta=math.nan), "min_delta is nan"),
        (lambda: ReduceLROnPlateau(factor=1.0), r"factor is 1\.0"),
        (lambda: ReduceLROnPlateau(min_lr=-0.1), r"min_lr is -0\.1"),
        (lambda: ReduceLROnPlateau(cooldown=0.5), r"cooldown is 0\.5"),
        (lambda: LearningRateScheduler(0.1), r"schedule is 0\.1"),
        (lambda: TimeBudget(0), "seconds is 0"),
        (lambda: ModelCheckpoint("best.keras"), "best.keras"),
    ],
)
def test_arguments_that_cannot_work_are_refused(make, told):
    with pytest.raises(SettingError, match=told):
        make()


def test_a_monitor_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(SettingError) as caught:
        train_head(EarlyStopping("val_loss"))
    assert "learning_rate, seconds, train_loss, valid_accuracy, valid_loss" in caught.value.expected
    assert caught.value.mend == "monitor='valid_loss'."


# Learning rates


def test_the_schedule_sets_the_rate_of_every_block():
    seen, rates = [], []

    def schedule(epoch, rate):
        seen.append((epoch, rate))
        return 0.01 / (epoch + 1)

    class Reader(headstart.Callback):
        def on_batch_end(self, batch, logs):
            rates.append([group["lr"] for group in self.model.optimiser.param_groups])

    _, outcome = train_tail(LearningRateScheduler(schedule), Reader(), epochs=3, head_rate=0.04, backbone_rate=0.01)
    assert seen == [(0, 0.04), (1, 0.01), (2, 0.005)]
    assert [row["learning_rate"] for row in outcome.history] == [0.01, 0.005, 0.01 / 3]
    head, *_, block = np.array(rates[5])
    assert (head, block) == pytest.approx((0.005, 0.00125))


def test_the_weights_move_by_the_schedules_rate():
    start, last = [], []

    class Keeper(headstart.Callback):
        def on_train_begin(self, logs):
            start.append(self.model.weights())

    for rate in (0.0, 0.01):
        _, outcome = train_head(LearningRateScheduler(lambda epoch, _, rate=rate: rate), Keeper(), epochs=1, weight_decay=0.0)
        last.append(outcome.weights)
    assert same(start[0], last[0])
    # AdamW's first steps are as long as the rate; four of them were taken.
    moved = (last[1]["head.layers.0.weight"] - start[1]["head.layers.0.weight"]).abs().max()
    assert 0.01 < float(moved) <= 0.041


@pytest.mark.parametrize("rate", [math.nan, -1.0, "0.1", None])
def test_a_schedule_that_gives_no_rate_is_refused(rate):
    with pytest.raises(SettingError, match="the learning rate of epoch 1 is"):
        train_head(LearningRateScheduler(lambda epoch, _: rate))


def test_a_schedule_goes_on_after_a_resume(tmp_path):
    def halve(epoch, rate):
        return rate / 2

    _, _, outcome = resumed(tmp_path, lambda: [LearningRateScheduler(halve)], fails_in=2, epochs=4, head_rate=0.08)
    assert [row["learning_rate"] for row in outcome.history] == [0.04, 0.02, 0.01, 0.005]


# The rates of each epoch at a constant 0.08, as Keras's ReduceLROnPlateau lowers them.
@pytest.mark.parametrize(
    ("values", "arguments", "rates"),
    [
        ([1, 1, 1, 1, 1, 1], {"patience": 2}, [8, 8, 8, 4, 4, 2]),
        ([1, 1, 1, 1, 1, 1], {"patience": 1}, [8, 8, 4, 2, 1, 0.5]),
        ([1, 1, 1, 1, 1, 1], {"patience": 1, "min_lr": 0.03}, [8, 8, 4, 3, 3, 3]),
        ([1, 1, 1, 1, 1, 1], {"patience": 1, "cooldown": 2}, [8, 8, 4, 4, 2, 2]),
        ([5, 4, 3, 2, 1, 0], {"patience": 1}, [8, 8, 8, 8, 8, 8]),
        ([5, 4.95, 4.92, 3, 3, 1], {"patience": 2, "min_delta": 0.1}, [8, 8, 8, 4, 4, 4]),
    ],
)
def test_a_plateau_lowers_the_rate(values, arguments, rates):
    script, constant = Scripted(values), LearningRateScheduler(lambda epoch, rate: rate)
    plateau = ReduceLROnPlateau(factor=0.5, **arguments)
    train_head(constant, script, plateau, epochs=6, head_rate=0.08)
    assert script.rates == pytest.approx([rate / 100 for rate in rates])


def test_a_plateau_lowers_the_plans_own_schedule_and_keeps_on_after_a_resume(tmp_path):
    values = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    plain = Scripted(values)
    train_head(plain, epochs=6)
    _, (script, _), outcome = resumed(
        tmp_path, lambda: [Scripted(values), ReduceLROnPlateau(factor=0.1, patience=2)], fails_in=4, epochs=6
    )
    shares = np.array([row["learning_rate"] for row in outcome.history]) / plain.rates
    assert shares == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])
    assert len(script.rates) == 2


# ModelCheckpoint


def test_the_checkpoint_of_the_best_epoch_is_kept(tmp_path):
    script = Scripted([3.0, 1.0, 2.0, 0.5, 0.9])
    kept = ModelCheckpoint(tmp_path / "new" / "best.safetensors")
    network, _ = train_head(script, kept)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["best.safetensors"]
    assert same(load_file(tmp_path / "new" / "best.safetensors"), script.weights[3])
    assert kept.best == 0.5
    kept.model.load_weights(kept.best_path)
    assert same(network.state_dict(), script.weights[3])


def test_a_path_with_an_epoch_still_keeps_only_the_best(tmp_path):
    script = Scripted([0.3, 0.8, 0.6, 0.9, 0.7], "valid_accuracy")
    kept = ModelCheckpoint(tmp_path / "{epoch:02d}-{valid_accuracy:.1f}.safetensors", monitor="valid_accuracy")
    train_head(script, kept)
    assert [path.name for path in tmp_path.iterdir()] == ["04-0.9.safetensors"] == [kept.best_path.name]
    assert same(load_file(kept.best_path), script.weights[3])


def test_every_epoch_can_be_kept(tmp_path):
    script = Scripted([3.0, 1.0, 2.0])
    last = ModelCheckpoint(tmp_path / "last.safetensors", save_best_only=False)
    train_head(script, ModelCheckpoint(tmp_path / "{epoch}.safetensors", save_best_only=False), last, epochs=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1.safetensors",
        "2.safetensors",
        "3.safetensors",
        "last.safetensors",
    ]
    for epoch, weights in enumerate(script.weights, 1):
        assert same(load_file(tmp_path / f"{epoch}.safetensors"), weights)
    assert same(load_file(tmp_path / "last.safetensors"), script.weights[2])


def test_a_resumed_training_does_not_replace_a_better_checkpoint(tmp_path):
    def make():
        return [Scripted([3.0, 1.0, 2.0, 1.5]), ModelCheckpoint(tmp_path / "{epoch}.safetensors")]

    (first, _), (_, kept), _ = resumed(tmp_path, make, fails_in=3, epochs=4)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["2.safetensors"]
    assert (kept.best, same(load_file(kept.best_path), first.weights[1])) == (1.0, True)


def test_a_path_that_names_what_is_not_logged_is_refused(tmp_path):
    with pytest.raises(SettingError, match="names val_loss, which no epoch's logs have"):
        train_head(ModelCheckpoint(tmp_path / "{epoch}-{val_loss}.safetensors"))


# TerminateOnNaN and TimeBudget


def test_a_loss_that_is_no_number_ends_the_training_with_sound_weights():
    began = []

    class Keeper(headstart.Callback):
        def on_epoch_begin(self, epoch, logs):
            began.append(self.model.weights())

    class Spoiler(headstart.Callback):
        def on_batch_begin(self, batch, logs):
            if (self.model.epoch, batch) == (2, 2):
                with torch.no_grad():
                    self.model.network.head.layers[0].weight.fill_(math.inf)

    with pytest.raises(TuningError, match="the loss is nan in epoch 3, batch 3"):
        train_head(Spoiler())
    _, outcome = train_head(Keeper(), Spoiler(), TerminateOnNaN())
    assert outcome.why_stopped == "the loss is nan in epoch 3, batch 3"
    assert len(began) == 3
    assert same(outcome.weights, began[2])
    assert [math.isfinite(row[name]) for row in outcome.history for name in ("train_loss", "valid_loss")] == [True] * 6


def test_an_item_that_is_no_number_ends_the_training_at_once():
    with pytest.raises(TuningError, match="the loss is nan in epoch 1"):
        train_head(spoil=5)
    _, outcome = train_head(TerminateOnNaN(), spoil=5, averaging="ema")
    assert outcome.why_stopped.startswith("the loss is nan in epoch 1")
    assert all(bool(tensor.isfinite().all()) for tensor in outcome.weights.values())
    assert len(outcome.history) == 1


class Clock(headstart.Callback):
    """Time that only epochs take."""

    def __init__(self, *seconds):
        self.seconds, self.now = seconds, 0.0

    def __call__(self):
        return self.now

    def on_epoch_begin(self, epoch, logs):
        self.now += self.seconds[epoch]


@pytest.mark.parametrize(
    ("seconds", "budget", "num_epochs"),
    [
        ((10, 10, 10, 10, 10), 35, 3),
        ((10, 10, 10, 10, 10), 30, 3),
        ((10, 30, 10, 10, 10), 69, 2),
        ((10, 1, 1, 1, 1), 24, 5),
        ((9,), 1, 1),
    ],
)
def test_a_time_budget_ends_before_an_epoch_that_would_exceed_it(seconds, budget, num_epochs):
    clock = Clock(*seconds)
    _, outcome = train_head(clock, TimeBudget(budget, clock=clock))
    assert len(outcome.history) == num_epochs
    assert bool(outcome.why_stopped) == (num_epochs < 5)


def test_a_time_budget_counts_what_was_spent_before_a_resume(tmp_path):
    def make():
        clock = Clock(10, 10, 10, 10, 10, 10, 10, 10)
        return [clock, TimeBudget(45, clock=clock)]

    _, _, outcome = resumed(tmp_path, make, fails_in=2, epochs=8)
    assert len(outcome.history) == 4
    assert outcome.why_stopped == "another epoch of 10 s would exceed 45 s"


def test_trainings_of_the_tests_learn_something():
    _, outcome = train_head()
    assert outcome.history[-1]["valid_accuracy"] > 0.8
    assert outcome.weights["head.layers.0.weight"].shape == (3, WIDTH)
