"""Bundled networks are compiled without torch, and give what torch gives."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from headstart.backbones import BUNDLED
from headstart.backbones.catalog import find_source, open_source
from headstart.backbones.cutting import Frozen
from headstart.backbones.parts import pooled_network
from headstart.errors import BackboneError
from headstart.features import compile_prefix
from headstart.features.bundled_graphs import bundled_graph, fill_graph
from headstart.features.export import MAX_RELATIVE_ERROR, layout_of, relative_error

# Without anything that `pip install .` does not bring.
LIGHT = """
import sys
for name in "torch torchvision timm transformers scipy sklearn pyarrow pandas tokenizers soundfile soxr av".split():
    sys.modules[name] = None
from headstart.cli import main
sys.argv = ["headstart", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("name", BUNDLED)
def test_a_filled_graph_is_what_torch_makes_of_the_backbone(name, tmp_path):
    source = find_source(name)
    spec = fill_graph(bundled_graph(source), source, tmp_path / "filled.onnx", image_size=None)
    backbone = open_source(source)
    pooled = pooled_network(backbone, "")
    assert spec.info == backbone.info
    assert spec.layout == layout_of(backbone, pooled)
    assert spec.preprocess == backbone.preprocess
    error = relative_error(Frozen(pooled), spec.layout, spec.preprocess, tmp_path / "filled.onnx")
    assert error <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize("image_size", [96, 160, 225])
def test_any_image_size(image_size, tmp_path):
    source = find_source("efficientnet-lite0")
    spec = fill_graph(bundled_graph(source), source, tmp_path / "filled.onnx", image_size=image_size)
    backbone = open_source(source, image_size=image_size)
    assert spec.preprocess == backbone.preprocess and spec.preprocess.image_size == image_size
    pooled = pooled_network(backbone, "")
    assert relative_error(Frozen(pooled), spec.layout, spec.preprocess, tmp_path / "filled.onnx") <= MAX_RELATIVE_ERROR
    # Whoever goes on from the graph, as a model of clips does, reads the sizes off its input.
    dims = onnx.load(tmp_path / "filled.onnx").graph.input[0].type.tensor_type.shape.dim
    assert dims[0].dim_param and [dim.dim_value for dim in dims[1:]] == [3, image_size, image_size]


@pytest.mark.parametrize(("name", "part"), [("efficientnet-lite0", "conv_head"), ("all-minilm-l6-v2", "layer.5.output.dense")])
def test_tuned_tensors_take_the_place_of_the_published_ones(name, part, tmp_path):
    source = find_source(name)
    backbone = open_source(source)
    network = backbone.network.network if name.startswith("eff") else backbone.encoder.network
    random = torch.Generator().manual_seed(0)
    changes = {
        key: tensor + 0.01 * torch.randn(tensor.shape, generator=random)
        for key, tensor in network.state_dict().items()
        if part in key
    }
    assert changes
    save_file(changes, tmp_path / "tail.safetensors")
    tuned = source.with_changes(tmp_path / "tail.safetensors")
    spec = fill_graph(bundled_graph(tuned), tuned, tmp_path / "filled.onnx", image_size=None)
    expected = open_source(tuned)
    assert spec.info == expected.info and spec.info.tuned
    pooled = Frozen(pooled_network(expected, ""))
    assert relative_error(pooled, spec.layout, spec.preprocess, tmp_path / "filled.onnx") <= MAX_RELATIVE_ERROR


@pytest.mark.parametrize(
    "tensors",
    [{"nothing.of.it": torch.zeros(2)}, {"conv_stem.weight": torch.zeros(2)}],
    ids=["another name", "another shape"],
)
def test_tuned_tensors_of_another_network_are_refused(tensors, tmp_path):
    save_file(tensors, tmp_path / "tail.safetensors")
    tuned = find_source("efficientnet-lite0").with_changes(tmp_path / "tail.safetensors")
    with pytest.raises(BackboneError):
        fill_graph(bundled_graph(tuned), tuned, tmp_path / "filled.onnx", image_size=None)


def test_weights_that_are_damaged_are_refused(tmp_path):
    source = find_source("efficientnet-lite0")
    (tmp_path / "weights.pth").write_bytes(source.weights_path.read_bytes()[:-100])
    damaged = replace(source, weights_path=tmp_path / "weights.pth")
    with pytest.raises(BackboneError):
        fill_graph(bundled_graph(source), damaged, tmp_path / "filled.onnx", image_size=None)


@pytest.mark.parametrize("name", ["random:resnet18", "random:efficientnet-lite0", "timm:resnet18"])
def test_other_networks_have_no_graph(name):
    assert bundled_graph(find_source(name)) is None


def test_an_inner_cut_has_no_graph():
    assert bundled_graph(find_source("efficientnet-lite0"), "blocks.3") is None


def test_the_compiled_cache_does_not_depend_on_timm(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    source = find_source("efficientnet-lite0")
    assert not compile_prefix(source).cached
    first = compile_prefix(source).wait()
    monkeypatch.setattr("headstart.features.compile.version", lambda _: "another")
    again = compile_prefix(source)
    assert again.cached and again.wait().model_path == first.model_path


def light(*words, cache):
    return subprocess.run(
        [sys.executable, "-P", "-c", LIGHT, *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"HEADSTART_CACHE": str(cache)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def light_fit(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("light")
    done = light("fit", pictures, "--strategy", "extract", "--out", folder / "model.hs", "--json", cache=folder / "cache")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_auto_without_torch_is_the_baseline_and_names_what_fine_tuning_needs(light_fit, pictures, tmp_path):
    folder, _ = light_fit
    noisy = tmp_path / "noisy.csv"
    rows = [(path, path.parent.name) for path in sorted(pictures.glob("*/*"))]
    # Every fifth label is the next class's, so that the baseline leaves something to gain.
    names = sorted({label for _, label in rows})
    spoilt = [(path, names[(names.index(label) + (place % 5 == 0)) % len(names)]) for place, (path, label) in enumerate(rows)]
    noisy.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in spoilt), encoding="utf-8")
    done = light("fit", noisy, "--out", tmp_path / "model.hs", "--json", "--budget", "1h", cache=folder / "cache")
    summary = json.loads(done.stdout)
    assert summary["strategy"] == summary["gate"]["kept"] == "extract"
    assert "torch" in summary["gate"]["reason"] and "[train]" in summary["gate"]["reason"]


def test_fit_without_torch_predicts_what_a_fit_with_torch_does(light_fit, pictures, tmp_path):
    import headstart

    folder, summary = light_fit
    assert summary["strategy"] == "extract"
    model = headstart.fit(pictures, strategy="extract", out=tmp_path / "model.hs")
    items = sorted(path for path in pictures.rglob("*.*"))[:12]
    ours = [answer.probabilities for answer in model.predict(items)]
    done = light("predict", folder / "model.hs", *items, "--json", cache=folder / "cache")
    theirs = [answer["probabilities"] for answer in json.loads(done.stdout)["predictions"]]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose([one[name] for name in sorted(one)], [other[name] for name in sorted(one)], atol=1e-5)


@pytest.mark.parametrize("command", ["check", "evaluate", "embed", "report", "backbones"])
def test_other_commands_without_torch(command, light_fit, pictures):
    folder, _ = light_fit
    words = {
        "check": ["check", pictures],
        "evaluate": ["evaluate", folder / "model.hs", pictures],
        "embed": ["embed", pictures, "--out", folder / "features.npz"],
        "report": ["report", folder / "model.hs"],
        "backbones": ["backbones"],
    }[command]
    done = light(*words, cache=folder / "cache")
    assert done.returncode == 0, done.stderr
    if command == "embed":
        with np.load(folder / "features.npz", allow_pickle=False) as table:
            assert len(table["ids"]) == len(table["labels"]) == len(table["vectors"])


@pytest.mark.parametrize("strategy", ["last:1", "full"])
def test_a_strategy_that_trains_names_what_to_install(strategy, light_fit, pictures, tmp_path):
    folder, _ = light_fit
    done = light("fit", pictures, "--strategy", strategy, "--out", tmp_path / "model.hs", cache=folder / "cache")
    assert done.returncode == 2 and "[train]" in done.stderr
    assert not list(tmp_path.iterdir())
