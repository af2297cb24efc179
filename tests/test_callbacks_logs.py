"""What callbacks write: tables, TensorBoard's files, activations, MLflow's runs, a progress bar."""

import csv
import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector import ProjectorConfig

import headstart
from headstart.callbacks import ActivationLogger, CSVLogger, MLflowLogger, ProgressBar, TensorBoard
from headstart.errors import MissingPackageError, TuningError, install_command
from headstart.tuning.checkpoint import Checkpoint
from small_training import LABELS, NUM_TRAIN, NUM_VALID, WIDTH, features_and_targets, train_head, train_tail

NUMBERS = ("train_loss", "valid_loss", "valid_accuracy", "learning_rate", "seconds")


class Adds(headstart.Callback):
    """Adds a number to the logs, from an epoch on."""

    def __init__(self, first=0):
        self.first = first

    def on_epoch_end(self, epoch, logs):
        if epoch >= self.first:
            logs["kappa"] = epoch / 8


class EndsAfterItsRow(headstart.Callback):
    """Raises after the callbacks before it have written an epoch, and before the checkpoint has."""

    def on_epoch_end(self, epoch, logs):
        if epoch == 2:
            raise RuntimeError("ended")


def train_in_two(tmp_path, make, **plan):
    """Train until the end of epoch 3 is half told, then go on from epoch 2's checkpoint."""
    path = tmp_path / "training.pt"
    with pytest.raises(TuningError, match="EndsAfterItsRow"):
        train_head(*make(), EndsAfterItsRow(), checkpoint=Checkpoint(path=path, about={}), **plan)
    return train_head(*make(), checkpoint=Checkpoint(path=path, about={}, resume=True), **plan)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# CSVLogger


@pytest.mark.parametrize(
    ("task", "metric"), [("single", "valid_accuracy"), ("multi", "valid_accuracy"), ("value", "valid_rmse")]
)
def test_a_row_is_written_for_each_epoch(tmp_path, task, metric):
    path = tmp_path / "new" / "history.csv"
    _, outcome = train_head(CSVLogger(path), task=task, epochs=3)
    rows = rows_of(path)
    assert list(rows[0]) == ["epoch", "seconds", "train_loss", "valid_loss", metric, "learning_rate"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for name in ("seconds", "train_loss", "valid_loss", metric, "learning_rate"):
        assert [float(row[name]) for row in rows] == [epoch[name] for epoch in outcome.history]


def test_the_table_can_be_watched_while_it_grows(tmp_path):
    seen = []

    class Reader(headstart.Callback):
        def on_epoch_begin(self, epoch, logs):
            seen.append(len(rows_of(tmp_path / "history.csv")))

    train_head(CSVLogger(tmp_path / "history.csv"), Reader(), epochs=3)
    assert seen == [0, 1, 2]


def test_numbers_that_other_callbacks_add_have_columns_also_when_they_come_late(tmp_path):
    train_head(Adds(first=1), CSVLogger(tmp_path / "history.csv"), epochs=3)
    rows = rows_of(tmp_path / "history.csv")
    assert list(rows[0])[-2:] == ["learning_rate", "kappa"]
    assert [row["kappa"] for row in rows] == ["", "0.125", "0.25"]


def test_rows_go_on_after_a_resume_without_one_twice(tmp_path):
    path = tmp_path / "history.csv"
    _, outcome = train_in_two(tmp_path, lambda: [Adds(), CSVLogger(path)])
    rows = rows_of(path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [float(row["valid_loss"]) for row in rows] == [epoch["valid_loss"] for epoch in outcome.history]
    _, outcome = train_head(CSVLogger(path), epochs=2)
    assert len(rows_of(path)) == 2


# ProgressBar


def test_the_bar_moves_with_every_step():
    told = []
    train_head(ProgressBar(lambda done, total: told.append((done, total))), epochs=3)
    assert told == [(done, 12) for done in range(1, 13)]


def test_the_bar_goes_on_after_a_resume(tmp_path):
    told = []
    train_in_two(tmp_path, lambda: [ProgressBar(lambda done, total: told.append(done))])
    assert told == [*range(1, 13), *range(9, 21)]


def test_a_bar_of_its_own_is_drawn_on_stderr(capsys):
    _, outcome = train_head(ProgressBar())
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err
    assert f"epoch 5: train loss {outcome.history[-1]['train_loss']:.4f}" in err


# TensorBoard


def events_in(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


def test_scalars_are_the_history(tmp_path):
    _, outcome = train_head(Adds(), TensorBoard(tmp_path), epochs=3)
    events = events_in(tmp_path)
    assert sorted(events.Tags()["scalars"]) == sorted((*NUMBERS, "kappa"))
    for name in (*NUMBERS, "kappa"):
        read = [(event.step, event.value) for event in events.Scalars(name)]
        assert read == [(row["epoch"] + 1, pytest.approx(row[name])) for row in outcome.history]


def test_histograms_hold_weights_and_gradients(tmp_path):
    kept = {"weights": [], "gradients": []}

    class Keeper(headstart.Callback):
        def on_epoch_end(self, epoch, logs):
            kept["weights"].append({name: weight.detach().clone() for name, weight in self.named()})

        def on_batch_end(self, batch, logs):
            if batch == 3:
                kept["gradients"].append({name: weight.grad.clone() for name, weight in self.named()})

        def named(self):
            return self.model.network.named_parameters()

    train_tail(Keeper(), TensorBoard(tmp_path, histogram_freq=2), epochs=4)
    events = events_in(tmp_path)
    names = list(kept["weights"][0])
    assert len(names) == 8
    assert sorted(events.Tags()["histograms"]) == sorted(f"{group}/{name}" for group in kept for name in names)
    for group in kept:
        for name in names:
            read = events.Histograms(f"{group}/{name}")
            assert [event.step for event in read] == [2, 4]
            for event in read:
                check_histogram(event.histogram_value, kept[group][event.step - 1][name].double().flatten())


def check_histogram(histogram, values):
    assert (histogram.num, sum(histogram.bucket)) == (len(values), len(values))
    assert (histogram.min, histogram.max) == (float(values.min()), float(values.max()))
    assert (histogram.sum, histogram.sum_squares) == pytest.approx((float(values.sum()), float((values**2).sum())))
    # Counted again, with room for a value on the very border of two bins.
    edges = np.array(histogram.bucket_limit)
    below = np.cumsum(histogram.bucket)
    slack = 1e-5 * float(values.max() - values.min())
    for edge, count in zip(edges, below, strict=True):
        assert int((values < edge - slack).sum()) <= count <= int((values <= edge + slack).sum())


def test_weights_that_are_all_alike_or_not_finite_do_not_stop_it(tmp_path):
    class Spoiler(headstart.Callback):
        def on_epoch_end(self, epoch, logs):
            with torch.no_grad():
                self.model.network.head.layers[0].bias.fill_(0.5)
                self.model.network.head.layers[0].weight[0, 0] = torch.inf

    train_head(Spoiler(), TensorBoard(tmp_path), epochs=1)
    events = events_in(tmp_path)
    (bias,) = events.Histograms("weights/head.layers.0.bias")
    assert (bias.histogram_value.bucket, bias.histogram_value.bucket_limit) == ([3.0], [0.5])
    assert "weights/head.layers.0.weight" not in events.Tags()["histograms"]


def test_the_graph_holds_the_operations_of_every_layer(tmp_path):
    train_tail(TensorBoard(tmp_path), epochs=1)
    nodes = {node.name: node for node in events_in(tmp_path).Graph().node}
    assert [name for name, node in nodes.items() if node.op == "Placeholder"] == ["input"]
    assert list(nodes["tail/network/0/convolution"].input) == ["input", "tail/network/0/weight", "tail/network/0/bias"]
    assert nodes["tail/network/2/relu"].op == "aten::relu"
    (shape,) = nodes["tail/network/3/convolution"].attr["_output_shapes"].list.shape
    assert [side.size for side in shape.dim] == [1, WIDTH, 2, 2]
    known = set(nodes)
    assert all(set(node.input) <= known for node in nodes.values())
    # From the scores one comes to the input.
    reached, ahead = set(), ["head/layers/0/addmm"]
    while ahead:
        name = ahead.pop()
        reached.add(name)
        ahead += [before for before in nodes[name].input if before not in reached]
    assert {"input", "tail/network/0/weight", "tail/network/1/running_mean", "head/scale"} <= reached


@pytest.mark.parametrize(
    ("task", "labels"), [("single", ["cat", "dog", "newt"]), ("multi", ["cat", "dog", "newt"]), ("value", None)]
)
def test_the_projector_holds_the_validation_items_features(tmp_path, task, labels):
    train_head(TensorBoard(tmp_path, embedded_items=20), task=task, epochs=1, batch_size=7)
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    features, targets = features_and_targets(task)
    vectors = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    assert vectors == pytest.approx(features[NUM_TRAIN : NUM_TRAIN + 20], rel=1e-4, abs=1e-5)
    header, *named = [line.split("\t") for line in (tmp_path / embedding.metadata_path).read_text().splitlines()]
    assert header == ["label", "item"]
    assert [item for _, item in named] == [f"item-{NUM_TRAIN + row}" for row in range(20)]
    told = (
        [LABELS[row % 3] for row in range(NUM_TRAIN, NUM_TRAIN + 20)] if labels else [f"{value:g}" for value in targets[48:68]]
    )
    assert [label for label, _ in named] == told


def test_the_projector_holds_what_the_head_sees_of_a_tail(tmp_path):
    seen = []

    class Hooked(headstart.Callback):
        def on_train_end(self, logs):
            hook = self.model.network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            with self.model.evaluating():
                self.model.run(*self.validation_data.first(NUM_VALID))
            hook.remove()

    train_tail(Hooked(), TensorBoard(tmp_path), epochs=2)
    vectors = np.loadtxt(tmp_path / "features.tsv", delimiter="\t")
    assert vectors == pytest.approx(seen[0].numpy(), rel=1e-4, abs=1e-5)


def test_each_part_can_be_left_out(tmp_path):
    train_head(TensorBoard(tmp_path, histogram_freq=0, write_graph=False, embedded_items=0), epochs=1)
    tags = events_in(tmp_path).Tags()
    assert (tags["histograms"], tags["graph"]) == ([], False)
    assert [path.name.partition(".")[0] for path in tmp_path.iterdir()] == ["events"]


def test_curves_go_on_after_a_resume_without_an_epoch_twice(tmp_path):
    folder = tmp_path / "logs"

    def make():
        # TensorBoard reads files in the order of the seconds in their names; here both trainings run in the same one.
        for path in folder.glob("events.*"):
            path.rename(folder / "events.out.tfevents.1000000000.earlier")
        return [TensorBoard(folder)]

    _, outcome = train_in_two(tmp_path, make)
    assert len(list(folder.glob("events.*"))) == 2
    events = events_in(folder)
    read = [(event.step, event.value) for event in events.Scalars("valid_loss")]
    assert read == [(row["epoch"] + 1, pytest.approx(row["valid_loss"])) for row in outcome.history]
    assert events.Tags()["graph"] is True


def test_curves_can_be_read_while_the_training_goes_on(tmp_path):
    seen = []

    class Reader(headstart.Callback):
        def on_epoch_begin(self, epoch, logs):
            events = events_in(tmp_path)
            seen.append(len(events.Scalars("train_loss")) if "train_loss" in events.Tags()["scalars"] else 0)

    train_head(TensorBoard(tmp_path), Reader(), epochs=3)
    assert seen == [0, 1, 2]


def test_watching_changes_nothing(tmp_path):
    _, plain = train_tail(norm_statistics="updated")
    _, watched = train_tail(TensorBoard(tmp_path), ActivationLogger(tmp_path), norm_statistics="updated")
    assert all(torch.equal(plain.weights[name], watched.weights[name]) for name in plain.weights)


@pytest.mark.parametrize(
    ("package", "make", "extra"),
    [("tensorboard", lambda: TensorBoard("logs"), "train"), ("mlflow", lambda: MLflowLogger(), "mlflow")],
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, package, make, extra):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"the package '{package}' is not installed") as caught:
        make()
    assert caught.value.mend == install_command(extra)


# ActivationLogger


def test_activations_are_those_of_a_hook(tmp_path):
    seen = []

    class Hooked(headstart.Callback):
        def on_epoch_end(self, epoch, logs):
            found = {}
            network = self.model.network.eval()
            hooks = [
                layer.register_forward_hook(lambda _, __, output, name=name: found.update({name: output.detach().clone()}))
                for name, layer in network.named_modules()
                if not list(layer.children())
            ]
            with torch.no_grad():
                network(*self.validation_data.first())
            seen.append(found)
            for hook in hooks:
                hook.remove()

    train_tail(ActivationLogger(tmp_path / "new"), Hooked(), epochs=3)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [f"epoch-000{epoch}.npz" for epoch in (1, 2, 3)]
    assert sorted(seen[0]) == ["head.layers.0", *(f"tail.network.{index}" for index in range(4))]
    for epoch, found in enumerate(seen, 1):
        arrays = np.load(tmp_path / "new" / f"epoch-000{epoch}.npz")
        assert sorted(arrays) == sorted(found)
        assert all(np.array_equal(arrays[name], tensor.numpy()) for name, tensor in found.items())
    assert not torch.equal(seen[0]["head.layers.0"], seen[2]["head.layers.0"])


def test_layers_used_twice_and_several_outputs_have_names_of_their_own(tmp_path):
    class Halves(torch.nn.Module):
        def forward(self, features):
            return features[:, :2], {"told": "by no tensor"}, [features[:, 2:].bfloat16()]

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.halves = torch.nn.Linear(WIDTH, WIDTH), Halves()

        def forward(self, features):
            left, _, (right,) = self.halves(self.layer(self.layer(features)))
            return torch.cat([left, right.float()], 1)

    class Swaps(headstart.Callback):
        def on_epoch_end(self, epoch, logs):
            self.model.network.head = Head()

    train_head(Swaps(), ActivationLogger(tmp_path), epochs=1)
    shapes = {name: (array.shape, array.dtype) for name, array in np.load(tmp_path / "epoch-0001.npz").items()}
    wide, float32 = (1, WIDTH), np.float32
    assert shapes == {
        "head.layer": (wide, float32),
        "head.layer#2": (wide, float32),
        "head.halves.0": ((1, 2), float32),
        "head.halves.2.0": ((1, WIDTH - 2), float32),
    }


# MLflowLogger


class FakeMLflow(SimpleNamespace):
    """Remembers what it is told, as MLflow's own functions take it."""

    def __init__(self, active=None):
        super().__init__(active=active, runs={})

    def active_run(self):
        return self.active

    def start_run(self, run_id=None, run_name=None):
        run_id = run_id or f"run-{len(self.runs)}"
        self.runs.setdefault(run_id, {"name": run_name, "params": {}, "metrics": {}, "tags": {}, "ended": 0})
        self.active = SimpleNamespace(info=SimpleNamespace(run_id=run_id))
        return self.active

    def _now(self):
        return self.runs.setdefault(self.active.info.run_id, {"params": {}, "metrics": {}, "tags": {}, "ended": 0})

    def log_params(self, params):
        self._now()["params"].update(params)

    def log_metrics(self, metrics, step):
        assert step not in self._now()["metrics"]
        self._now()["metrics"][step] = metrics

    def set_tag(self, key, value):
        self._now()["tags"][key] = value

    def end_run(self):
        self._now()["ended"] += 1
        self.active = None


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


class Stops(headstart.Callback):
    def on_epoch_end(self, epoch, logs):
        logs["never"] = float("nan")
        if epoch == 1:
            self.model.stop("enough")


def test_plan_and_logs_are_sent_to_a_run_of_its_own(mlflow):
    _, outcome = train_head(Stops(), MLflowLogger("a name"))
    (run,) = mlflow.runs.values()
    assert (run["name"], run["ended"], run["tags"]) == ("a name", 1, {"why_stopped": "enough"})
    assert run["params"]["head_rate"] == 0.05
    assert "reasons" not in run["params"]
    assert run["metrics"] == {row["epoch"] + 1: {name: row[name] for name in NUMBERS} for row in outcome.history}
    assert sorted(run["metrics"]) == [1, 2]


def test_an_active_run_is_written_to_and_left_open(mlflow):
    mlflow.active = SimpleNamespace(info=SimpleNamespace(run_id="mine"))
    train_head(MLflowLogger(), epochs=1)
    assert (list(mlflow.runs), mlflow.runs["mine"]["ended"]) == (["mine"], 0)
    assert mlflow.runs["mine"]["metrics"].keys() == {1}


def test_a_resumed_training_goes_on_in_its_run(mlflow, tmp_path):
    def make():
        mlflow.active = None  # as in a process of its own
        return [MLflowLogger()]

    path = tmp_path / "training.pt"
    with pytest.raises(TuningError, match="EndsAfterItsRow"):
        train_head(EndsAfterItsRow(), *make(), checkpoint=Checkpoint(path=path, about={}))
    train_head(*make(), checkpoint=Checkpoint(path=path, about={}, resume=True))
    (run,) = mlflow.runs.values()
    assert sorted(run["metrics"]) == [1, 2, 3, 4, 5]
    assert run["ended"] == 1


def test_callbacks_load_neither_torch_nor_tensorboard(run_python):
    process = run_python(
        "import sys, headstart\nheadstart.callbacks.EarlyStopping(patience=1), headstart.Callback()\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'tensorboard', 'mlflow', 'timm'}))"
    )
    assert (process.stdout, process.stderr) == ("[]\n", "")


def test_the_door_has_every_callback():
    door = importlib.import_module("headstart.callbacks")
    assert all(issubclass(getattr(door, name), headstart.Callback) for name in door.__all__)
    assert len(door.__all__) == 12
