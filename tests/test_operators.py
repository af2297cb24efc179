"""What a saved network may compute: one that `fit` would not write is refused in words, even if the checksums agree."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fuzz_cases import network, reseal, write_artifact
from headstart.artifact.graph import Answer, assemble
from headstart.artifact.store import load
from headstart.backbones.files import find_weights
from headstart.errors import ArtifactError, BackboneError
from headstart.heads.linear import LinearHead
from headstart.operators import refused_in


@pytest.fixture
def folder(tmp_path):
    write_artifact(tmp_path / "model")
    return tmp_path / "model"


def changed(nodes, *, constants=(), kind=TensorProto.FLOAT, given=TensorProto.FLOAT, shape=("batch", 2)):
    """The network of a small model, with other nodes from `features` (B, 3) to `answer`."""
    model = onnx.load_from_string(network())
    kept = list(model.graph.node)[:2]
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend([*kept, *nodes])
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants)
    model.graph.output.append(helper.make_tensor_value_info("answer", kind, shape))
    model.graph.input[0].type.tensor_type.elem_type = given
    return model


def gemm(answer="answer"):
    return helper.make_node("Gemm", ["features", "weight", "bias"], [answer], transB=1)


def loop():
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    return [gemm("scores"), helper.make_node("Loop", ["", "always", "scores"], ["answer"], body=body)]


def test_the_small_model_opens(folder):
    assert load(folder).labels == ("a", "b")
    assert refused_in(network()) == ""


KINDS = {
    "classes": {"task": "single"},
    "labels and mirrored pictures": {"task": "multi", "flips": True},
    "a value far from 0": {"task": "value", "offset": 1e9},
    "terms": {"task": "single", "with_terms": True},
    "clips": {"task": "single", "clips": True},
    "mirrored clips": {"task": "single", "clips": True, "flips": True},
    "two networks": {"task": "single", "inputs": ("1.pixels", "2.pixels")},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_that_fit_writes_is_allowed(name, tmp_path):
    """Whatever is put around a backbone."""
    backbone, told = onnx.load_from_string(network()), {"flips": False, "inputs": ("pixels",)} | KINDS[name]
    del backbone.graph.node[2:], backbone.graph.output[:]
    backbone.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3]))
    onnx.save(backbone, tmp_path / "prefix.onnx")
    count = 1 if told["task"] == "value" else 2
    width = 3 * len(told["inputs"])
    if told.get("clips"):
        told["inputs"] = ("frames",)
    head = LinearHead(kind="ridge", weight=np.ones((count, 3), np.float32), bias=np.zeros(count, np.float32))
    answer = Answer(width=width, columns=(slice(0, 1), slice(1, 3)), head=head, temperatures=np.ones(count), **told)
    assert refused_in(assemble([tmp_path / "prefix.onnx"] * (width // 3), answer)) == ""


HUGE = np.array([1 << 16, 1 << 16], np.int64)
NETWORKS = {
    "endless loop": lambda: changed(loop(), constants=[("always", True)]),
    "16 GB of zeros": lambda: changed(
        [
            gemm("scores"),
            helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
            helper.make_node("Identity", ["scores"], ["answer"]),
        ],
        constants=[("huge", HUGE)],
    ),
    "16 GB by Expand": lambda: changed(
        [
            helper.make_node("Constant", [], ["huge"], value=numpy_helper.from_array(HUGE)),
            helper.make_node("Expand", ["bias", "huge"], ["zeros"]),
            gemm(),
        ]
    ),
    "random": lambda: changed([helper.make_node("RandomNormalLike", ["features"], ["noise"]), gemm()]),
    "strings": lambda: changed(
        [gemm("scores"), helper.make_node("Cast", ["scores"], ["answer"], to=TensorProto.STRING)], kind=TensorProto.STRING
    ),
    "whole numbers": lambda: changed(
        [gemm("scores"), helper.make_node("Cast", ["scores"], ["answer"], to=TensorProto.INT64)], kind=TensorProto.INT64
    ),
    "another rank": lambda: changed(
        [gemm("scores"), helper.make_node("Unsqueeze", ["scores", "axis"], ["answer"])],
        constants=[("axis", np.array([0], np.int64))],
        shape=("one", "batch", 2),
    ),
    "a scalar": lambda: changed(
        [gemm("scores"), helper.make_node("ReduceMean", ["scores"], ["answer"], keepdims=0)], shape=None
    ),
    "operators of others": lambda: changed([helper.make_node("Answer", ["features"], ["answer"], domain="org.example")]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_fit_never_writes_is_refused(folder, name):
    reseal(folder, "model.onnx", NETWORKS[name]().SerializeToString())
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        load(folder)


def test_constants_in_other_files_and_functions_are_refused():
    model = onnx.load_from_string(network())
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert "another file" in refused_in(model.SerializeToString())
    model = onnx.load_from_string(network())
    model.functions.add().name = "answer"
    assert "functions" in refused_in(model.SerializeToString())


@pytest.mark.parametrize("content", [b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 30, b"\x3a\x02\x0a\x05", b"\x0b"])
def test_damaged_fields_are_refused(content):
    assert refused_in(content) == "damaged fields"


def test_other_input_sizes_and_types_are_refused(folder):
    for shape, kind in (
        (["batch", 3, 17, 17], TensorProto.FLOAT),
        (["batch", 3, 16], TensorProto.FLOAT),
        (["b", 3, 16, 16], TensorProto.DOUBLE),
    ):
        model = onnx.load_from_string(network())
        del model.graph.input[:]
        model.graph.input.append(helper.make_tensor_value_info("pixels", kind, shape))
        reseal(folder, "model.onnx", model.SerializeToString())
        with pytest.raises(ArtifactError, match=r"model\.onnx"):
            load(folder)


@pytest.mark.parametrize("name", ["model.onnx", "selftest.safetensors", "report.json", "headstart.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_refused(folder, name, kind):
    (folder / name).unlink()
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        load(folder)
    with pytest.raises(BackboneError, match="no regular file"):
        find_weights("file:x", str(folder / name))
