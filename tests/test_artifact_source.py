"""The user's own model as the source of another, and networks trained from scratch."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import headstart
from headstart.api.use import embed
from headstart.backbones import locate, open_backbone
from headstart.backbones.catalog import find_source
from headstart.cli.backbones import show_backbones
from headstart.errors import BackboneError
from headstart.features import compile_prefix

ARCH = "random:test_resnet"


@pytest.fixture(scope="module", autouse=True)
def one_thread(compiling_here):
    """Networks as small as these only wait for a second thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def plain(pictures, tmp_path_factory):
    """A model on an untrained network that stayed as it is."""
    folder = tmp_path_factory.mktemp("plain") / "plain.hs"
    return headstart.fit(pictures, out=folder, backbone=ARCH, strategy="extract", image_size=64, geometry="squash")


@pytest.fixture(scope="module")
def big(pictures, tmp_path_factory):
    """A network trained from scratch and saved, not to be changed."""
    folder = tmp_path_factory.mktemp("big") / "big.hs"
    options = {"image_size": 64, "epochs": 4, "batch_size": 8, "geometry": "squash", "seed": 0}
    return headstart.fit(pictures, out=folder, backbone=ARCH, strategy="full", **options)


@pytest.fixture(scope="module")
def few(draw_folder, tmp_path_factory):
    """Other pictures of three of the classes, split by folder."""
    folder = tmp_path_factory.mktemp("few")
    draw_folder(folder / "train", per_class=14, first=50, classes=("rings", "stripes", "checks"))
    draw_folder(folder / "test", per_class=6, first=70, classes=("rings", "stripes", "checks"))
    return folder


@pytest.fixture(scope="module")
def small(big, few, tmp_path_factory):
    """A model on the last block's tuning of a copy of `big`; the copy is gone since."""
    place = tmp_path_factory.mktemp("small")
    shutil.copytree(big.folder, place / "source.hs")
    model = headstart.fit(
        few, out=place / "small.hs", backbone=f"artifact:{place}/source.hs", strategy="last:1", epochs=2, geometry="squash"
    )
    shutil.rmtree(place / "source.hs")
    return model


def copied(model, folder):
    return shutil.copytree(model.folder, folder / "copy.hs")


def edit_manifest(folder, **changes):
    path = folder / "headstart.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# From scratch


def test_a_random_network_trains_whole_and_learns_its_statistics(big):
    plan = big.report.content["tuning"]["attempts"][-1]["plan"]
    assert plan["norm_statistics"] == "updated"
    assert plan["interpolations"] == [1.0]
    assert big.manifest.strategy == "full"
    changes = load_file(big.folder / "tail.safetensors")
    network = open_backbone(ARCH, image_size=64).network.network
    own = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    assert set(changes) == set(own)
    moved = [name for name in changes if name.endswith(("running_mean", "running_var"))]
    assert moved
    assert all(np.isfinite(changes[name]).all() and not np.array_equal(changes[name], own[name]) for name in moved)
    assert all(int(changes[name]) > 0 for name in changes if name.endswith("num_batches_tracked"))
    losses = [epoch["train_loss"] for epoch in big.report.content["tuning"]["attempts"][-1]["history"]]
    # It begins knowing nothing, whatever was solved on the untrained features: at the logarithm of four classes.
    assert losses[0] == pytest.approx(np.log(4), abs=0.3)
    assert losses[-1] < losses[0] - 0.2
    test = big.report.content["summary"]["test"]
    assert test["accuracy"] >= 0.4


def test_what_was_trained_from_scratch_predicts_without_torch(big, pictures, run_python):
    item = sorted((pictures / "rings").iterdir())[0]
    done = run_python(
        "import sys, headstart\n"
        "print(headstart.load(sys.argv[1]).predict([sys.argv[2]])[0].probability)\n"
        "assert 'torch' not in sys.modules",
        big.folder,
        item,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(big.predict([item])[0].probability, abs=1e-5)


# As the source


def test_a_saved_model_gives_its_tuned_backbone(big, pictures):
    name = f"artifact:{big.folder}"
    backbone = open_backbone(name)
    assert (backbone.info.name, backbone.info.base, backbone.info.tuned) == (name, ARCH, True)
    assert backbone.preprocess.image_size == 64
    changes = load_file(big.folder / "tail.safetensors")
    for tensor_name, tensor in backbone.network.network.state_dict().items():
        assert np.array_equal(tensor.numpy(), changes[tensor_name])
    assert backbone.info.base_sha256 == open_backbone(ARCH, image_size=64).info.sha256 == big.manifest.backbone["sha256"]


def test_features_of_a_saved_model_are_those_it_predicts_with(big, pictures):
    items = sorted((pictures / "rings").iterdir())[:5]
    table = embed([str(item) for item in items], backbone=f"artifact:{big.folder}", geometry="squash")
    head = load_file(big.folder / "head.safetensors")
    features = table.features(big.manifest.block)
    scores = (features @ head["weight"].T + head["bias"]) / head["temperatures"]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    wanted = odds / odds.sum(axis=1, keepdims=True)
    said = np.array([[p.probabilities[label] for label in big.labels] for p in big.predict(items)])
    assert np.allclose(said, wanted, atol=2e-3)


def test_features_of_a_saved_model_are_those_of_its_network_in_torch(big, pictures):
    backbone = open_backbone(f"artifact:{big.folder}")
    preprocess = backbone.preprocess.with_geometry("squash")
    items = sorted((pictures / "rings").iterdir())[:3]
    table = embed([str(item) for item in items], backbone=f"artifact:{big.folder}", geometry="squash")
    pixels = np.stack([preprocess(item, name=str(item)) for item in items])
    with torch.no_grad():
        wanted = backbone(torch.from_numpy(pixels)).numpy()
    assert np.allclose(table.features("last"), wanted, rtol=1e-3, atol=1e-4)


def test_a_tuned_source_is_no_untrained_network(big, few):
    model = headstart.fit(few, backbone=f"artifact:{big.folder}", strategy="extract", geometry="squash")
    assert model.manifest.backbone["name"] == f"artifact:{big.folder}"
    assert model.manifest.backbone["base"] == ARCH
    assert model.manifest.preprocess["image_size"] == 64
    assert model.manifest.strategy == "extract"
    # The tuned weights come along, so that the model can be a source in its turn.
    assert (model.folder / "tail.safetensors").read_bytes() == (big.folder / "tail.safetensors").read_bytes()


def test_the_image_size_of_a_source_is_kept_apart_from_that_of_its_base(plain):
    name = f"artifact:{plain.folder}"
    assert compile_prefix(locate(ARCH)).wait().spec.preprocess.image_size == 160
    prefix = compile_prefix(locate(name)).wait()
    assert prefix.spec.preprocess.image_size == 64
    assert prefix.spec.info.name == name
    assert not prefix.spec.info.tuned
    assert compile_prefix(locate(ARCH)).wait().spec.info.name == ARCH


def test_a_model_that_was_only_extracted_is_its_plain_backbone(plain):
    first, again = open_backbone(ARCH, image_size=64), open_backbone(f"artifact:{plain.folder}")
    assert again.info.sha256 == first.info.sha256
    assert not (plain.folder / "tail.safetensors").exists()
    batch = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first(batch), again(batch))


# Self-contained, and in chains


def test_a_model_of_a_saved_model_needs_its_source_no_more(big, small, few):
    changes, before = (load_file(model.folder / "tail.safetensors") for model in (small, big))
    differing = {name for name in before if not np.array_equal(before[name], changes[name])}
    assert set(changes) == set(before)
    assert differing
    assert all(name.startswith("layer4.") for name in differing)
    opened = headstart.load(small.folder)
    item = sorted((few / "test" / "rings").iterdir())[0]
    assert opened.predict([item])[0].probabilities == small.predict([item])[0].probabilities


def test_a_chain_of_sources_ends_at_the_first_backbone(small, few, tmp_path):
    third = headstart.fit(
        few, out=tmp_path / "third.hs", backbone=f"artifact:{small.folder}", strategy="extract", geometry="squash"
    )
    assert third.manifest.backbone["base"] == ARCH
    assert third.manifest.backbone["name"] == f"artifact:{small.folder}"
    assert (third.folder / "tail.safetensors").read_bytes() == (small.folder / "tail.safetensors").read_bytes()
    moved = shutil.move(third.folder, tmp_path / "moved.hs")
    fourth, second = open_backbone(f"artifact:{moved}"), open_backbone(f"artifact:{small.folder}")
    assert fourth.info.sha256 == second.info.sha256
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fourth(batch), second(batch))


def test_a_model_may_replace_its_own_source(small, few, tmp_path):
    folder = copied(small, tmp_path)
    model = headstart.fit(few, out=folder, backbone=f"artifact:{folder}", strategy="extract", geometry="squash", overwrite=True)
    assert model.folder == folder
    assert headstart.load(folder).manifest.strategy == "extract"
    assert (folder / "tail.safetensors").read_bytes() == (small.folder / "tail.safetensors").read_bytes()


# Named


def test_the_listing_says_that_a_saved_model_can_be_named(capsys):
    show_backbones(as_json=False)
    assert "artifact:PATH" in capsys.readouterr().out
    show_backbones(as_json=True)
    assert "artifact:…" in json.loads(capsys.readouterr().out)["by_name"]


def test_the_listing_leaves_tuned_networks_out(big, plain, capsys):
    for name in (f"artifact:{big.folder}", f"artifact:{plain.folder}"):
        compile_prefix(locate(name)).wait()
    show_backbones(as_json=True)
    listed = json.loads(capsys.readouterr().out)["compiled"]
    assert ARCH in listed
    assert not [name for name in listed if name.startswith("artifact:")]


# Bad input


def test_no_folder(tmp_path):
    with pytest.raises(BackboneError, match="is no saved model: there is nothing there") as caught:
        locate(f"artifact:{tmp_path}/none.hs")
    assert "headstart fit --out" in caught.value.expected


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(BackboneError, match=r"is no saved model: it holds no headstart\.json"):
        locate(f"artifact:{tmp_path}")
    with pytest.raises(BackboneError, match="there is no backbone called 'artifact:'"):
        locate("artifact:")


def test_a_model_named_as_a_checkpoint_is_recognised(plain):
    with pytest.raises(BackboneError, match="holds no weights") as caught:
        locate(f"file:{plain.folder}")
    assert f"artifact:{plain.folder}" in caught.value.mend


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"backbone": 3, "files": {}}', "\x00"])
def test_a_damaged_manifest(big, tmp_path, text):
    folder = copied(big, tmp_path)
    (folder / "headstart.json").write_text(text)
    with pytest.raises(BackboneError, match=r"headstart\.json cannot be read") as caught:
        locate(f"artifact:{folder}")
    assert "copy the whole folder again" in caught.value.mend


def test_damaged_tuned_weights(big, few, tmp_path):
    folder = copied(big, tmp_path)
    path = folder / "tail.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=r"tail\.safetensors is not what was saved: its sha256 differs"):
        headstart.fit(few, out=tmp_path / "out.hs", backbone=f"artifact:{folder}")
    path.unlink()
    with pytest.raises(BackboneError, match="it is gone"):
        headstart.fit(few, out=tmp_path / "out.hs", backbone=f"artifact:{folder}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.hs"]


def with_changes(folder, content):
    """Put other tuned weights into a saved model, as if they were its own."""
    (folder / "tail.safetensors").write_bytes(content)
    files = json.loads((folder / "headstart.json").read_text())["files"]
    edit_manifest(folder, files=files | {"tail.safetensors": hashlib.sha256(content).hexdigest()})


def test_tuned_weights_that_are_no_tensors(big, tmp_path):
    folder = copied(big, tmp_path)
    with_changes(folder, b"no tensors at all")
    with pytest.raises(BackboneError, match=r"the tuned weights in .*tail\.safetensors cannot be read"):
        open_backbone(f"artifact:{folder}")


def test_tuned_weights_of_another_network(big, tmp_path):
    folder = copied(big, tmp_path)
    save_file({"layer4.0.conv1.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    with_changes(folder, (tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(BackboneError, match=r"do not fit the backbone: 1 tensors, first 'layer4\.0\.conv1\.weight'"):
        open_backbone(f"artifact:{folder}")


def test_a_base_that_is_no_longer_what_was_tuned(big, tmp_path):
    folder = copied(big, tmp_path)
    edit_manifest(folder, backbone=big.manifest.backbone | {"sha256": "0" * 64, "base_sha256": "0" * 64})
    with pytest.raises(BackboneError, match="are not those it was tuned from") as caught:
        open_backbone(f"artifact:{folder}")
    assert ARCH in caught.value.what


def test_a_base_that_is_gone(big, tmp_path):
    folder = copied(big, tmp_path)
    edit_manifest(folder, backbone=big.manifest.backbone | {"name": f"file:{tmp_path}/lost.pth#resnet50", "base": ""})
    with pytest.raises(BackboneError, match=r"as it was tuned, and that cannot be had: .*nothing at .*lost\.pth"):
        locate(f"artifact:{folder}")


def test_a_model_that_names_itself_as_its_base(big, tmp_path):
    folder = copied(big, tmp_path)
    edit_manifest(folder, backbone=big.manifest.backbone | {"name": f"artifact:{folder}", "base": ""})
    with pytest.raises(BackboneError, match="which should be the one that was tuned first"):
        locate(f"artifact:{folder}")


def test_a_model_of_another_modality(big, few, tmp_path):
    folder = copied(big, tmp_path)
    edit_manifest(folder, modality="text")
    assert find_source(f"artifact:{folder}").modality == "text"
    with pytest.raises(BackboneError, match="takes text items, and these are image items"):
        headstart.fit(few, out=tmp_path / "out.hs", backbone=f"artifact:{folder}")
    assert not (tmp_path / "out.hs").exists()
