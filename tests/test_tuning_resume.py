"""Going on from a checkpoint: as if the training had never stopped, and never from one of another training."""

import hashlib
import io
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.errors import TuningError
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.loop import tune
from tuning_toys import BUSY, Counter, toy_network, toy_plan, toy_set, train_busy


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small gain nothing from a second thread, and lose much where another process has the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ABOUT = {"backbone": "toy (abc)", "data": "folder (123)", "epochs": "6"}


class Interrupt(Callback):
    def __init__(self, epoch, batch):
        self.place = (epoch, batch)

    def on_epoch_begin(self, epoch, logs):
        self.epoch = epoch

    def on_batch_end(self, batch, logs):
        if (self.epoch, batch) == self.place:
            raise ValueError("the power went off")


def checkpoint_in(folder, *, resume=False, **about):
    return Checkpoint(path=folder / "checkpoints" / "full.pt", about=ABOUT | about, resume=resume)


def assert_same(one, other):
    """Two trees of lists and dicts hold the same numbers and bytes."""
    assert type(one) is type(other)
    match one:
        case torch.Tensor():
            assert one.dtype == other.dtype
            assert one.numpy().tobytes() == other.numpy().tobytes()
        case dict():
            assert list(one) == list(other)
            for name in one:
                assert_same(one[name], other[name])
        case list() | tuple():
            assert len(one) == len(other)
            for a, b in zip(one, other, strict=True):
                assert_same(a, b)
        case _:
            assert one == other


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same_training(one, one_counter, other, other_counter):
    assert_same(one.weights, other.weights)
    assert without_seconds(one.history) == without_seconds(other.history)
    assert one_counter.state() == other_counter.state()
    assert_same(one_counter.optimiser, other_counter.optimiser)


@pytest.mark.parametrize("averaging", ["none", "ema", "swa"])
def test_six_epochs_are_three_and_three_resumed(averaging, tmp_path):
    plan = replace(BUSY, averaging=averaging)
    straight = Counter()
    expected = train_busy(plan, [straight])
    assert len(expected.history) == 6
    with pytest.raises(TuningError, match=r"Interrupt failed in on_batch_end: ValueError: the power went off"):
        train_busy(plan, [Counter(), Interrupt(3, 2)], checkpoint_in(tmp_path))
    resumed = Counter()
    outcome = train_busy(plan, [resumed], checkpoint_in(tmp_path, resume=True))
    assert [row["epoch"] for row in outcome.history] == list(range(6))
    assert_same_training(outcome, resumed, expected, straight)


def test_a_checkpoint_every_other_epoch_and_after_the_last(tmp_path):
    straight, resumed = Counter(), Counter()
    expected = train_busy(BUSY, [straight])
    every_other = replace(checkpoint_in(tmp_path), every=2)
    with pytest.raises(TuningError, match="the power went off"):
        train_busy(BUSY, [Counter(), Interrupt(3, 2)], every_other)
    kept = torch.load(io.BytesIO(every_other.path.read_bytes()[32:]), weights_only=True)
    assert kept["epoch"] == 2, "the third epoch's end is not one of every other"
    outcome = train_busy(BUSY, [resumed], replace(every_other, resume=True))
    assert_same_training(outcome, resumed, expected, straight)
    seldom = Checkpoint(path=tmp_path / "seldom.pt", about=ABOUT, every=4)
    train_busy(BUSY, [Counter()], seldom)
    assert torch.load(io.BytesIO(seldom.path.read_bytes()[32:]), weights_only=True)["epoch"] == 6


KILLED = """
import sys
import threading
from pathlib import Path
import torch
from tuning_toys import BUSY, Counter, train_busy
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.checkpoint import Checkpoint

class Hang(Callback):
    def on_batch_end(self, batch, logs):
        if self.model.epoch == 3 and batch == 2:
            sys.stdout.write("in the midst of epoch 4" + chr(10))
            sys.stdout.flush()
            threading.Event().wait()

torch.set_num_threads(1)
about = {"backbone": "toy (abc)", "data": "folder (123)", "epochs": "6"}
train_busy(BUSY, [Counter(), Hang()], Checkpoint(path=Path(sys.argv[1]), about=about))
"""


def test_a_killed_training_goes_on_from_the_last_epochs_end(tmp_path):
    checkpoint = checkpoint_in(tmp_path)
    command = [sys.executable, "-c", KILLED, str(checkpoint.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as process:
        assert process.stdout.readline() == "in the midst of epoch 4\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.path.is_file()
    straight, resumed = Counter(), Counter()
    expected = train_busy(BUSY, [straight])
    outcome = train_busy(BUSY, [resumed], replace(checkpoint, resume=True))
    assert_same_training(outcome, resumed, expected, straight)


def test_without_resume_a_checkpoint_is_not_read(tmp_path):
    plan = replace(BUSY, epochs=2)
    expected = train_busy(plan, [Counter()], checkpoint_in(tmp_path))
    again = train_busy(plan, [Counter()], checkpoint_in(tmp_path))
    assert len(again.history) == 2
    assert_same(again.weights, expected.weights)


def test_a_finished_training_is_resumed_to_the_same_end(tmp_path):
    plan = replace(BUSY, epochs=2, averaging="ema")
    expected = train_busy(plan, [Counter()], checkpoint_in(tmp_path))
    counter = Counter()
    again = train_busy(plan, [counter], checkpoint_in(tmp_path, resume=True))
    assert_same(again.weights, expected.weights)
    assert again.history == expected.history
    assert counter.batches == 12


def test_parts_that_memory_asked_for_are_kept_across_a_resume(tmp_path):
    plan = replace(BUSY, epochs=4)

    class Halve(Callback):
        def on_epoch_begin(self, epoch, logs):
            if epoch == 1:
                self.model.micro_batch = 3

    straight, resumed = Counter(), Counter()
    expected = train_busy(plan, [straight, Halve()])
    with pytest.raises(TuningError, match="the power went off"):
        train_busy(plan, [Counter(), Halve(), Interrupt(2, 0)], checkpoint_in(tmp_path))
    outcome = train_busy(plan, [resumed, Halve()], checkpoint_in(tmp_path, resume=True))
    assert_same_training(outcome, resumed, expected, straight)


@pytest.mark.parametrize(
    "about", [{"backbone": "another (def)"}, {"data": "elsewhere (456)"}, {"epochs": "9"}, {"cut": "blocks.3"}]
)
def test_a_checkpoint_of_another_training_is_refused_and_both_are_named(about, tmp_path):
    train_busy(replace(BUSY, epochs=1), [], checkpoint_in(tmp_path))
    ((name, now),) = about.items()
    told = rf"another training: {name} was {ABOUT.get(name)}, and is {now}".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(TuningError, match=told):
        train_busy(replace(BUSY, epochs=1), [], checkpoint_in(tmp_path, resume=True, **about))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    plan = toy_plan(epochs=1)
    sets = toy_set(20), toy_set(8, seed=1)
    tune(toy_network(plan), *sets, task="single", plan=plan, checkpoint=checkpoint_in(tmp_path))
    with pytest.raises(TuningError, match=r"cannot be read: .*size mismatch"):
        wider = toy_network(plan, outputs=5)
        tune(wider, *sets, task="single", plan=plan, checkpoint=checkpoint_in(tmp_path, resume=True))


@pytest.mark.parametrize("damage", ["cut short", "flipped", "one bit", "empty", "no checkpoint", "text"])
def test_a_damaged_checkpoint_is_named(damage, tmp_path):
    checkpoint = checkpoint_in(tmp_path, resume=True)
    train_busy(replace(BUSY, epochs=1), [], checkpoint)
    whole = checkpoint.path.read_bytes()
    match damage:
        case "cut short":
            checkpoint.path.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            checkpoint.path.write_bytes(whole[:60] + bytes(255 - byte for byte in whole[60:400]) + whole[400:])
        case "one bit":
            place = len(whole) // 2
            checkpoint.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        case "empty":
            checkpoint.path.write_bytes(b"")
        case "no checkpoint":
            stream = io.BytesIO()
            torch.save({"about": ABOUT, "weights": {}}, stream)
            checkpoint.path.write_bytes(sealed(stream.getvalue()))
        case "text":
            checkpoint.path.write_text("epoch 3", encoding="utf-8")
    with pytest.raises(TuningError, match=r"full\.pt cannot be read") as caught:
        train_busy(replace(BUSY, epochs=1), [], checkpoint)
    assert "--resume" in str(caught.value)


def sealed(content):
    return hashlib.sha256(content).digest() + content


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_no_code_in_a_checkpoint_is_run(how, tmp_path):
    checkpoint = checkpoint_in(tmp_path, resume=True)
    checkpoint.path.parent.mkdir()
    state = {"about": ABOUT, "weights": Trap(tmp_path / "run")}
    stream = io.BytesIO()
    torch.save(state, stream)
    checkpoint.path.write_bytes(sealed(stream.getvalue() if how == "torch" else pickle.dumps(state)))
    with pytest.raises(TuningError, match="cannot be read"):
        train_busy(replace(BUSY, epochs=1), [], checkpoint)
    assert not (tmp_path / "run").exists()
    pickle.loads(pickle.dumps(state))  # the trap does work
    assert (tmp_path / "run").exists()


def test_numbers_of_numpy_in_logs_and_states_are_kept_as_numbers(tmp_path):
    class Numpy(Callback):
        best = None

        def on_epoch_end(self, epoch, logs):
            logs["mean"] = np.float32(0.5)

        def state(self):
            return {"best": np.float64(0.25), "list": (np.int64(3), None), "weights": torch.ones(2)}

        def restore(self, state):
            self.best = state

    plan = replace(BUSY, epochs=2)
    with pytest.raises(TuningError):
        train_busy(plan, [Numpy(), Interrupt(1, 0)], checkpoint_in(tmp_path))
    callback = Numpy()
    outcome = train_busy(plan, [callback], checkpoint_in(tmp_path, resume=True))
    assert [row["mean"] for row in outcome.history] == [0.5, 0.5]
    assert callback.best["best"] == 0.25
    assert callback.best["list"] == [3, None]
    assert torch.equal(callback.best["weights"], torch.ones(2))


def test_a_state_that_could_not_be_read_back_is_refused_when_it_is_written(tmp_path):
    class Odd(Callback):
        def state(self):
            return {"path": Path("somewhere")}

    with pytest.raises(TuningError, match=r"the state of the callback Odd cannot be kept .* PosixPath"):
        train_busy(replace(BUSY, epochs=1), [Odd()], checkpoint_in(tmp_path))


def test_callbacks_find_their_own_state_though_others_came_or_went(tmp_path):
    class Named(Callback):
        def __init__(self, name):
            self.name, self.found = name, None

        def state(self):
            return {"name": self.name}

        def restore(self, state):
            self.found = state["name"]

    class Other(Named):
        pass

    plan = replace(BUSY, epochs=2)
    with pytest.raises(TuningError):
        train_busy(plan, [Named("a"), Other("x"), Named("b"), Interrupt(1, 0)], checkpoint_in(tmp_path))
    first, second, new, other = Named("1"), Named("2"), Named("3"), Other("4")
    train_busy(plan, [other, first, second, new], checkpoint_in(tmp_path, resume=True))
    assert [callback.found for callback in (other, first, second, new)] == ["x", "a", "b", None]
