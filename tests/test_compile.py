"""Compiled prefixes: the same features as torch gives, kept on disk, and never a silent difference."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compiled_here import InProcess
from headstart import fit
from headstart.backbones import locate, open_backbone
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.errors import BackboneError, MemoryLimitError, MissingPackageError, SettingError
from headstart.features import compile as compiling
from headstart.features import compile_prefix, device, export, extract
from headstart.features.compile import clear_compiled, compiled
from headstart.features.device import accelerator
from headstart.features.onnx_graph import fold_padding, without_unused_nodes
from headstart.features.prefix import BlockSlice, OnnxPrefix, PrefixSpec, TorchPrefix
from headstart.inference import open_session
from headstart.preprocess.image import ImagePreprocess

NAME, SIDE = "random:test_resnet", 64


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pixels(size, side, seed=0):
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.standard_normal((size, 3, 6, 6)).astype(np.float32))
    return nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").numpy()


# The features are torch's


def hooked(network, modules, batch):
    """Outputs of the named modules in one run of the network, by hooks."""
    seen = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.__setitem__(name, output.clone())
        )
        for name in modules
    ]
    with torch.no_grad():
        network(torch.from_numpy(batch))
    for handle in handles:
        handle.remove()
    return [seen[name] for name in modules]


# Where timm's own module ends each block.
MODULES = {
    "efficientnet-lite0": ["bn1", *(f"blocks.{i}" for i in range(7)), "bn2", "global_pool"],
    "random:resnet18": ["maxpool", "layer1", "layer2", "layer3", "layer4", "global_pool"],
    "random:vit_tiny_patch16_224": ["norm_pre", *(f"blocks.{i}" for i in range(11)), "norm", "fc_norm"],
    "random:test_convnext": ["stem", *(f"stages.{i}" for i in range(4)), "head"],
    "random:test_mambaout": ["stem", *(f"stages.{i}" for i in range(4)), "head.norm", "head"],
}


def mean_over_positions(output, name):
    match output.ndim:
        case 4 if "mambaout" in name:
            return output.mean((1, 2))
        case 4:
            return output.mean((2, 3))
        case 3:
            return output.mean(1)
    return output


@pytest.fixture(scope="module", params=MODULES, ids=lambda name: name.replace("random:", ""))
def exported(request, tmp_path_factory):
    """A backbone with its compiled prefix, compiled in this process."""
    backbone = open_backbone(request.param, image_size=SIDE)
    path = tmp_path_factory.mktemp("exported") / "prefix.onnx"
    spec = export.export(backbone, path)
    return backbone, spec, path


def test_compiled_features_equal_torchs_at_every_block(exported):
    """Against timm's own network with forward hooks and a plain mean, in batches of other sizes than that of the export."""
    backbone, spec, path = exported
    name = backbone.info.name
    prefix = OnnxPrefix(spec, path)
    for size in (1, 5):
        batch = pixels(size, SIDE, seed=size)
        features = prefix(batch)
        assert features.shape == (size, spec.width)
        assert features.dtype == np.float32
        outputs = hooked(backbone.network.network, MODULES[name], batch)
        for part, output in zip(spec.layout, outputs, strict=True):
            wanted = mean_over_positions(output, name).numpy()
            found = features[:, spec.columns(part.name)]
            assert found.shape == wanted.shape == (size, part.width), part.name
            assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max(), part.name
    assert spec.why_torch == ""
    assert 0 <= spec.relative_error <= 1e-4


def test_spec_survives_json(exported):
    _, spec, _ = exported
    assert PrefixSpec.from_json(json.loads(json.dumps(spec.as_json())), spec.preprocess.assets.__getitem__) == spec


def test_torch_prefix_gives_the_same(exported):
    backbone, spec, path = exported
    by_torch = TorchPrefix(spec, export.PooledBlocks(backbone), device="cpu", model_path=path)
    batch = pixels(3, SIDE)
    features = by_torch(batch)
    assert features.dtype == np.float32
    assert np.abs(features - OnnxPrefix(spec, path)(batch)).max() <= 1e-4 * np.abs(features).max()
    assert (by_torch.precision, by_torch.model_path) == ("float32", path)


def test_torch_takes_networks_with_buffers_of_five_axes():
    """As Swin's masks are; the memory format that convolutions like knows of four."""
    network = nn.Conv2d(3, 10, 3)
    network.register_buffer("mask", torch.zeros(1, 1, 2, 3, 4))
    pooled = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batch = pixels(2, SIDE)
    with torch.no_grad():
        wanted = pooled(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(TorchPrefix(SPEC, pooled, device="cpu", model_path=None)(batch), wanted, rtol=1e-4, atol=1e-6)


def test_a_map_and_its_own_pooling_are_kept_once(prefix):
    spec = prefix.spec
    assert spec.columns("conv_head") == spec.columns("pool") == spec.columns("last")
    assert spec.width == 32 + 16 + 24 + 40 + 80 + 112 + 192 + 320 + 1280
    assert spec.widths("multi") == (32, 16, 24, 40, 80, 112, 192, 320, 1280)


def test_untraceable_network_is_compiled_whole(monkeypatch, tmp_path):
    from headstart.backbones import timm_images

    def refuse(*_, **__):
        raise ValueError("symbolically traced variables cannot be used as inputs to control flow")

    monkeypatch.setattr(timm_images, "trace", refuse)
    backbone = open_backbone(NAME, image_size=SIDE)
    spec = export.export(backbone, tmp_path / "prefix.onnx")
    assert spec.layout == (BlockSlice(name="network", start=0, width=backbone.info.width),)
    batch = pixels(3, SIDE)
    with torch.no_grad():
        wanted = backbone(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(OnnxPrefix(spec, tmp_path / "prefix.onnx")(batch), wanted, atol=1e-4 * np.abs(wanted).max())


# Columns


SPEC = PrefixSpec(
    info=BackboneInfo(
        name="toy",
        architecture="toy",
        modality="image",
        licence="",
        source="",
        sha256="",
        width=5,
        num_parameters=0,
        blocks=tuple(BlockInfo(name=n, width=w, num_parameters=0) for n, w in (("a", 2), ("b", 3), ("c", 5), ("pool", 5))),
    ),
    preprocess=ImagePreprocess(),
    layout=(
        BlockSlice(name="a", start=0, width=2),
        BlockSlice(name="b", start=2, width=3),
        BlockSlice(name="c", start=5, width=5),
        BlockSlice(name="pool", start=5, width=5),
    ),
    relative_error=0.0,
)


@pytest.mark.parametrize(
    ("block", "columns", "widths"),
    [
        ("a", slice(0, 2), (2,)),
        ("b", slice(2, 5), (3,)),
        ("c", slice(5, 10), (5,)),
        ("pool", slice(5, 10), (5,)),
        ("last", slice(5, 10), (5,)),
        ("multi", slice(0, 10), (2, 3, 5)),
    ],
)
def test_columns_and_widths_of_each_block(block, columns, widths):
    assert SPEC.columns(block) == columns
    assert SPEC.widths(block) == widths
    assert SPEC.width == 10


def test_columns_of_an_unknown_block():
    with pytest.raises(SettingError, match="'toy' has no block 'd'") as caught:
        SPEC.columns("d")
    assert "one of a, b, c, pool" in caught.value.expected
    with pytest.raises(SettingError):
        SPEC.widths("d")


# Folding padding


def conv_graph(pad_sizes, *, fill=0.0, mode="constant", conv_pads=(0, 0, 0, 0), also=None, seed=0):
    """Pad, then Conv, on (B, 2, 9, 8); `also` adds a second reader of the padded tensor."""
    random = np.random.default_rng(seed)
    constants = {
        "sizes": np.array(pad_sizes, np.int64),
        "fill": np.array(fill, np.float32),
        "weight": random.standard_normal((3, 2 + pad_sizes[1] + pad_sizes[5], 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Pad", ["pixels", "sizes", "fill"], ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "weight"], ["convolved"], pads=list(conv_pads), strides=[2, 1]),
        helper.make_node("ReduceMean", ["convolved", "axes"], ["features"] if not also else ["first"], keepdims=0),
    ]
    constants["axes"] = np.array([2, 3], np.int64)
    if also:
        nodes += [
            helper.make_node(also, ["padded", "axes"], ["second"], keepdims=0),
            helper.make_node("Concat", ["first", "second"], ["features"], axis=1),
        ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 2, 9, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def run(model, batch):
    session = open_session(model.SerializeToString(), num_threads=1)
    return session.run(None, {session.get_inputs()[0].name: batch})[0]


def folded(model):
    sample = np.zeros((1, 2, 9, 8), np.float32)
    result = fold_padding(model, sample)
    onnx.checker.check_model(result)
    batch = np.random.default_rng(1).standard_normal((3, 2, 9, 8)).astype(np.float32)
    np.testing.assert_allclose(run(result, batch), run(model, batch), rtol=1e-6, atol=1e-6)
    return [node.op_type for node in result.graph.node]


@settings(max_examples=25, deadline=None)
@given(sizes=st.tuples(*[st.integers(0, 3)] * 4), own=st.tuples(*[st.integers(0, 2)] * 4), seed=st.integers(0, 99))
def test_folded_padding_computes_the_same(sizes, own, seed):
    top, left, bottom, right = sizes
    model = conv_graph([0, 0, top, left, 0, 0, bottom, right], conv_pads=own, seed=seed)
    before = model.SerializeToString()
    assert "Pad" not in folded(model)
    assert model.SerializeToString() == before, "the graph given is changed"


@pytest.mark.parametrize(
    "settings_",
    [
        {"fill": 1.5},
        {"mode": "reflect"},
        {"mode": "edge"},
        {"also": "ReduceMax"},
        {"pad_sizes": [0, 1, 1, 1, 0, 0, 1, 1]},
        {"pad_sizes": [0, 0, -1, 0, 0, 0, 1, 1]},
    ],
)
def test_padding_of_other_kinds_stays(settings_):
    assert "Pad" in folded(conv_graph(**({"pad_sizes": [0, 0, 1, 1, 0, 0, 1, 1]} | settings_)))


def test_folding_a_ported_network_keeps_outputs_and_drops_what_measured_the_padding(tmp_path):
    backbone = open_backbone("efficientnet-lite0", image_size=SIDE)
    export._export_torchscript(export.PooledBlocks(backbone), backbone.preprocess, tmp_path / "raw.onnx")
    raw = onnx.load(tmp_path / "raw.onnx")
    result = fold_padding(raw, np.zeros((1, 3, SIDE, SIDE), np.float32))
    kinds = {node.op_type for node in result.graph.node}
    assert "Pad" in {node.op_type for node in raw.graph.node}
    assert not kinds & {"Pad", "Shape"}
    batch = pixels(4, SIDE)
    wanted = run(raw, batch)
    np.testing.assert_allclose(run(result, batch), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_unused_steps_and_constants_go():
    model = conv_graph([0, 0, 1, 1, 0, 0, 1, 1])
    model.graph.node.append(helper.make_node("Relu", ["convolved"], ["nowhere"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "unread"))
    smaller = without_unused_nodes(model)
    assert [node.op_type for node in smaller.graph.node] == ["Pad", "Conv", "ReduceMean"]
    assert "unread" not in {constant.name for constant in smaller.graph.initializer}


# Kept on disk


@pytest.fixture
def in_process(monkeypatch, empty_cache):
    monkeypatch.setattr(InProcess, "started", 0)
    monkeypatch.setattr(compiling.subprocess, "Popen", InProcess)
    return InProcess


def folders(cache):
    return sorted(path.name for path in (cache / "compiled").iterdir())


def test_compiled_once_and_found_again(in_process, empty_cache):
    source = locate(NAME)
    first = compile_prefix(source, image_size=SIDE)
    assert not first.cached
    prefix = first.wait()
    (only,) = folders(empty_cache)
    assert sorted(path.name for path in (empty_cache / "compiled" / only).iterdir()) == ["prefix.json", "prefix.onnx"]
    again = compile_prefix(source, image_size=SIDE)
    assert again.cached
    assert again.wait().spec == prefix.spec
    np.testing.assert_array_equal(again.wait()(pixels(2, SIDE)), prefix(pixels(2, SIDE)))
    assert in_process.started == 1
    assert compiled() == {NAME: "image"}
    compile_prefix(source, image_size=96).wait()
    assert in_process.started == 2, "another image size is another network"
    freed = sum(path.stat().st_size for path in (empty_cache / "compiled").rglob("*") if path.is_file())
    assert clear_compiled() == freed > 0
    assert compiled() == {}
    assert not compile_prefix(source, image_size=SIDE).cached


@pytest.mark.parametrize(
    "damage",
    [
        "no onnx",
        "short onnx",
        "changed bytes",
        "changed bit",
        "no json",
        "short json",
        "other json",
        "changed json",
        "empty folder",
    ],
)
def test_a_damaged_compiled_network_is_made_anew(in_process, empty_cache, damage):
    source = locate(NAME)
    wanted = compile_prefix(source, image_size=SIDE).wait()(pixels(2, SIDE))
    folder = empty_cache / "compiled" / folders(empty_cache)[0]
    network, description = folder / "prefix.onnx", folder / "prefix.json"
    match damage:
        case "no onnx":
            network.unlink()
        case "short onnx":
            network.write_bytes(network.read_bytes()[:1000])
        case "changed bytes":
            content = bytearray(network.read_bytes())
            content[5_000:5_400] = bytes(400)
            network.write_bytes(content)
        case "changed bit":
            content = bytearray(network.read_bytes())
            content[len(content) // 2] ^= 1
            network.write_bytes(content)
        case "no json":
            description.unlink()
        case "short json":
            description.write_text(description.read_text()[:100])
        case "other json":
            description.write_text("{}")
        case "changed json":
            changed = json.loads(description.read_text())
            changed["preprocess"]["mean"] = [0.1, 0.2, 0.3]
            description.write_text(json.dumps(changed))
        case "empty folder":
            network.unlink()
            description.unlink()
    found = compile_prefix(source, image_size=SIDE)
    assert not found.cached
    np.testing.assert_array_equal(found.wait()(pixels(2, SIDE)), wanted)
    assert in_process.started == 2
    assert compile_prefix(source, image_size=SIDE).cached


def test_two_that_compile_at_once_both_get_it(in_process, empty_cache):
    source = locate(NAME)
    first, second = (compile_prefix(source, image_size=SIDE) for _ in range(2))
    compiling.shutil.rmtree(empty_cache / "compiled")  # as it was before either had ended
    late = [compiling._start(source, SIDE, "", empty_cache / "compiled" / "key") for _ in range(2)]
    np.testing.assert_array_equal(late[0].wait()(pixels(1, SIDE)), late[1].wait()(pixels(1, SIDE)))
    assert folders(empty_cache) == ["key"]
    assert not first.cached
    assert second.cached


def test_a_cache_that_cannot_be_written_still_compiles(in_process, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file" / "cache"))
    prefix = compile_prefix(locate(NAME), image_size=SIDE).wait()
    assert prefix(pixels(2, SIDE)).shape == (2, prefix.spec.width)
    assert prefix.model_path.is_file()


def test_errors_of_the_other_process_come_back_in_their_own_words(in_process, empty_cache, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"no weights at all")
    source = locate(f"file:{tmp_path / 'weights.pth'}#test_resnet")
    compilation = compile_prefix(source)
    with pytest.raises(BackboneError, match=r"weights\.pth cannot be read") as caught:
        compilation.wait()
    with pytest.raises(BackboneError) as direct:
        open_backbone(source.name)
    assert str(caught.value) == str(direct.value)
    assert folders(empty_cache) == []


class Broken:
    """A process that dies with a word on stderr, or never gets that far."""

    returncode = 1
    killed = False

    def __init__(self, *_, **__):
        pass

    def communicate(self):
        return b"", b"Traceback ...\nKeyError: 'no such thing'\n\n"

    def kill(self):
        type(self).killed = True

    def wait(self):
        assert self.killed


def test_a_process_that_dies_is_told_of(monkeypatch, empty_cache):
    monkeypatch.setattr(compiling.subprocess, "Popen", Broken)
    with pytest.raises(BackboneError, match="could not be compiled: KeyError: 'no such thing'") as caught:
        compile_prefix(locate(NAME)).wait()
    assert f"open_backbone('{NAME}')" in caught.value.mend
    assert folders(empty_cache) == []


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (1, "MemoryError"),
        (1, "ImportError: libtorch_cpu.so: failed to map segment from shared object"),
        (1, "RuntimeError: could not create a primitive"),
        (-9, ""),
    ],
)
def test_a_process_without_enough_memory_is_reported_as_that(status, said, monkeypatch, empty_cache):
    class Starved(Broken):
        returncode = status

        def communicate(self):
            return b"", f"Traceback ...\n{said}\n".encode()

    monkeypatch.setattr(compiling.subprocess, "Popen", Starved)
    with pytest.raises(MemoryLimitError):
        compile_prefix(locate(NAME)).wait()
    assert folders(empty_cache) == []


def test_a_lack_of_memory_is_not_remembered_of_the_network(monkeypatch, tmp_path):
    def starve(network, sample, path):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(export, "_export_torchscript", starve)
    asked = {"name": NAME, "modality": "image", "changes": "", "image_size": SIDE, "cut": ""}
    asked |= {"folder": str(tmp_path), "target": str(tmp_path / "target")}
    assert export.main([json.dumps(asked)]) == 2
    assert json.loads((tmp_path / "error.json").read_text())["kind"] == "MemoryLimitError"
    assert not (tmp_path / "target").exists()


def test_an_interrupt_while_waiting_stops_the_process(monkeypatch, empty_cache):
    class Interrupted(Broken):
        def communicate(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(compiling.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_prefix(locate(NAME)).wait()
    assert Interrupted.killed
    assert folders(empty_cache) == []


def test_compiling_needs_packages_that_are_named(monkeypatch, empty_cache):
    version = compiling._version
    monkeypatch.setattr(compiling, "_version", lambda package: "" if package == "onnx" else version(package))
    with pytest.raises(MissingPackageError, match="'onnx' is not installed"):
        compile_prefix(locate(NAME))


def test_the_default_backbone_is_compiled_once(prefix):
    """The default backbone, as everybody gets it; its padding is folded."""
    assert "Pad" not in {node.op_type for node in onnx.load(prefix.model_path).graph.node}
    again = compile_prefix(locate("efficientnet-lite0"))
    assert again.cached
    folder = prefix.model_path.parent
    told = json.loads((folder / "prefix.json").read_text())
    assert told["bytes"] == prefix.model_path.stat().st_size
    assert told["versions"]["onnx"] == onnx.__version__
    assert told["relative_error"] <= 1e-4
    assert list(Path(os.environ["HEADSTART_CACHE"], "compiled").glob(f"{folder.name}.*")) == []
    assert "efficientnet-lite0" in compiled()


# Where compiling is not faithful


def test_a_network_that_does_not_pass_the_check_is_run_by_torch(
    monkeypatch, in_process, empty_cache, draw_folder, tmp_path, tmp_path_factory
):
    monkeypatch.setattr(export, "MAX_RELATIVE_ERROR", -1.0)
    monkeypatch.setattr(export, "_export_dynamo", failing)  # ten times as slow, and no other check
    prefix = compile_prefix(locate(NAME), image_size=SIDE).wait()
    assert isinstance(prefix, TorchPrefix)
    assert prefix.model_path is None
    assert "features differ from torch's by" in prefix.spec.why_torch
    assert prefix.spec.relative_error is None
    assert list((empty_cache / "compiled").rglob("*.onnx")) == []
    backbone = open_backbone(NAME, image_size=SIDE)
    with torch.no_grad():
        wanted = backbone(torch.from_numpy(pixels(2, SIDE))).numpy()
    np.testing.assert_allclose(prefix(pixels(2, SIDE))[:, prefix.spec.columns("last")], wanted, rtol=1e-4, atol=1e-5)
    again = compile_prefix(locate(NAME), image_size=SIDE)
    assert again.cached
    assert again.wait().spec == prefix.spec
    with pytest.raises(BackboneError, match="could not be compiled, so no model of it can predict without torch") as caught:
        folder = draw_folder(tmp_path_factory.mktemp("few") / "pictures", per_class=5)
        fit(folder, out=tmp_path / "model.hs", backbone=NAME, image_size=SIDE, geometry="squash")
    assert "features differ" in caught.value.what
    assert "headstart embed" in caught.value.mend
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty-cache"]


def test_a_network_that_no_saved_model_may_have_is_run_by_torch(monkeypatch, in_process, empty_cache):
    monkeypatch.setattr(export, "refused_in", lambda content: "the operator Loop")
    monkeypatch.setattr(export, "_export_dynamo", failing)
    prefix = compile_prefix(locate(NAME), image_size=SIDE).wait()
    assert isinstance(prefix, TorchPrefix) and "the operator Loop" in prefix.spec.why_torch


def corrupted(network, sample, path):
    """An exporter that gets one weight wrong."""
    export_well(network, sample, path)
    model = onnx.load(path)
    weight = next(constant for constant in model.graph.initializer if len(constant.dims) == 4)
    value = numpy_helper.to_array(weight).copy()
    value[0] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    onnx.save(model, path)


def frozen_batch(network, sample, path):
    """An exporter that takes the batch size for a constant."""
    stream = io.BytesIO()
    torch.onnx.export(network, (sample,), stream, dynamo=False, input_names=["pixels"], output_names=["features"])
    path.write_bytes(stream.getvalue())


def failing(network, sample, path):
    raise RuntimeError("unsupported operator")


export_well = export._export_torchscript


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exporter", [corrupted, frozen_batch, failing])
def test_an_unfaithful_exporter_is_found_out_and_the_next_one_tried(monkeypatch, tmp_path, exporter):
    backbone = open_backbone(NAME, image_size=SIDE)
    monkeypatch.setattr(export, "_export_torchscript", exporter)
    monkeypatch.setattr(export, "_export_dynamo", export_well)
    spec = export.export(backbone, tmp_path / "prefix.onnx")
    assert spec.why_torch == ""
    monkeypatch.setattr(export, "_export_dynamo", failing)
    spec = export.export(backbone, tmp_path / "prefix.onnx")
    assert "RuntimeError: unsupported operator" in spec.why_torch
    assert len(spec.why_torch.split("; ")) == 2
    assert not (tmp_path / "prefix.onnx").exists()


def test_the_newer_exporter_is_as_faithful(monkeypatch, tmp_path):
    monkeypatch.setattr(export, "_export_torchscript", failing)
    backbone = open_backbone("random:test_efficientnet", image_size=SIDE)
    spec = export.export(backbone, tmp_path / "prefix.onnx")
    assert spec.why_torch == ""
    assert spec.relative_error <= 1e-4
    assert OnnxPrefix(spec, tmp_path / "prefix.onnx")(pixels(5, SIDE)).shape == (5, spec.width)


def test_features_of_torch_are_kept_apart_from_compiled_ones_by_precision(in_process):
    prefix = compile_prefix(locate(NAME), image_size=SIDE).wait()
    from headstart.features.extract import fingerprint

    before = fingerprint(prefix, prefix.spec.preprocess)
    prefix.precision = "bfloat16"
    assert fingerprint(prefix, prefix.spec.preprocess) != before


# Devices


def test_the_device_can_be_named(monkeypatch):
    monkeypatch.setenv("HEADSTART_DEVICE", " CUDA ")
    assert accelerator() == "cuda"
    monkeypatch.setenv("HEADSTART_DEVICE", "tpu")
    with pytest.raises(SettingError, match="HEADSTART_DEVICE is 'tpu'") as caught:
        accelerator()
    assert "cpu, cuda, mps" in caught.value.expected


def test_without_a_device_torch_is_not_asked(monkeypatch):
    monkeypatch.delenv("HEADSTART_DEVICE")
    monkeypatch.setattr(device.Path, "glob", lambda *_: iter(()))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert accelerator() == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_features_on_a_gpu_are_near_those_of_the_cpu(monkeypatch, prefix, pictures):
    from headstart.records import Sample

    monkeypatch.setenv("HEADSTART_DEVICE", "cuda")
    on_gpu = compile_prefix(locate("efficientnet-lite0")).wait()
    samples = [Sample(id=path.name, item=path) for path in sorted((pictures / "rings").iterdir())]
    ours, theirs = (extract(used, used.spec.preprocess, samples) for used in (prefix, on_gpu))
    assert on_gpu.precision == "bfloat16"
    similar = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(ours.features(), theirs.features(), strict=True)
    ]
    assert min(similar) > 0.99
