"""Products in 8-bit whole numbers: what they compute, when they are taken, and that a model of them is like any other."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import headstart
from commands import run_here
from headstart.backbones import locate
from headstart.data.source import read_with_findings
from headstart.errors import SettingError
from headstart.features import compile_prefix, int8
from headstart.features.int8_graph import quantize_products
from headstart.inference import open_session
from headstart.select import precision as asking
from headstart.select.precision import as_good, choose_precision
from headstart.select.trial import Trial
from test_text_fit import sentences, write_table
from text_models import save_encoder

WIDTH, TWICE = 24, 48


@pytest.fixture(scope="module")
def matrices():
    random = np.random.default_rng(0)
    return random.normal(size=(WIDTH, TWICE)).astype(np.float32), random.normal(size=(TWICE, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def graph(matrices):
    """Two products with constant matrices, a Relu between, and one of two things that vary."""
    nodes = [
        helper.make_node("MatMul", ["given", "first"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["positive"]),
        helper.make_node("MatMul", ["positive", "second"], ["narrow"]),
        helper.make_node("Transpose", ["narrow"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["narrow", "turned"], ["features"]),
    ]
    inputs = [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["batch", "length", WIDTH])]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "length", "length"])]
    constants = [numpy_helper.from_array(value, name) for value, name in zip(matrices, ("first", "second"), strict=True)]
    made = helper.make_graph(nodes, "products", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def given():
    values = np.random.default_rng(1).normal(size=(3, 5, WIDTH)).astype(np.float32)
    values[0] *= 1000  # one item's size is not another's
    values[1, 2] = 0
    return values


def run(model, given):
    return open_session(model.SerializeToString(), num_threads=1).run(["features"], {"given": given})[0]


def whole_product(rows, matrix):
    """Written anew: a scale a row in 127 levels, a scale a column in 63."""
    per_level = np.maximum(np.abs(rows).max(axis=-1, keepdims=True) / np.float32(127), 1e-12)
    per_step = np.abs(matrix).max(axis=0) / np.float32(63)
    return (np.rint(rows / per_level) @ np.rint(matrix / per_step)) * per_step * per_level


def test_the_whole_numbers_are_those_of_a_plain_reference(graph, given, matrices):
    rewritten, count = quantize_products(graph)
    assert count == 2
    narrow = whole_product(np.maximum(whole_product(given, matrices[0]), 0), matrices[1])
    wanted = narrow @ narrow.transpose(0, 2, 1)
    found = run(rewritten, given)
    for item in range(len(given)):
        np.testing.assert_allclose(found[item], wanted[item], rtol=1e-3, atol=1e-3 * np.abs(wanted[item]).max())
    exact = run(graph, given)
    for item in range(len(given)):
        np.testing.assert_allclose(found[item], exact[item], atol=0.05 * np.abs(exact[item]).max())


def test_an_item_gives_the_same_whoever_else_is_in_its_batch(graph, given):
    rewritten, _ = quantize_products(graph)
    together = run(rewritten, given)
    for item in range(len(given)):
        alone = run(rewritten, given[item : item + 1])[0]
        np.testing.assert_allclose(alone, together[item], rtol=1e-6, atol=1e-6 * np.abs(alone).max())


def test_two_products_never_overflow_sixteen_bits(graph):
    rewritten, _ = quantize_products(graph)
    whole = [numpy_helper.to_array(one) for one in rewritten.graph.initializer if one.data_type == TensorProto.INT8]
    assert len(whole) == 2
    assert max(2 * 255 * np.abs(one.astype(int)).max() for one in whole) <= np.iinfo(np.int16).max


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("int8") / "encoder")


@pytest.fixture(scope="module")
def prefix(encoder):
    return compile_prefix(locate(f"file:{encoder}", modality="text")).wait()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_with_findings(write_table(tmp_path_factory.mktemp("int8-data") / "opinions.csv", sentences())).dataset


@pytest.fixture
def asked(monkeypatch):
    """As if the data were many and the machine had the instructions."""
    monkeypatch.setattr(asking, "MIN_ITEMS", 10)
    monkeypatch.setattr(asking, "times_faster", lambda *_: 2.0)


def choose(prefix, dataset, precision="auto"):
    return choose_precision(prefix, prefix.spec.preprocess, dataset, precision=precision, seed=0)


def test_few_items_are_not_asked(prefix, dataset):
    choice = choose(prefix, dataset)
    assert choice.prefix is prefix
    assert choice.reason.startswith("too few items to ask")


def test_it_is_taken_where_it_is_faster_and_as_good(prefix, dataset, asked, monkeypatch):
    monkeypatch.setattr(asking, "MOST_WORSE", 1.0)
    choice = choose(prefix, dataset)
    assert (choice.prefix.precision, choice.prefix.spec) == ("int8", prefix.spec)
    assert [trial.name for trial in choice.trials] == ["float32", "int8"]
    assert choice.reason.startswith("2.0 times as fast")
    assert choice.asked and choice.asked <= {sample.id for sample in dataset.samples}


def test_it_is_left_where_the_heads_would_miss_it(prefix, dataset, asked, monkeypatch):
    monkeypatch.setattr(asking, "MOST_WORSE", -1.0)
    choice = choose(prefix, dataset)
    assert choice.prefix is prefix
    assert "is allowed" in choice.reason


def test_it_is_left_where_it_is_not_faster(prefix, dataset, asked, monkeypatch):
    monkeypatch.setattr(asking, "times_faster", lambda *_: 1.1)
    choice = choose(prefix, dataset)
    assert (choice.prefix, choice.trials) == (prefix, ())
    assert choice.reason == "int8 is 1.10 times as fast on this machine"


def test_as_good_is_more_than_not_surely_worse():
    held = Trial(name="float32", losses=np.full(50, 0.5), score=0.8)
    noise = np.random.default_rng(0).normal(size=50)
    assert as_good(Trial(name="int8", losses=0.5 + 0.01 * noise, score=0.8), held)[0]
    assert not as_good(Trial(name="int8", losses=0.5 + 0.5 * noise, score=0.8), held)[0]
    assert not as_good(Trial(name="int8", losses=np.full(50, 0.53), score=0.8), held)[0]


@pytest.mark.parametrize("damage", ["short", "changed", "checksum lost"])
def test_one_that_was_damaged_on_disk_is_made_anew(prefix, damage):
    batch = prefix.spec.preprocess.example(2)
    first, _ = int8.quantized(prefix)
    wanted = first(batch)
    content = bytearray(first.model_path.read_bytes())
    if damage == "short":
        first.model_path.write_bytes(content[:1_000])
    elif damage == "changed":
        content[len(content) // 2 :][:400] = bytes(400)
        content[len(content) // 2] ^= 255
        first.model_path.write_bytes(content)
    else:
        first.model_path.with_name("int8.sha256").unlink()
    again, why = int8.quantized(prefix)
    assert why == ""
    np.testing.assert_array_equal(again(batch), wanted)
    assert len(first.model_path.read_bytes()) == len(content)
    assert first.model_path.with_name("int8.sha256").exists()


def test_the_speed_is_measured_once_on_a_machine(prefix, tmp_path, monkeypatch):
    other, why = int8.quantized(prefix)
    assert why == ""
    kept = other.model_path.with_name("int8.json")
    kept.unlink(missing_ok=True)
    batches = [prefix.spec.preprocess.example(2)]
    measured = int8.times_faster(prefix, other, batches)
    assert measured > 0
    monkeypatch.setattr(int8, "_measure", lambda *_: 99.0)
    assert int8.times_faster(prefix, other, batches) == measured
    told = json.loads(kept.read_text()) | {"machine": {"cpu": "another"}}
    kept.write_text(json.dumps(told))
    assert int8.times_faster(prefix, other, batches) == 99.0


@pytest.mark.usefixtures("compiling_here")
def test_a_network_without_such_products_says_so():
    pictures = compile_prefix(locate("random:test_resnet")).wait()
    assert int8.quantized(pictures) == (None, "the network has no products with constant matrices")
    with pytest.raises(SettingError, match="no products with constant matrices"):
        choose_precision(pictures, pictures.spec.preprocess, None, precision="int8", seed=0)


def test_a_model_in_whole_numbers_is_like_any_other(encoder, tmp_path, run_python):
    rows = sentences()
    model = headstart.fit(
        write_table(tmp_path / "opinions.csv", rows),
        out=tmp_path / "opinions.hs",
        backbone=f"file:{encoder}",
        strategy="extract",
        precision="int8",
    )
    report = json.loads((tmp_path / "opinions.hs" / "report.json").read_text())
    (told,) = [choice for choice in report["choices"] if choice["question"] == "precision"]
    assert (told["kept"], told["reason"]) == ("int8", "as asked")
    network = onnx.load(tmp_path / "opinions.hs" / "model.onnx")
    assert {"MatMulIntegerToFloat", "QuantizeLinear"} <= {node.op_type for node in network.graph.node}
    text = rows[0][0]
    code = """
import sys, headstart
print(headstart.load(sys.argv[1]).predict([sys.argv[2]])[0].probability, "torch" in sys.modules)
"""
    probability, torch_there = run_python(code, tmp_path / "opinions.hs", text).stdout.split()
    assert torch_there == "False"
    assert float(probability) == pytest.approx(model.predict([text])[0].probability, abs=1e-6)
    assert run_here("export", tmp_path / "opinions.hs", "--out", tmp_path / "opinions.onnx").returncode == 0
