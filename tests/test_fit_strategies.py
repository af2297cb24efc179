"""What `fit` is asked beyond the exact head: wrong options, interruptions and what they leave, heads that are trained."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

import headstart
from headstart.api import taking_up
from headstart.artifact.graph import Answer, assemble
from headstart.config import FitSettings
from headstart.errors import BackboneError, DataError, SettingError, TuningError
from headstart.heads.linear import LinearHead
from headstart.heads.mlp import MlpHead
from headstart.tuning.network import TrainedHead
from headstart.tuning.plan import TuningPlan

ARCH = "random:test_resnet"
OPTIONS = {"backbone": ARCH, "image_size": 32, "geometry": "squash", "batch_size": 16}
PROGRAM = str(Path(sys.executable).with_name("headstart"))


@pytest.fixture(scope="module", autouse=True)
def one_thread(compiling_here):
    """Networks as small as these only wait for a second thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data(draw_folder, tmp_path_factory):
    """Pictures of two classes, split by folder."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    draw_folder(folder / "train", per_class=24, classes=("rings", "stripes"))
    draw_folder(folder / "test", per_class=6, first=40, classes=("rings", "stripes"))
    return folder


# Options that cannot work


@pytest.mark.parametrize(
    ("options", "what", "mend"),
    [
        ({"strategy": "last:0"}, "strategy is 'last:0'", "--strategy last:2"),
        ({"strategy": "last:x"}, "strategy is 'last:x'", "--strategy last:2"),
        ({"strategy": "last"}, "strategy is 'last'", "--strategy last:2"),
        ({"strategy": "last:-1"}, "strategy is 'last:-1'", "--strategy last:2"),
        ({"strategy": "last:1000"}, "strategy is 'last:1000'", "--strategy last:2"),
        ({"strategy": "extrct"}, "strategy is 'extrct'", "--strategy extract"),
        ({"strategy": "fulll"}, "strategy is 'fulll'", "--strategy full"),
        ({"strategy": "LORA"}, "strategy is 'LORA'", "--strategy"),
        ({"strategy": ""}, "strategy is ''", "--strategy auto"),
        ({"strategy": 2}, "strategy is 2, of type int", "convert it"),
        ({"learning_rate": 0}, "learning_rate is 0.0", "leave --learning-rate out"),
        ({"learning_rate": float("nan")}, "learning_rate is nan", "leave --learning-rate out"),
        ({"learning_rate": float("inf")}, "learning_rate is inf", "leave --learning-rate out"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001", "leave --learning-rate out"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', of type str", "convert it"),
        ({"learning_rate": True}, "learning_rate is True, of type bool", "convert it"),
        ({"epochs": 0}, "epochs is 0", "leave --epochs out"),
        ({"epochs": -3}, "epochs is -3", "leave --epochs out"),
        ({"epochs": 2.5}, "epochs is 2.5, of type float", "convert it"),
        ({"batch_size": 0}, "batch_size is 0", "leave --batch-size out"),
        ({"resume": "yes"}, "resume is 'yes', of type str", "convert it"),
        ({"head": "mpl"}, "head is 'mpl'", "--head mlp"),
        ({"head": "mlp", "hidden": ()}, r"hidden is \(\)", "leave hidden out"),
        ({"head": "mlp", "hidden": (64, 0)}, r"hidden is \(64, 0\)", "leave hidden out"),
        ({"head": "mlp", "hidden": (10**9,)}, "hidden is", "leave hidden out"),
        ({"head": "mlp", "hidden": 64}, "hidden is 64, of type int", "convert it"),
        ({"head": "mlp", "hidden": ("64",)}, "of type tuple", "convert it"),
        ({"head": "mlp", "dropout": 1.0}, r"dropout is 1\.0", "leave dropout out"),
        ({"head": "mlp", "dropout": -0.1}, r"dropout is -0\.1", "leave dropout out"),
        ({"head": "mlp", "dropout": float("nan")}, "dropout is nan", "leave dropout out"),
        ({"hidden": (64,)}, "hidden is .*, and head is 'auto'", "--head mlp"),
        ({"head": "linear", "dropout": 0.1}, "dropout is .*, and head is 'linear'", "--head mlp"),
    ],
)
def test_an_option_that_cannot_work_is_refused_at_once(options, what, mend, tmp_path):
    with pytest.raises(SettingError, match=what) as caught:
        headstart.fit(tmp_path / "nowhere", out=tmp_path / "out.hs", **options)
    assert mend in caught.value.mend
    assert not list(tmp_path.iterdir())


def test_options_of_numpy_and_lists_are_understood():
    settings = FitSettings.from_options(
        {"head": "mlp", "hidden": [np.int64(32), 16], "dropout": np.float32(0.5), "epochs": np.int32(3), "learning_rate": 1}
    )
    assert (settings.hidden_layers, settings.head_dropout, settings.epochs) == ((32, 16), 0.5, 3)
    assert isinstance(settings.learning_rate, float)
    assert FitSettings(head="mlp").hidden_layers == (512, 512)
    assert FitSettings(head="mlp").head_dropout == 0.3
    assert FitSettings().hidden_layers == ()


def test_more_blocks_than_there_are_lists_them(data, tmp_path):
    with pytest.raises(
        SettingError, match=r"strategy is 'last:99', and random:test_resnet has 5 blocks with weights"
    ) as caught:
        headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="last:99")
    assert "stem, layer1, layer2, layer3, layer4" in caught.value.expected
    assert "last:1 to last:4" in caught.value.expected
    assert not list(tmp_path.iterdir())


def test_lora_wants_linear_layers(data, tmp_path):
    with pytest.raises(SettingError, match="of the weights of 'random:test_resnet' 0% are in such layers") as caught:
        headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="lora")
    assert "last:2" in caught.value.mend
    assert not list(tmp_path.iterdir())


# Nothing to resume


def test_resume_wants_an_out(data):
    with pytest.raises(SettingError, match="nothing to resume: no folder is named"):
        headstart.fit(data, **OPTIONS, strategy="full", resume=True)


def test_resume_wants_a_checkpoint(data, tmp_path):
    with pytest.raises(SettingError, match=r"nothing to resume: .*out\.hs\.partial holds no checkpoint") as caught:
        headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="full", resume=True)
    assert "--resume" in caught.value.mend
    assert not list(tmp_path.iterdir())


# Interrupted, and gone on with


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A fit that nothing disturbed."""
    return headstart.fit(data, out=tmp_path_factory.mktemp("whole") / "out.hs", **OPTIONS, strategy="full", epochs=4)


def test_the_baselines_test_score_stands_beside_that_of_a_strategy_that_was_asked_for(whole):
    content = whole.report.content
    found, summary = content["tuning"]["on_test"], content["summary"]
    assert found["metric"] == "accuracy" and found["num_items"] == summary["counts"]["test"]
    assert found["tuned"] == summary["test"]["accuracy"] and found["baseline"] == summary["baseline_test"]["accuracy"]
    assert found["gain"] == pytest.approx(found["tuned"] - found["baseline"]) and len(found["gain_ci95"]) == 2
    assert list(summary["baseline_test"]) == list(summary["test"])


class Stumble(headstart.Callback):
    """Fails in an epoch, once."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, batch, logs):
        if self.model.epoch == self.epoch:
            raise ValueError("the stone in the way")


@pytest.fixture
def stopped(data, whole, tmp_path):
    """A fit that failed in its third epoch; gives its --out."""
    with pytest.raises(TuningError):
        headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="full", epochs=4, callbacks=[Stumble(2)])
    return tmp_path / "out.hs"


def same_model(found, wanted):
    for name in ("tail.safetensors", "head.safetensors", "model.onnx"):
        assert (Path(found) / name).read_bytes() == (Path(wanted) / name).read_bytes(), name


def test_a_callback_that_raises_is_named_and_the_epochs_before_it_are_kept(data, whole, tmp_path):
    out = tmp_path / "out.hs"
    with pytest.raises(TuningError, match="the callback Stumble failed in on_batch_end: ValueError: the stone") as caught:
        headstart.fit(data, out=out, **OPTIONS, strategy="full", epochs=4, callbacks=[Stumble(2)])
    assert "--resume" in caught.value.mend
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs.partial"]
    assert (tmp_path / "out.hs.partial" / "checkpoints" / "full.pt").is_file()
    assert len((tmp_path / "out.hs.partial" / "history.csv").read_text().splitlines()) == 1 + 2
    model = headstart.fit(data, out=out, **OPTIONS, strategy="full", epochs=4, resume=True)
    same_model(out, whole.folder)
    history, wanted = (each.report.content["tuning"]["attempts"][-1]["history"] for each in (model, whole))
    assert [epoch["valid_loss"] for epoch in history] == [epoch["valid_loss"] for epoch in wanted]
    assert len((out / "history.csv").read_text().splitlines()) == 1 + 4
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs"]
    assert not (out / "checkpoints").exists()
    # It is whole now.
    with pytest.raises(SettingError, match=r"holds no checkpoint, and .*out\.hs is a whole model"):
        headstart.fit(data, out=out, **OPTIONS, strategy="full", epochs=4, resume=True)
    same_model(out, whole.folder)


def test_a_callback_that_raises_before_any_epoch_is_over_leaves_nothing(data, tmp_path):
    with pytest.raises(TuningError, match="the callback Stumble failed"):
        headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="full", epochs=2, callbacks=[Stumble(0)])
    assert not list(tmp_path.iterdir())


def test_resuming_with_other_options_names_both(data, stopped):
    again = {"out": stopped, "strategy": "full", "epochs": 4, "resume": True}
    with pytest.raises(TuningError, match="epochs was 4, and is 5") as caught:
        headstart.fit(data, **OPTIONS, **(again | {"epochs": 5}))
    assert "without --resume" in caught.value.mend
    with pytest.raises(TuningError, match="seed was 0, and is 3"):
        headstart.fit(data, **OPTIONS, **again, seed=3)
    with pytest.raises(TuningError, match=r"are of another training: full; and the strategy is last:1"):
        headstart.fit(data, **OPTIONS, **(again | {"strategy": "last:1"}))
    with pytest.raises(TuningError, match=r"are of another training: full; and the strategy is extract"):
        headstart.fit(data, **OPTIONS, **(again | {"strategy": "extract", "epochs": None}))
    # Refused each time, and still there.
    assert (stopped.with_name("out.hs.partial") / "checkpoints" / "full.pt").is_file()
    assert not stopped.exists()


def test_resuming_with_other_data_names_both(data, stopped, draw_folder, tmp_path):
    other = tmp_path / "other"
    draw_folder(other / "train", per_class=24, first=60, classes=("rings", "stripes"))
    draw_folder(other / "test", per_class=6, first=90, classes=("rings", "stripes"))
    with pytest.raises(TuningError, match=r"data was folder pictures \(\w+\), and is folder other \("):
        headstart.fit(other, out=stopped, **OPTIONS, strategy="full", epochs=4, resume=True)


def test_resuming_with_another_backbone_or_input_names_both(data, whole, stopped):
    again = {"out": stopped, "strategy": "full", "epochs": 4, "resume": True}
    options = OPTIONS | {"backbone": f"artifact:{whole.folder}"}
    with pytest.raises(TuningError, match=r"backbone was random:test_resnet \(\w+\), and is artifact:.*out\.hs \("):
        headstart.fit(data, **options, **again)
    with pytest.raises(TuningError, match="input was geometry squash, image_size 32, and is geometry crop, image_size 32"):
        headstart.fit(data, **(OPTIONS | {"geometry": "crop"}), **again)


def test_a_damaged_checkpoint_is_told(data, stopped):
    (stopped.with_name("out.hs.partial") / "checkpoints" / "full.pt").write_bytes(b"no checkpoint")
    with pytest.raises(TuningError, match=r"full\.pt cannot be read") as caught:
        headstart.fit(data, out=stopped, **OPTIONS, strategy="full", epochs=4, resume=True)
    assert "without --resume" in caught.value.mend
    model = headstart.fit(data, out=stopped, **OPTIONS, strategy="extract")
    assert model.folder == stopped
    assert not stopped.with_name("out.hs.partial").exists()


KILLED = """
import os, signal, sys
import headstart

class Kill(headstart.Callback):
    def on_batch_begin(self, batch, logs):
        if self.model.epoch == 2 and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

options = dict(backbone="random:test_resnet", image_size=32, geometry="squash", batch_size=16)
headstart.fit(sys.argv[1], out=sys.argv[2], strategy="full", epochs=4, callbacks=[Kill()], **options)
"""


@pytest.mark.long
def test_a_fit_that_was_killed_in_mid_epoch_goes_on_bit_for_bit(data, whole, tmp_path, run_python):
    done = run_python(KILLED, data, tmp_path / "out.hs")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs.partial"]
    headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="full", epochs=4, resume=True)
    same_model(tmp_path / "out.hs", whole.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs"]


@pytest.mark.long
def test_ctrl_c_while_tuning_says_how_to_go_on(data, tmp_path):
    words = ["fit", data, "--out", tmp_path / "out.hs", "--backbone", ARCH, "--image-size", 32, "--geometry", "squash"]
    words += ["--batch-size", 16, "--strategy", "full", "--epochs", 2_000, "--quiet"]
    process = subprocess.Popen([PROGRAM, *map(str, words)], stderr=subprocess.PIPE, text=True, env=os.environ)
    partial = tmp_path / "out.hs.partial"
    try:
        deadline = time.monotonic() + 120
        while not list((partial / "checkpoints").glob("*.pt")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert f"{partial} keeps the epochs done: the same command with --resume goes on from there." in complaint
    assert "Traceback" not in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["out.hs.partial"]
    with pytest.raises(TuningError, match="epochs was 2000, and is 4"):
        headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="full", epochs=4, resume=True)


# A network that cannot be traced

PLUG_IN = """
import torch
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Frozen
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.preprocess.image import ImagePreprocess


class Winding(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 5, stride=4)
        self.second = nn.Conv2d(12, 16, 3, stride=2)

    def forward(self, pixels):
        inner = torch.relu(self.first(pixels))
        if float(inner.detach().max()) > 1e9:  # depends on the data, so no trace can follow it
            inner = inner / inner.max()
        return torch.relu(self.second(inner)).mean((2, 3))


def make():
    torch.manual_seed(5)
    network = Winding().requires_grad_(False)
    total = sum(parameter.numel() for parameter in network.parameters())
    info = BackboneInfo(
        name="winding-net", architecture="winding", modality="image", licence="none", source="a test", sha256="5" * 64,
        width=16, num_parameters=total, blocks=(BlockInfo(name="network", width=16, num_parameters=total),),
    )
    half = (0.5, 0.5, 0.5)
    preprocess = ImagePreprocess(
        image_size=32, geometry="crop", interpolation="bilinear", crop_fraction=1.0, mean=half, std=half, pad_color=(128,) * 3
    )
    why = "it branches on its data."
    return Backbone(info=info, preprocess=preprocess, network=Frozen(network), traced=None, why_untraced=why)
"""


@pytest.fixture
def winding(tmp_path, monkeypatch):
    """An installed plug-in with a network that torch.fx cannot trace, for this process and those it starts."""
    folder = tmp_path / "site"
    (folder / "winding-1.0.dist-info").mkdir(parents=True)
    (folder / "winding_net.py").write_text(PLUG_IN)
    (folder / "winding-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: winding\nVersion: 1.0\n")
    entry = "[headstart.backbones]\nwinding-net = winding_net:make\n"
    (folder / "winding-1.0.dist-info" / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield "winding-net"
    sys.modules.pop("winding_net", None)


def test_a_network_that_cannot_be_traced_works_as_a_whole(winding, data, tmp_path):
    options = {"backbone": winding, "geometry": "squash", "batch_size": 16}
    plain = headstart.fit(data, out=tmp_path / "plain.hs", **options, strategy="extract")
    assert plain.manifest.backbone["blocks"] == [{"name": "network", "width": 16, "num_parameters": 2656}]
    model = headstart.fit(data, out=tmp_path / "full.hs", **options, strategy="full", epochs=2)
    changes = load_file(model.folder / "tail.safetensors")
    assert set(changes) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    item = next((data / "test" / "rings").iterdir())
    assert len(headstart.load(model.folder).predict([item])) == 1
    with pytest.raises(SettingError, match="last:2.* has 1 block with weights") as caught:
        headstart.fit(data, out=tmp_path / "last.hs", **options, strategy="last:2")
    assert "cannot be cut" in caught.value.expected
    # A tuned plug-in is a source like any other.
    third = headstart.fit(
        data, out=tmp_path / "third.hs", **(options | {"backbone": f"artifact:{model.folder}"}), strategy="extract"
    )
    assert third.manifest.backbone["base"] == winding
    assert (third.folder / "tail.safetensors").read_bytes() == (model.folder / "tail.safetensors").read_bytes()
    assert third.manifest.backbone["sha256"] != plain.manifest.backbone["sha256"] == third.manifest.backbone["base_sha256"]


def test_a_network_that_cannot_be_traced_says_so_when_cut(winding):
    with pytest.raises(BackboneError, match=r"'winding-net' cannot be cut: it branches on its data\."):
        headstart.backbones.open_backbone(winding).cut("network")


# Heads that are trained


def plan_of(**numbers):
    plan = {"strategy": "head", "epochs": 1, "batch_size": 8, "head_rate": 1e-3, "backbone_rate": 1e-3}
    return TuningPlan(**(plan | numbers))


@pytest.mark.parametrize("hidden", [(7,), (9, 5), (6, 4, 3)])
@pytest.mark.parametrize("values", [False, True])
def test_a_trained_head_is_the_same_in_torch_and_numpy(hidden, values):
    random = np.random.default_rng(len(hidden))
    # Columns of very different scale, as features of several blocks are, and targets in a unit of their own.
    features = (random.normal(size=(40, 12)) * np.geomspace(1e-3, 1e3, 12) + 5).astype(np.float32)
    targets = random.normal(size=40) * 1e4 + 3e5 if values else None
    plan = plan_of(hidden=hidden, dropout=0.4, seed=3)
    trained = TrainedHead.with_hidden(features, 1 if values else 3, plan=plan, values=targets).eval()
    with torch.no_grad():
        wanted = trained(torch.from_numpy(features)).numpy()
    head = trained.as_head()
    assert isinstance(head, MlpHead)
    assert head.widths == hidden
    assert np.allclose(head.scores(features), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    if targets is not None:  # it begins in the targets' own unit
        assert np.abs(wanted - targets.mean()).max() < 5 * targets.std()


def test_a_head_without_hidden_layers_is_linear():
    features = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    trained = TrainedHead.with_hidden(features, 2, plan=plan_of(), values=None).eval()
    head = trained.as_head()
    assert isinstance(head, LinearHead)
    assert np.allclose(head.scores(features), trained(torch.from_numpy(features)).detach().numpy(), atol=1e-5)


def test_the_first_weights_follow_the_seed_alone():
    features = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)

    def first(seed):
        torch.manual_seed(99)
        before = torch.random.get_rng_state()
        made = TrainedHead.with_hidden(features, 2, plan=plan_of(hidden=(8,), seed=seed))
        assert torch.equal(torch.random.get_rng_state(), before)
        return made.state_dict()

    same, again, other = first(0), first(0), first(1)
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["layers.0.weight"], other["layers.0.weight"])


def test_features_of_another_width_are_refused():
    head = MlpHead(layers=((np.ones((3, 4), np.float32), np.zeros(3, np.float32)), (np.ones((2, 3)), np.zeros(2))))
    with pytest.raises(DataError, match=r"features of shape \(5, 6\)") as caught:
        head.scores(np.zeros((5, 6), np.float32))
    assert "(N, 4)" in caught.value.expected


@pytest.mark.parametrize("task", ["single", "multi", "value"])
def test_the_saved_network_answers_as_numpy_does(prefix, task):
    random = np.random.default_rng(4)
    columns = prefix.spec.columns("last")
    width, count = columns.stop - columns.start, 1 if task == "value" else 3
    sizes = [width, 6, 5, count]
    layers = tuple(
        ((random.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), random.normal(size=b).astype(np.float32))
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    )
    head = MlpHead(layers=layers)
    temperatures = np.full(count, 1.0 if task == "value" else 1.7)
    answer = Answer(
        width=prefix.spec.width, inputs=("pixels",), columns=(columns,), flips=False, head=head, temperatures=temperatures,
        task=task,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(assemble([prefix.model_path], answer))
    pixels = random.normal(size=(3, 3, 224, 224)).astype(np.float32)
    scores = head.scores(prefix(pixels)[:, columns]) / temperatures
    odds = np.exp(scores)
    wanted = {"single": odds / odds.sum(axis=1, keepdims=True), "multi": odds / (1 + odds), "value": scores}[task]
    assert np.allclose(session.run(None, {"pixels": pixels})[0], wanted, atol=1e-4)


def head_question(model):
    return next(asked for asked in model.report.content["choices"] if asked["question"] == "head")


@pytest.fixture(scope="module")
def with_hidden(data, tmp_path_factory):
    """A model with hidden layers on frozen features."""
    out = tmp_path_factory.mktemp("hidden") / "out.hs"
    options = OPTIONS | {"strategy": "extract", "head": "mlp", "hidden": (24, 12), "dropout": 0.2}
    return headstart.fit(data, out=out, **options, epochs=12)


def test_a_head_with_hidden_layers_is_kept_and_compared_on_the_same_folds(with_hidden):
    asked = head_question(with_hidden)
    exact = {candidate["name"].partition(",")[0] for candidate in asked["candidates"][:-1]}
    assert exact == {"nearest-mean", "lda", "ridge", "logistic"}
    row = asked["candidates"][-1]
    assert row["name"] == "mlp, hidden layers 24, 12" == asked["kept"]
    assert 0 <= row["score"] <= 1
    assert "log-loss" in row["note"]
    content = with_hidden.report.content
    assert content["summary"]["strategy"] == "extract"
    gate = content["tuning"]["attempts"][0]["gate"]
    assert gate["basis"] == "48 items of 5 folds"
    assert gate["tuned_score"] == pytest.approx(row["score"], abs=1e-3)
    plan = content["tuning"]["attempts"][0]["plan"]
    assert (plan["hidden"], plan["dropout"], plan["epochs"]) == ([24, 12], 0.2, 12)
    assert asked["reason"].startswith("as asked; gain ")
    assert len((with_hidden.folder / "history.csv").read_text().splitlines()) == 13


def test_every_layer_of_the_head_is_saved_and_answers(with_hidden, data):
    tensors = load_file(with_hidden.folder / "head.safetensors")
    layers = tuple((tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in range(3))
    assert [weight.shape[0] for weight, _ in layers] == [24, 12, 2]
    items = sorted((data / "test" / "rings").iterdir())
    table = headstart.embed([str(item) for item in items], backbone=ARCH, image_size=32, geometry="squash")
    features = table.features(with_hidden.manifest.block)
    scores = MlpHead(layers=layers).scores(features) / tensors["temperatures"]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    said = np.array([[p.probabilities[label] for label in with_hidden.labels] for p in with_hidden.predict(items)])
    assert with_hidden.manifest.views == ("",)
    assert np.allclose(said, odds / odds.sum(axis=1, keepdims=True), atol=2e-3)


def test_a_head_with_hidden_layers_predicts_without_torch(with_hidden, data, run_python):
    item = next((data / "test" / "rings").iterdir())
    code = "import sys, headstart\nheadstart.load(sys.argv[1]).predict([sys.argv[2]])\nassert 'torch' not in sys.modules"
    done = run_python(code, with_hidden.folder, item)
    assert done.returncode == 0, done.stderr


def test_the_same_seed_trains_the_same_head(with_hidden, data):
    options = OPTIONS | {"strategy": "extract", "head": "mlp", "hidden": (24, 12), "dropout": 0.2, "epochs": 12}
    again = headstart.fit(data, **options)
    same_head = (with_hidden.folder / "head.safetensors").read_bytes()
    assert (again.folder / "head.safetensors").read_bytes() == same_head
    other = headstart.fit(data, **options, seed=1)
    assert (other.folder / "head.safetensors").read_bytes() != same_head


@pytest.mark.long
def test_hidden_layers_are_trained_together_with_the_last_blocks(data, tmp_path):
    options = OPTIONS | {"head": "mlp", "hidden": (16,), "epochs": 2}
    model = headstart.fit(data, out=tmp_path / "out.hs", **options, strategy="last:1")
    assert model.manifest.strategy == "last:1"
    assert all(name.startswith("layer4.") for name in load_file(model.folder / "tail.safetensors"))
    tensors = load_file(model.folder / "head.safetensors")
    assert tensors["0.weight"].shape[0] == 16
    assert tensors["1.weight"].shape == (2, 16)


def test_a_few_items_are_answered_out_of_fold(draw_folder, tmp_path):
    draw_folder(tmp_path / "few", per_class=8, classes=("rings", "stripes"))
    options = OPTIONS | {"strategy": "extract", "head": "mlp", "hidden": (8,), "epochs": 3}
    model = headstart.fit(tmp_path / "few", **options)
    assert "answered by a network tuned without them" in model.report.content["evaluation"]["basis"]
    assert head_question(model)["kept"] == "mlp, hidden layers 8"


def test_values_are_learned_in_their_own_unit(tmp_path):
    from PIL import Image

    random = np.random.default_rng(2)
    levels = random.uniform(0.1, 0.9, 60)
    pairs = []
    for number, level in enumerate(levels):
        noise = random.normal(0, 4, (40, 40, 3))
        path = tmp_path / f"{number}.png"
        Image.fromarray((255 * level + noise).clip(0, 255).astype(np.uint8)).save(path)
        pairs.append((path, 1e5 + 2e4 * level))
    options = OPTIONS | {"strategy": "extract", "head": "mlp", "hidden": (32,), "dropout": 0.0, "epochs": 30}
    model = headstart.fit(pairs, **options, task="value")
    row = head_question(model)["candidates"][-1]
    spread = float(np.std([value for _, value in pairs]))
    assert row["score"] < 0.5 * spread  # the root mean squared error out of fold
    assert model.report.content["summary"]["test"]["r2"] > 0.5


def test_a_head_that_was_interrupted_goes_on(data, tmp_path):
    out, options = tmp_path / "out.hs", OPTIONS | {"strategy": "extract", "head": "mlp", "hidden": (8,), "epochs": 4}
    with pytest.raises(TuningError, match="Stumble"):
        headstart.fit(data, out=out, **options, callbacks=[Stumble(2)])
    with pytest.raises(TuningError, match="are of another training: head; and the strategy is extract"):
        headstart.fit(data, out=out, **OPTIONS, strategy="extract", resume=True)
    with pytest.raises(TuningError, match=r"hidden was \(8,\), and is \(9,\)"):
        headstart.fit(data, out=out, **(options | {"hidden": (9,)}), resume=True)
    resumed = headstart.fit(data, out=out, **options, resume=True)
    whole = headstart.fit(data, **options)
    same_head = (whole.folder / "head.safetensors").read_bytes()
    assert (resumed.folder / "head.safetensors").read_bytes() == same_head


def test_a_strategy_that_is_asked_for_keeps_to_the_budget(data, tmp_path):
    model = headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="last:1", budget="0.001s")
    (attempt,) = model.report.content["tuning"]["attempts"]
    assert attempt["plan"]["epochs"] == len(attempt["history"]) == 1
    assert attempt["plan"]["reasons"]["epochs"] == "what fits 0 s"
    options = OPTIONS | {"strategy": "last:1", "budget": "0.001s", "epochs": 2}
    (attempt,) = headstart.fit(data, **options).report.content["tuning"]["attempts"]
    assert attempt["plan"]["epochs"] == 2


@pytest.mark.parametrize("how", ["scores", "compile"])
def test_a_training_that_diverged_blames_the_learning_rate(how, data, tmp_path, monkeypatch):
    def fail(prefix):
        raise BackboneError("backbone 'x' could not be compiled.", expected="y", mend="z")

    if how == "compile":
        monkeypatch.setattr(taking_up, "require_compiled", fail)
    else:
        monkeypatch.setattr(taking_up, "scores_of", lambda *_: np.array([[np.inf, 0.0]]))
    with pytest.raises(TuningError, match=r"learning rate 0\.002 is too high[\s\S]*--learning-rate 0\.0002"):
        headstart.fit(data, out=tmp_path / "out.hs", **OPTIONS, strategy="last:1", epochs=1, learning_rate=0.002)
