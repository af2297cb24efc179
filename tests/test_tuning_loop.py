"""The loop: steps, memory, the course of an epoch, and what frozen means; on a small network."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from headstart import runtime
from headstart.backbones.pooling import PooledPrefix
from headstart.errors import TuningError
from headstart.memory import is_out_of_memory
from headstart.tuning import loop as loop_module
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.loop import tune
from headstart.tuning.training import epoch_order, in_batches, in_parts
from tuning_toys import BUSY, NUM_CLASSES, Counter, toy_backbone, toy_network, toy_plan, toy_set, train_busy


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small gain nothing from a second thread, and lose much where another process has the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Watch(Callback):
    """Keeps what a training does, step by step."""

    def __init__(self, micro_batch=None):
        self.micro_batch, self.steps, self.epochs = micro_batch, [], []

    def on_train_begin(self, logs):
        self.model.micro_batch = self.micro_batch or self.model.micro_batch
        self.start = self.model.weights()

    def on_batch_end(self, batch, logs):
        rates = [group["lr"] for group in self.model.optimiser.param_groups]
        gradients = {n: None if p.grad is None else p.grad.clone() for n, p in self.model.network.named_parameters()}
        self.steps.append({**logs, "rates": rates, "weights": self.model.weights(), "gradients": gradients})

    def on_epoch_end(self, epoch, logs):
        self.epochs.append(self.model.weights())


def run(plan, *callbacks, dropout=0.0, train=None, valid=None, task="single", network=None):
    network = network or toy_network(plan, dropout=dropout, outputs=1 if task == "value" else NUM_CLASSES)
    train, valid = train or toy_set(29, task=task), valid or toy_set(10, seed=1, task=task)
    return tune(network, train, valid, task=task, plan=plan, callbacks=callbacks)


def assert_close(one, other, tolerance=1e-5):
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance, msg=name)


def assert_equal(one, other):
    assert {name: tensor.numpy().tobytes() for name, tensor in one.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in other.items()
    }


# Batches and parts.


@pytest.mark.parametrize(("count", "size"), [(1, 4), (2, 4), (8, 4), (9, 4), (10, 4), (5, 1), (17, 16)])
def test_batches_are_all_rows_in_order_and_none_is_of_one_row(count, size):
    batches = in_batches(np.arange(count), size)
    assert np.concatenate(batches).tolist() == list(range(count))
    assert min(map(len, batches)) >= min(count, size, 2)
    assert max(map(len, batches)) <= size + (size > 1)


def test_every_process_has_a_row_of_every_batch():
    assert [len(batch) for batch in in_batches(np.arange(19), 8, fewest=4)] == [8, 11]
    assert [len(batch) for batch in in_batches(np.arange(20), 8, fewest=4)] == [8, 8, 4]


@pytest.mark.parametrize("count", range(1, 20))
@pytest.mark.parametrize("most", [1, 2, 5, 8])
def test_parts_are_never_larger_than_asked(count, most):
    parts = in_parts(count, most)
    assert np.concatenate(parts).tolist() == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_the_order_is_of_seed_and_epoch_and_the_sampler_draws_classes_alike():
    assert np.array_equal(epoch_order(50, seed=1, epoch=2), epoch_order(50, seed=1, epoch=2))
    assert not np.array_equal(epoch_order(50, seed=1, epoch=2), epoch_order(50, seed=1, epoch=3))
    assert sorted(epoch_order(50, seed=1, epoch=2)) == list(range(50))
    targets = np.repeat([0, 1, 2], [900, 90, 10])
    chances = (1 / np.bincount(targets))[targets]
    drawn = np.concatenate([targets[epoch_order(1000, seed=0, epoch=epoch, weights=chances)] for epoch in range(9)])
    assert np.allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.03)


# A step.


@pytest.mark.parametrize("balance", ["none", "weights"])
@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_parts_of_a_batch_make_the_step_of_the_whole(micro_batch, balance):
    plan = toy_plan(mixup=0.4, label_smoothing=0.1, balance=balance, l2_sp=0.1)
    train = toy_set(29, weights=np.array([1.0, 4.0, 0.3]))
    whole, parts = Watch(), Watch(micro_batch)
    one, other = run(plan, whole, train=train), run(plan, parts, train=train)
    assert_close(one.weights, other.weights, 1e-4)
    for step, again in zip(whole.steps, parts.steps, strict=True):
        assert step["loss"] == pytest.approx(again["loss"], rel=1e-4)


def small_memory(network, most):
    """A network that runs out of memory when it is given more samples than `most`; gives what it was given."""
    asked = []

    def refuse(module, inputs):
        asked.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    network.register_forward_pre_hook(refuse)
    return asked


def test_where_memory_runs_out_the_batch_is_halved_until_it_fits_and_stays_so():
    plan = toy_plan(batch_size=16)
    network = toy_network(plan, dropout=0.4)
    asked = small_memory(network, 5)
    watch = Watch()
    outcome = run(plan, watch, network=network)
    assert asked[:3] == [16, 8, 4]
    assert max(asked[3:]) <= 4
    assert watch.model.micro_batch == 4
    expected = run(plan, Watch(4), dropout=0.4)
    assert_equal(outcome.weights, expected.weights)
    assert_close(run(plan, network=_limited(plan, 5)).weights, run(plan).weights, 1e-4)


def _limited(plan, most):
    network = toy_network(plan)
    small_memory(network, most)
    return network


def test_no_memory_for_a_single_sample_is_said():
    plan = toy_plan()
    network = toy_network(plan)
    small_memory(network, 0)
    with pytest.raises(TuningError, match=r"memory runs out with 1 sample at a time \(CUDA out of memory"):
        run(plan, network=network)


def test_errors_of_memory_are_told_from_others():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError())


def test_another_error_of_the_network_is_raised_as_it_is():
    plan = toy_plan()
    network = toy_network(plan)
    network.register_forward_pre_hook(lambda module, inputs: module.head(inputs[0]))
    with pytest.raises(RuntimeError, match="size of tensor"):
        run(plan, network=network)


@pytest.mark.parametrize("count", [1, 9, 17])
def test_a_batch_with_one_sample_left_over_works_with_statistics_that_are_learned(count):
    plan = toy_plan(norm_statistics="updated")
    assert math.isfinite(run(plan, train=toy_set(count), valid=toy_set(1)).history[-1]["train_loss"])


def test_single_samples_leave_statistics_as_they_are():
    plan = toy_plan(norm_statistics="updated")
    network = toy_network(plan)
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    run(plan, Watch(1), network=network)
    assert_equal(before, dict(network.named_buffers()))


def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_no_step_is_taken():
    class Spoil(Callback):
        def on_batch_begin(self, batch, logs):
            if (self.model.epoch, batch) == (1, 2):
                self.before = self.model.weights()
                with torch.no_grad():
                    self.model.network.head.layers[0].bias.fill_(math.nan)

        def on_batch_end(self, batch, logs):
            self.last = logs["loss"]

    spoil = Spoil()
    with pytest.raises(TuningError, match=r"the loss is nan in epoch 2, batch 3, at a learning rate of 0\.00") as caught:
        run(toy_plan(), spoil)
    assert "--learning-rate 0.00" in str(caught.value)
    assert math.isnan(spoil.last)
    tail = {name: tensor for name, tensor in spoil.model.weights().items() if not name.startswith("head")}
    assert_equal(tail, {name: spoil.before[name] for name in tail})


def test_gradients_are_no_longer_than_asked_and_keep_their_direction():
    free, short = Watch(), Watch()
    run(toy_plan(max_gradient_norm=0.0), free)
    run(toy_plan(max_gradient_norm=0.05), short)
    one, other = (
        torch.cat([gradient.flatten() for gradient in watch.steps[0]["gradients"].values()]) for watch in (free, short)
    )
    assert float(one.norm()) > 0.1
    assert float(other.norm()) == pytest.approx(0.05, rel=1e-3)
    torch.testing.assert_close(other / 0.05, one / one.norm(), rtol=1e-3, atol=1e-5)


def test_the_pull_to_the_source_is_the_gradient_of_its_penalty():
    strength = 0.7
    plan = toy_plan(l2_sp=strength, max_gradient_norm=0.0, warm_up=0.0, epochs=1, batch_size=29)
    network = toy_network(plan)
    source = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    class Move(Callback):
        """Away from the source, which is what the training begins with."""

        def on_batch_begin(self, batch, logs):
            random = torch.Generator().manual_seed(3)
            with torch.no_grad():
                for parameter in self.model.network.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
            self.moved = self.model.weights()

    move, watch = Move(), Watch()
    run(plan, move, watch, network=network)
    network.load_state_dict(move.moved)
    network.train().zero_grad()
    order = epoch_order(29, seed=0, epoch=0)
    train = toy_set(29)
    state, pooled = train.inputs.load([train.ids[row] for row in order], None)
    loss = functional.cross_entropy(
        network(torch.from_numpy(state), torch.from_numpy(pooled)), torch.tensor(train.targets[order])
    )
    away = sum(((p - source[n]) ** 2).sum() for n, p in network.named_parameters() if n.startswith("tail."))
    (loss + strength / 2 * away).backward()
    assert_close({n: p.grad for n, p in network.named_parameters()}, watch.steps[0]["gradients"], 1e-4)


def first_scores(plan, train, network):
    """Scores and targets of the first batch, by the network as training begins."""
    order = epoch_order(len(train.ids), seed=plan.seed, epoch=0)[: plan.batch_size]
    state, pooled = train.inputs.load([train.ids[row] for row in order], None)
    with torch.no_grad():
        return network.train()(torch.from_numpy(state), torch.from_numpy(pooled)), torch.from_numpy(train.targets[order])


def test_the_loss_of_a_batch_is_torchs_with_class_weights_and_with_smoothed_labels():
    weights = np.array([1.0, 4.0, 0.3])
    plan, train = toy_plan(balance="weights"), toy_set(29, weights=weights)
    watch = Watch()
    scores, targets = first_scores(plan, train, toy_network(plan))
    run(plan, watch, train=train)
    expected = functional.cross_entropy(scores, targets, weight=torch.tensor(weights, dtype=torch.float32))
    assert watch.steps[0]["loss"] == pytest.approx(float(expected), rel=1e-5)
    smoothed, watch = toy_plan(label_smoothing=0.2), Watch()
    run(smoothed, watch, train=train)
    expected = functional.cross_entropy(scores, targets, label_smoothing=0.2)
    assert watch.steps[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("task", ["multi", "value"])
def test_other_tasks_train_and_are_validated_in_their_own_measures(task):
    plan = toy_plan(epochs=8)
    valid = toy_set(10, seed=1, task=task)
    network = toy_network(plan, outputs=1 if task == "value" else NUM_CLASSES)
    outcome = run(plan, task=task, valid=valid, network=network)
    losses = [row["train_loss"] for row in outcome.history]
    assert losses[-1] < losses[0]
    state, pooled = valid.inputs.load(valid.ids, None)
    with torch.no_grad():
        scores = network.eval()(torch.from_numpy(state), torch.from_numpy(pooled)).numpy()
    if task == "value":
        error = scores[:, 0] - valid.targets
        assert outcome.history[-1]["valid_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
        assert outcome.history[-1]["valid_loss"] == pytest.approx(
            (error**2).mean() / toy_set(29, task=task).targets.var(), rel=1e-4
        )
    else:
        assert outcome.history[-1]["valid_accuracy"] == pytest.approx(((scores > 0) == valid.targets).mean())


# The course of a training.


def test_the_head_learns_what_can_be_learned():
    plan = toy_plan(epochs=12, norm_statistics="updated")
    outcome = run(plan, train=toy_set(120), valid=toy_set(60, seed=1))
    assert outcome.history[-1]["valid_accuracy"] > 0.8
    assert outcome.history[-1]["train_loss"] < outcome.history[0]["train_loss"]


def test_rates_rise_in_a_straight_line_then_fall_by_half_a_cosine_each_block_at_its_own():
    plan = toy_plan(epochs=10, warm_up=0.2, weight_decay=0.1)
    watch = Watch()
    run(plan, watch)
    heads = np.array([step["learning_rate"] for step in watch.steps])
    num_steps = len(heads)
    warm, cold = heads[: num_steps // 5], heads[num_steps // 5 :]
    assert np.allclose(np.diff(warm), np.diff(warm)[0])
    assert warm[0] == pytest.approx(plan.head_rate / 11)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=plan.head_rate)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=len(cold))
    expected = []
    for _ in cold:
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        reference.step()
    assert np.allclose(cold, expected)
    # Head, then four blocks from the head backwards, each with decaying and other weights; the neck has no matrix.
    shares = [1.0, 1.0, 0.5, *np.repeat([0.4, 0.32, 0.256], 2)]
    for step in watch.steps:
        assert np.allclose(step["rates"], step["learning_rate"] * np.array(shares))
    groups = watch.model.optimiser.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(watch.model.network.parameters()))


def test_a_callback_moves_the_rate_from_the_step_it_is_told_of():
    class Halve(Callback):
        def on_batch_begin(self, batch, logs):
            if batch == 1:
                self.model.learning_rate = 0.125

    watch = Watch()
    run(toy_plan(epochs=1), Halve(), watch)
    assert watch.steps[0]["rates"][0] < 0.1
    for step in watch.steps[1:]:
        assert step["learning_rate"] == step["rates"][0] == 0.125
        assert step["rates"][2] == pytest.approx(0.0625)


def test_blocks_begin_to_train_by_their_turn_and_until_then_are_frozen_whole():
    plan = toy_plan(epochs=10, unfreeze_every=2, norm_statistics="updated", weight_decay=0.1)
    watch = Watch()
    run(plan, watch, dropout=0.3)
    turns = {"head": 0, "tail.network.neck": 2, "tail.network.deep": 4, "tail.network.body": 6, "tail.network.stem": 8}
    before = watch.start
    for epoch, now in enumerate(watch.epochs):
        for prefix, turn in turns.items():
            names = [name for name in now if name.startswith(prefix) and not name.startswith(("head.mean", "head.scale"))]
            same = [torch.equal(now[name], before[name]) for name in names]
            assert not any(same) if epoch >= turn else all(same), (epoch, prefix)
        before = now


def test_layers_of_a_frozen_block_are_in_evaluation_mode_and_all_train_in_the_end():
    class Modes(Callback):
        def __init__(self):
            self.seen = []

        def on_batch_begin(self, batch, logs):
            part = self.model.network.tail.network.get_submodule
            modes = [part(name).training for name in ("body.3", "stem.1", "deep.1")]  # dropout, and two norms
            self.seen.append((self.model.epoch, *modes))

    modes = Modes()
    run(toy_plan(epochs=5, unfreeze_every=1, norm_statistics="updated"), modes, dropout=0.3)
    assert set(modes.seen) == {(epoch, epoch >= 3, epoch >= 4, epoch >= 2) for epoch in range(5)}


def test_statistics_that_are_kept_are_the_same_bytes_after_training_and_others_are_learned():
    for norm_statistics in ("kept", "updated"):
        plan = toy_plan(norm_statistics=norm_statistics, averaging="ema")
        network = toy_network(plan)
        before = {name: tensor.clone() for name, tensor in network.tail.named_buffers()}
        outcome = run(plan, network=network)
        after = {name: outcome.weights[f"tail.{name}"] for name in before}
        if norm_statistics == "kept":
            assert_equal(before, after)
        else:
            assert not any(torch.equal(before[name], after[name]) for name in before)


def test_the_frozen_part_gives_the_same_in_training_and_evaluation_on_shifted_inputs():
    backbone = toy_backbone(dropout=0.5)
    pixels = torch.randn(16, 3, 8, 8) + 5
    prefix = PooledPrefix(backbone, "body")
    before = {name: tensor.clone() for name, tensor in prefix.state_dict().items()}
    with torch.no_grad():
        trained, evaluated = prefix.train()(pixels), prefix.eval()(pixels)
    assert torch.equal(trained, evaluated)
    assert_equal(before, prefix.state_dict())
    network = toy_network(toy_plan()).requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(
            network.train()(pixels, torch.empty(16, 0)), network.eval()(pixels, torch.empty(16, 0))
        )  # a tail none of whose blocks trains is frozen, too


@pytest.mark.parametrize("averaging", ["ema", "swa"])
def test_averages_of_weights_are_those_of_the_formula(averaging):
    plan = toy_plan(epochs=8, averaging=averaging, ema_decay=0.8, norm_statistics="updated")
    watch = Watch()
    outcome = run(plan, watch)
    if averaging == "ema":
        mean = {name: tensor.double() for name, tensor in watch.start.items()}
        for number, step in enumerate(watch.steps, 1):
            decay = min(0.8, (1 + number) / (10 + number))
            mean = {name: decay * mean[name] + (1 - decay) * step["weights"][name].double() for name in mean}
    else:
        last = len(watch.steps) // 8
        ends = [watch.steps[last * epoch - 1]["weights"] for epoch in (7, 8)]
        mean = {name: sum(end[name].double() for end in ends) / 2 for name in watch.start}
    for name, tensor in outcome.weights.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), mean[name], rtol=1e-4, atol=1e-5, msg=name)
    # What was validated, last, is what is kept.
    assert_equal(watch.epochs[-1], outcome.weights)
    assert not torch.equal(outcome.weights["head.layers.0.weight"], watch.steps[-1]["weights"]["head.layers.0.weight"])


def test_a_callback_that_stops_ends_the_training_in_the_batch_or_at_the_epochs_end():
    class Stop(Callback):
        def on_batch_end(self, batch, logs):
            if (self.model.epoch, batch) == (1, 1):
                self.model.stop("it has been enough")

    watch = Watch()
    outcome = run(toy_plan(epochs=5), watch, Stop())
    assert outcome.why_stopped == "it has been enough"
    assert [row["epoch"] for row in outcome.history] == [0, 1]
    assert len(watch.steps) == 4 + 2


def test_hooks_are_called_in_order_with_what_they_are_told():
    calls = []

    class All(Callback):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                return lambda *arguments: calls.append((name, *arguments[:-1], sorted(arguments[-1])))
            return super().__getattribute__(name)

    run(toy_plan(epochs=1, batch_size=16), All())
    names = [call[0] for call in calls]
    batch = ["on_batch_begin", "on_batch_end"]
    validation = ["on_validation_begin", "on_validation_end"]
    assert names == ["on_train_begin", "on_epoch_begin", *batch, *batch, *validation, "on_epoch_end", "on_train_end"]
    assert calls[2] == ("on_batch_begin", 0, ["learning_rate", "size"])
    assert calls[3] == ("on_batch_end", 0, ["learning_rate", "loss", "size"])
    told = ["epoch", "learning_rate", "seconds", "train_loss", "valid_accuracy", "valid_loss"]
    assert calls[-2] == ("on_epoch_end", 0, told)


def test_nothing_to_train_or_validate_on_is_said():
    empty = replace(toy_set(1), ids=(), targets=np.empty(0, np.int64))
    for sets in ({"train": empty}, {"valid": empty}):
        with pytest.raises(TuningError, match=r"there are (0|29) items to train on and (0|10) to validate on"):
            tune(
                toy_network(toy_plan()),
                sets.get("train", toy_set(29)),
                sets.get("valid", toy_set(10)),
                task="single",
                plan=toy_plan(),
            )


# What the result does not depend on.


def test_torchs_random_state_is_neither_used_nor_changed():
    class Draw(Callback):
        def on_batch_begin(self, batch, logs):
            torch.rand(3)

    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = train_busy(replace(BUSY, epochs=2), [])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    other = train_busy(replace(BUSY, epochs=2), [Draw()])
    assert_equal(one.weights, other.weights)
    different = train_busy(replace(BUSY, epochs=2, seed=1), [])
    assert not torch.equal(one.weights["head.layers.0.weight"], different.weights["head.layers.0.weight"])


def test_loading_ahead_changes_nothing(monkeypatch):
    plan = replace(BUSY, epochs=2)
    expected = train_busy(plan, [Counter()])
    monkeypatch.setattr(loop_module, "ordered_map", lambda work, inputs, num_workers: map(work, inputs))
    assert_equal(train_busy(plan, [Counter()]).weights, expected.weights)


def test_freed_memory_is_kept_for_the_next_step(monkeypatch):
    asked = []
    monkeypatch.setattr(runtime, "raise_malloc_thresholds", lambda: asked.append(True))
    run(toy_plan(epochs=1))
    assert asked == [True]


def test_an_item_that_cannot_be_loaded_ends_the_training():
    broken = toy_set(29)

    class Gone:
        def load(self, ids, view):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run(toy_plan(), train=replace(broken, inputs=Gone()))
