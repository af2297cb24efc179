"""Saved models: verified file by file, replayed, and answering as the head did on the features."""

import dataclasses
import hashlib
import json
import shutil
import struct
import zipfile

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from scipy.special import expit, softmax

from headstart import load
from headstart.artifact.graph import Answer, assemble
from headstart.artifact.store import make_self_test, read_manifest, replace_file, write
from headstart.backbones import open_backbone
from headstart.errors import ArtifactError
from headstart.features import export
from headstart.features.prefix import OnnxPrefix
from headstart.heads.linear import LinearHead
from headstart.inference import open_session
from headstart.model.manifest import FORMAT, Manifest

SIDE, LABELS = 64, ("a", "b", "c")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small compiled prefix."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("prefix") / "prefix.onnx"
    spec = export.export(open_backbone("random:test_resnet", image_size=SIDE), path)
    torch.set_num_threads(before)
    return OnnxPrefix(spec, path)


def pictures_of(count, seed=0):
    """Coloured noise of several grains and sizes."""
    random = np.random.default_rng(seed)
    drawn = []
    for number in range(count):
        wide, high = (int(side) for side in random.integers(70, 200, 2))
        coarse = random.integers(0, 256, (high // (4 + 3 * number), wide // (4 + 3 * number), 3), np.uint8)
        drawn.append(Image.fromarray(coarse).resize((wide, high), Image.Resampling.BICUBIC))
    return drawn


def answer_for(prefix, task, *, block="last", flips=False, seed=0):
    random = np.random.default_rng(seed)
    columns = prefix.spec.columns(block)
    num_outputs = 1 if task == "value" else len(LABELS)
    features = np.stack([prefix(prefix.spec.preprocess(picture)[None])[0, columns] for picture in pictures_of(8, seed=9)])
    weight = random.standard_normal((num_outputs, columns.stop - columns.start)) / features.std() / np.sqrt(features.shape[1])
    head = LinearHead(
        kind="ridge",
        weight=weight.astype(np.float32),
        bias=(random.standard_normal(num_outputs) - weight @ features.mean(0)).astype(np.float32),
    )
    temperatures = (
        random.uniform(0.5, 2, num_outputs) if task == "multi" else np.full(num_outputs, 1.0 if task == "value" else 1.7)
    )
    return Answer(
        width=prefix.spec.width,
        inputs=("pixels",),
        columns=(columns,),
        flips=flips,
        head=head,
        temperatures=temperatures,
        task=task,
    )


def by_hand(prefix, answer, batch):
    """The answer in float64 numpy, from the prefix's features."""
    features = prefix(batch).astype(np.float64)
    if answer.flips:
        features = (features + prefix(np.ascontiguousarray(batch[..., ::-1]))) / 2
    scores = features[:, answer.columns[0]] @ answer.head.weight.T.astype(np.float64) + answer.head.bias
    match answer.task:
        case "single":
            return softmax(scores / answer.temperatures, axis=1)
        case "multi":
            return expit(scores / answer.temperatures)
    return scores


def write_small_model(folder, prefix, task, **changes):
    """A saved model of the small prefix, without a fit."""
    answer = answer_for(prefix, task)
    network = assemble([prefix.model_path], answer)
    session = open_session(network, num_threads=1)
    self_test = make_self_test(
        prefix.spec.preprocess, pictures_of(3), lambda batch, items: session.run(None, {"pixels": batch})[0]
    )
    manifest = Manifest(
        **{
            "format": FORMAT,
            "headstart_version": "0.0.0",
            "created": "2030-01-01T00:00:00Z",
            "task": task,
            "modality": "image",
            "labels": () if task == "value" else LABELS,
            "thresholds": (0.5,) * len(LABELS),
            "preprocess": prefix.spec.preprocess.as_json(),
            "backbone": prefix.spec.info.as_json(),
            "strategy": "extract",
            "cut": "",
            "block": "last",
            "views": ("",),
            "settings": {},
            "packages": {},
            "files": {},
        }
        | changes
    )
    folder.mkdir()
    write(folder, manifest, {"model.onnx": network, "selftest.safetensors": self_test, "report.json": b'{"summary": {}}'})
    return folder


@pytest.fixture(scope="module")
def saved_once(small, tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("models") / "small.hs", small, "single")


@pytest.fixture
def saved(saved_once, tmp_path):
    """A small saved model of this test's own."""
    return shutil.copytree(saved_once, tmp_path / "small.hs")


def rewrite(folder, **changes):
    """Change headstart.json and its checksum, as somebody who knows how would."""
    manifest = read_manifest(folder)
    (folder / "headstart.json").write_text(dataclasses.replace(manifest, **changes).as_text())


def rewrite_file(folder, name, content):
    """Change a file and the checksum that headstart.json has of it."""
    (folder / name).write_bytes(content)
    rewrite(folder, files=read_manifest(folder).files | {name: hashlib.sha256(content).hexdigest()})


# The network


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("block", ["last", "multi", "layer2"])
@pytest.mark.parametrize("task", ["single", "multi", "value"])
def test_network_answers_as_the_head_on_the_features(small, task, block, flips):
    answer = answer_for(small, task, block=block, flips=flips, seed=3)
    before = small.model_path.read_bytes()
    network = assemble([small.model_path], answer)
    assert small.model_path.read_bytes() == before
    onnx.checker.check_model(onnx.load_model_from_string(network))
    session = open_session(network, num_threads=1)
    batch = small.spec.preprocess.normalise(np.stack([small.spec.preprocess.pixels(picture) for picture in pictures_of(6)]))
    for size in (1, 6):
        (found,) = session.run(None, {"pixels": batch[:size]})
        wanted = by_hand(small, answer, batch[:size])
        assert found.shape == wanted.shape
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * max(1, np.abs(wanted).max()))
    assert np.ptp(found, axis=0).min() > 0.01, "the test would not notice a network that answers always the same"


# Verified on opening


def test_every_file_is_verified(artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "copy.hs")
    names = sorted(path.name for path in folder.iterdir())
    assert set(names) == {*read_manifest(folder).files, "headstart.json"}
    load(folder)
    for name in set(names) - {"README.md", "report.html"}:
        content = (folder / name).read_bytes()
        for place in (0, len(content) // 2, len(content) - 2):
            (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(ArtifactError, match=name.replace(".", r"\.")) as caught:
                load(folder)
            assert str(folder) in caught.value.what
            assert "copy the whole folder again" in caught.value.mend
        (folder / name).write_bytes(content[:-3])
        with pytest.raises(ArtifactError):
            load(folder)
        (folder / name).write_bytes(content)
    load(folder)


def test_what_is_for_people_may_be_edited_or_removed(saved):
    for name in ("README.md", "report.html"):
        (saved / name).write_text("# My notes on this model")
        assert load(saved).labels == LABELS
    (saved / "README.md").unlink()
    (saved / "report.html").unlink()
    copied = load(saved).save(saved.parent / "copy.hs")
    assert load(copied).labels == LABELS
    assert not (copied / "README.md").exists()


def test_every_byte_of_the_manifest_counts(saved):
    content = (saved / "headstart.json").read_bytes()
    for place in range(0, len(content) - 1, 3):
        (saved / "headstart.json").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtifactError, match=r"headstart\.json|has format"):
            read_manifest(saved)


def test_a_missing_file_is_named(saved):
    for name in ("model.onnx", "selftest.safetensors", "report.json"):
        (saved / name).rename(saved.parent / name)
        with pytest.raises(ArtifactError, match=f"lacks {name}"):
            load(saved)
        (saved.parent / name).rename(saved / name)
    (saved / "headstart.json").unlink()
    with pytest.raises(ArtifactError, match=r"holds no headstart\.json"):
        load(saved)


def test_a_newer_format_says_to_upgrade(saved):
    told = json.loads((saved / "headstart.json").read_text())
    for text in (json.dumps(told | {"format": 99}), '{"format": 99, "all else": "is another story"}'):
        (saved / "headstart.json").write_text(text)
        with pytest.raises(ArtifactError, match=f"has format 99, and this headstart reads up to {FORMAT}") as caught:
            load(saved)
        assert "pip install --upgrade headstart" in caught.value.mend


def test_what_is_no_saved_model_is_told_so(tmp_path):
    with pytest.raises(ArtifactError, match="there is nothing there"):
        load(tmp_path / "nowhere.hs")
    (tmp_path / "file.hs").write_text("{}")
    (tmp_path / "folder.hs").mkdir()
    for name in ("file.hs", "folder.hs"):
        with pytest.raises(ArtifactError, match="is no saved model") as caught:
            load(str(tmp_path / name))
        assert "headstart fit --out" in caught.value.expected


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "7", '"text"', "{}", '{"format": null}', '{"format": "one"}', '{"format": 1}', "\udcff", "[" * 100_000],
)
def test_manifests_that_are_none(saved, text):
    (saved / "headstart.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"headstart\.json"):
        load(saved)


@pytest.mark.parametrize(
    "name", ["../stolen", "/etc/hostname", "deeper/file", "..", ".", "", "a\0b", "C:\\file", "\\\\host\\share", "model.onnx/"]
)
def test_names_that_lead_out_of_the_folder_are_refused(saved, name):
    (saved.parent / "stolen").write_bytes(b"secret")
    rewrite(saved, files=read_manifest(saved).files | {name: hashlib.sha256(b"secret").hexdigest()})
    with pytest.raises(ArtifactError):
        load(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": 5},
        {"labels": ("a", "b")},
        {"labels": ("a", "b", "c", "d")},
        {"labels": ("a", "b", "a")},
        {"labels": ("a", "b", 3)},
        {"thresholds": (0.5,)},
        {"thresholds": None},
        {"views": 1},
        {"files": []},
        {"files": {}},
        {"task": "poetry"},
        {"preprocess": {}},
        {"preprocess": None},
        {"preprocess": {"kind": "sound"}},
        {"format": 8.5},
        {"format": float("inf")},
        {"format": True},
        {"format": 10**400},
        {"thresholds": (0.5, float("nan"), 0.5)},
        {"thresholds": (0.5, 10**400, 0.5)},
        {"settings": {"epochs": 10**400}},
        {"packages": {"numpy": -(10**30)}},
    ],
)
def test_settings_that_do_not_fit_are_refused(saved, change):
    told = json.loads((saved / "headstart.json").read_text())
    told = {name: value for name, value in told.items() if name != "checksum"} | change
    told["checksum"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    (saved / "headstart.json").write_text(json.dumps(told))
    with pytest.raises(ArtifactError):
        load(saved)


@pytest.mark.parametrize("name", ["model.onnx", "selftest.safetensors", "report.json"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"[1, 2", b"\xff" * 64])
def test_files_that_were_replaced_with_their_checksum_end_in_an_error_in_words(saved, name, content):
    rewrite_file(saved, name, content)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        load(saved)


# The self-test


@pytest.mark.parametrize(
    "change",
    [
        {"geometry": "squash"},
        {"geometry": "pad"},
        {"image_size": 96},
        {"interpolation": "nearest"},
        {"crop_fraction": 0.5},
        {"mean": [0.0, 0.0, 0.0]},
        {"std": [1.0, 1.0, 1.0]},
    ],
)
def test_preprocessing_travels_with_the_model(saved, change):
    """Another preprocess, consistently checksummed, is found by replaying the golden items."""
    preprocess = read_manifest(saved).preprocess
    assert {name: preprocess[name] for name in change} != change
    rewrite(saved, preprocess=preprocess | change)
    with pytest.raises(ArtifactError, match="golden item 0") as caught:
        load(saved)
    assert "packages" in caught.value.mend


def test_another_network_is_found_by_the_self_test(saved, small):
    answer = answer_for(small, "single", seed=1)
    rewrite_file(saved, "model.onnx", assemble([small.model_path], answer))
    with pytest.raises(ArtifactError, match="golden item 0 gets another answer here"):
        load(saved)


def test_a_network_of_other_inputs_is_refused(saved):
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    rewrite_file(saved, "model.onnx", model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        load(saved)


def test_the_self_test_holds_small_pictures_and_survives_fewer_than_three(small, tmp_path):
    big = Image.effect_noise((900, 500), 90).convert("RGB")
    content = make_self_test(small.spec.preprocess, [big], lambda batch, items: batch.mean((2, 3)))
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert set(header) == {"item.0", "prepared.0", "answer.0"}
    folder = write_small_model(tmp_path / "model.hs", small, "single")
    rewrite_file(folder, "selftest.safetensors", make_self_test(small.spec.preprocess, [], lambda batch, items: batch))
    assert load(folder).labels == LABELS


# What is in the folder


def test_the_folder_holds_no_pickle(artifact):
    kinds = {".json", ".onnx", ".safetensors", ".html", ".md", ".csv"}
    for path in artifact.rglob("*"):
        content = path.read_bytes()
        assert path.suffix in kinds
        assert not zipfile.is_zipfile(path)
        assert not content.startswith(b"\x80")  # the first opcode of every pickle since protocol 2
        if path.suffix == ".safetensors":
            size = struct.unpack("<Q", content[:8])[0]
            assert isinstance(json.loads(content[8 : 8 + size]), dict)
        elif path.suffix != ".onnx":
            content.decode()
    kinds_of_steps = {node.domain for node in onnx.load(artifact / "model.onnx").graph.node}
    assert kinds_of_steps <= {"", "ai.onnx"}, "no operators of our own"


def test_the_manifest_says_where_the_model_came_from(artifact, prefix):
    manifest = read_manifest(artifact)
    assert manifest.labels == ("blobs", "checks", "rings", "stripes")
    assert manifest.backbone["sha256"] == prefix.spec.info.sha256
    assert manifest.backbone["licence"] == "apache-2.0"
    assert {"headstart", "numpy", "onnxruntime", "pillow", "torch", "timm"} <= set(manifest.packages)
    assert Manifest.from_text(manifest.as_text(), where="here") == manifest


def test_labels_of_any_text_come_back(saved):
    labels = ('comma, "quote"\nnewline', "<script>alert(1)</script>", "../😀\u2028")
    rewrite(saved, labels=labels)
    assert load(saved).labels == labels


def test_replacing_one_file_keeps_the_model_sound(saved):
    replace_file(saved, "report.html", b"<p>new</p>")
    replace_file(saved, "report.html", b"<p>newer</p>")
    assert (saved / "report.html").read_bytes() == b"<p>newer</p>"
    assert load(saved).manifest.files["report.html"] == hashlib.sha256(b"<p>newer</p>").hexdigest()
    with pytest.raises(ArtifactError, match="is no saved model"):
        replace_file(saved.parent, "report.html", b"")
    assert not (saved.parent / "report.html").exists()


def test_other_files_in_the_folder_do_no_harm(saved):
    (saved / "notes.txt").write_text("mine")
    (saved / "logs").mkdir()
    assert load(saved).labels == LABELS
