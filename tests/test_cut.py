"""The cut as training uses it: prefix, tail and whole give the same pooled features, for architectures of every family."""

import copy
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import vgg
from torch import nn

from headstart.backbones import locate, open_backbone, pooling
from headstart.backbones.backbone import Backbone
from headstart.backbones.catalog import find_source, open_source
from headstart.backbones.pooling import PooledBlocks, PooledPrefix, PooledTail
from headstart.errors import BackboneError
from headstart.features import compile_prefix, export
from headstart.features.prefix import STATE, OnnxPrefix, PrefixSpec
from headstart.select.tuned import cut_before
from headstart.tuning.network import TrainedHead, TunableNetwork, parameters_by_block
from headstart.tuning.optimiser import make_optimiser, unfreeze
from headstart.tuning.plan import TuningPlan

# Each with a side in pixels as small as it bears, but for those whose last map would then be a single place.
ARCHITECTURES = {
    "efficientnet-lite0": 64,
    "random:efficientnet_b0": 32,
    "random:mobilenetv2_100": 64,
    "random:mobilenetv3_small_100": 64,
    "random:vgg19": 32,
    "random:inception_v3": 75,
    "random:inception_v4": 75,
    "random:legacy_xception": 32,
    "random:resnet50": 32,
    "random:densenet121": 64,
    "random:regnety_002": 64,
    "random:convnext_atto": 64,
    "random:vit_tiny_patch16_224": 32,
    "random:vit_small_patch14_dinov2": 28,
    "random:swin_tiny_patch4_window7_224": 32,
    # Nobody named these when the way of cutting was thought out.
    "random:ghostnet_100": 32,
    "random:poolformer_s12": 32,
    "random:hrnet_w18_small": 32,
    "random:xcit_nano_12_p16_224": 32,
    # Blocks that share weights with each other.
    "random:edgenext_small": 64,
    "random:coat_lite_tiny": 64,
    "random:vit_srelpos_small_patch16_224": 32,
}
LONG = {
    "random:inception_v3",
    "random:inception_v4",
    "random:legacy_xception",
    "random:vit_small_patch14_dinov2",
    "random:hrnet_w18_small",
    "random:xcit_nano_12_p16_224",
    "random:coat_lite_tiny",
}
# A kind of network each. That the names of tensors are timm's own, at every block, is asked of every architecture.
REOPENED = (
    "efficientnet-lite0",
    "random:mobilenetv3_small_100",
    "random:resnet50",
    "random:densenet121",
    "random:convnext_atto",
    "random:vit_tiny_patch16_224",
    "random:swin_tiny_patch4_window7_224",
    "random:coat_lite_tiny",
    "random:vit_srelpos_small_patch16_224",
)
SHARING = {"random:coat_lite_tiny", "random:vit_srelpos_small_patch16_224"}
COMPILED = (
    "efficientnet-lite0",
    "random:densenet121",
    "random:convnext_atto",
    "random:vit_tiny_patch16_224",
    "random:swin_tiny_patch4_window7_224",
)


class Opened(NamedTuple):
    backbone: Backbone
    pixels: torch.Tensor
    whole: torch.Tensor
    """Features by the whole network."""
    parameter_names: set[str]
    """As timm's own untraced network has them."""
    state_names: set[str]
    """Those of all tensors that it saves."""

    @property
    def name(self):
        return self.backbone.info.name

    @property
    def middle(self):
        """A block with blocks with weights on both sides of it."""
        if self.name == "random:coat_lite_tiny":
            return "cpe1"  # shared with a block behind it
        return cut_before(self.backbone, f"last:{max(1, sum(bool(b.num_parameters) for b in self.backbone.info.blocks) // 2)}")


def parametrize(names):
    given = [
        pytest.param(name, id=name.replace("random:", ""), marks=[pytest.mark.long] if name in LONG else []) for name in names
    ]
    return pytest.mark.parametrize("opened", given, indirect=True)


EVERY = parametrize(ARCHITECTURES)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def opened(request):
    """A backbone, opened once for all tests of it, whose pooling is found once."""
    with pytest.MonkeyPatch.context() as patch:
        # The layers of a VGG as they are, with a sixteenth of the channels: copying its weights is all that takes long.
        patch.setitem(vgg.cfgs, "vgg19", [part if part == "M" else part // 16 for part in vgg.cfgs["vgg19"]])
        backbone = open_backbone(request.param, image_size=ARCHITECTURES[request.param])
        side = backbone.preprocess.image_size
        found, find = pooling.find_pooling(backbone), pooling.find_pooling
        patch.setattr(pooling, "find_pooling", lambda other: found if other is backbone else find(other))
        # Of another size than those of the tracing: what a transformer carries along must follow the batch.
        pixels = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            whole = PooledBlocks(backbone)(pixels)
        yield Opened(backbone, pixels, whole, *own_names(backbone))


def split_state(rows, tail):
    """State and pooled features out of what a prefix gives."""
    columns = math.prod(tail.state_shape)
    return rows[:, :columns].reshape(len(rows), *tail.state_shape), rows[:, columns:]


def own_names(backbone):
    """Names of parameters, and of all tensors, as timm's own untraced network has them."""
    with torch.device("meta"):
        architecture = backbone.info.architecture
        size = backbone.preprocess.image_size
        fixed = {"img_size": size} if timm.get_pretrained_cfg(architecture).fixed_input_size else {}
        network = timm.create_model(architecture, pretrained=False, num_classes=0, **fixed)
    return {name for name, _ in network.named_parameters()}, set(network.state_dict())


def make_trainable(opened, cut, norm_statistics="kept"):
    tail = PooledTail(opened.backbone, cut)
    random = np.random.default_rng(0)
    features = opened.whole.numpy()
    head = TrainedHead(features, nn.Sequential(nn.Linear(features.shape[1], 3)))
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.from_numpy(random.normal(size=(3, features.shape[1])) / 30))
    return TunableNetwork(tail, head, columns=slice(0, features.shape[1]), norm_statistics=norm_statistics)


def step(network, inputs, *, steps=1, **changes):
    """Steps of the optimiser that the trainer uses."""
    numbers = {"strategy": "last:2", "epochs": 1, "batch_size": 4, "head_rate": 1e-3, "backbone_rate": 1e-3} | changes
    optimiser = make_optimiser(network, TuningPlan(**numbers))
    network.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(*inputs), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert torch.isfinite(loss)


def bytes_of(tensors):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors}


# Every block of every architecture


@EVERY
def test_tail_after_prefix_equals_the_whole_at_every_block_but_the_last(opened):
    backbone, pixels, whole = opened.backbone, opened.pixels, opened.whole
    assert torch.isfinite(whole).all()
    assert len(backbone.blocks) > 2
    weights = {block.name: block.num_parameters for block in backbone.info.blocks}
    with torch.no_grad():
        for place, block in enumerate(backbone.blocks[:-1]):
            prefix, tail = PooledPrefix(backbone, block), PooledTail(backbone, block).eval()
            again = tail(*split_state(prefix(pixels), tail))
            # Untrained networks without trained statistics may blow numbers up; 1e-5 is of the largest then.
            torch.testing.assert_close(again, whole, rtol=0, atol=1e-5 * max(1.0, float(whole.abs().max())), msg=block)
            # Saved tensors are found again by these names.
            assert set(tail.network.state_dict()) <= opened.state_names, block
            assert {name for name, _ in tail.network.named_parameters()} <= opened.parameter_names, block
            # Each weight is in one block, in the blocks' order; a weight that the prefix uses too is not trained.
            by_block = parameters_by_block(tail.network)
            named = dict(tail.network.named_parameters())
            assert sorted(name for names in by_block for name in names) == sorted(named), block
            trained = [sum(named[name].numel() for name in names if named[name].requires_grad) for names in by_block]
            behind = [weights[name] for name in backbone.blocks[place + 1 :]]
            assert [count for count in trained if count] == [count for count in behind if count], block
            shared = {name for name, parameter in named.items() if not parameter.requires_grad}
            assert shared == set(named) & {name for name, _ in prefix.network.network.named_parameters()}, block


@EVERY
def test_the_tail_of_no_cut_is_the_whole_network_and_takes_pixels(opened):
    backbone, pixels, whole = opened.backbone, opened.pixels, opened.whole
    tail = PooledTail(backbone, None).eval()
    assert tail.state_shape is None
    with torch.no_grad():
        torch.testing.assert_close(tail(pixels, torch.empty(len(pixels), 0)), whole, rtol=1e-6, atol=1e-5)
    assert {name for name, _ in tail.network.named_parameters()} <= opened.parameter_names
    assert set(tail.network.state_dict()) <= opened.state_names
    trained = [name for names in parameters_by_block(tail.network) for name in names]
    assert sorted(trained) == sorted(name for name, _ in tail.network.named_parameters())
    assert all(parameter.requires_grad for parameter in tail.parameters())
    assert sum(block.num_parameters for block in backbone.info.blocks) == sum(p.numel() for p in tail.parameters())


@EVERY
def test_frozen_weights_and_statistics_are_the_same_bytes_after_training(opened):
    """The prefix whatever is called on it, the source, and of the tail the statistics and what it shares with the prefix."""
    backbone, pixels = opened.backbone, opened.pixels
    prefix = PooledPrefix(backbone, opened.middle)
    network = make_trainable(opened, opened.middle)
    frozen = [*network.named_buffers(), *((n, p) for n, p in network.named_parameters() if not p.requires_grad)]
    before = bytes_of(backbone.network.state_dict().items()), bytes_of(prefix.state_dict().items()), bytes_of(frozen)
    with torch.no_grad():
        plain, shifted = prefix(pixels), prefix(pixels + 5)
        prefix.train()
        torch.testing.assert_close(prefix(pixels + 5), shifted, rtol=0, atol=0)
    trained = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    step(network, split_state(shifted, network.tail))
    after = bytes_of(backbone.network.state_dict().items()), bytes_of(prefix.state_dict().items()), bytes_of(frozen)
    assert after == before
    # Behind an untrained norm whose factor is 0 nothing has a gradient yet; the others must have moved.
    moved = {name for name, parameter in network.named_parameters() if name in trained and not parameter.equal(trained[name])}
    assert all(any(name in moved for name in names) for names in network.blocks())
    assert "head.layers.0.weight" in moved
    with torch.no_grad():
        torch.testing.assert_close(prefix(pixels), plain, rtol=0, atol=0)


@parametrize(REOPENED)
def test_changed_weights_saved_and_opened_again_give_the_same_features(opened, tmp_path):
    backbone, pixels, whole = opened.backbone, opened.pixels, opened.whole
    with torch.no_grad():
        prefix = PooledPrefix(backbone, opened.middle)
        network = make_trainable(opened, opened.middle, norm_statistics="updated")
        inputs = split_state(prefix(pixels), network.tail)
    step(network, inputs, backbone_rate=1e-4)
    network.eval()
    source = backbone.network.network.state_dict()
    changed = {
        name: tensor.contiguous()
        for name, tensor in network.tail.network.state_dict().items()
        if not torch.equal(tensor, source[name])
    }
    save_file(changed, tmp_path / "tail.safetensors")
    located = find_source(opened.name).with_changes(tmp_path / "tail.safetensors")
    tuned = open_source(located, image_size=backbone.preprocess.image_size)
    with torch.no_grad():
        wanted, found = network.tail(*inputs), PooledBlocks(tuned)(pixels)
    assert found.shape == wanted.shape
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * scale)
    assert not torch.allclose(found, whole, rtol=0, atol=1e-5 * scale)
    assert tuned.info.sha256 != backbone.info.sha256


# Weights that blocks share


@parametrize(sorted(SHARING))
def test_what_prefix_and_tail_share_stays_frozen_even_when_blocks_thaw_in_turn(opened):
    network = make_trainable(opened, opened.middle)
    shared = {name for name, parameter in network.tail.named_parameters() if not parameter.requires_grad}
    assert shared
    epochs = len(network.blocks()) + 1
    numbers = {"strategy": "last:2", "epochs": epochs, "batch_size": 4, "head_rate": 1e-3, "backbone_rate": 1e-3}
    plan = TuningPlan(**numbers, unfreeze_every=1)
    thawed = []
    for epoch in range(epochs):
        unfreeze(network, plan, epoch)
        thawed.append(sum(parameter.requires_grad for parameter in network.tail.parameters()))
    assert thawed == sorted(set(thawed)) and thawed[0] == 0
    assert {name for name, parameter in network.tail.named_parameters() if not parameter.requires_grad} == shared


# Compiled


@parametrize(COMPILED)
def test_the_compiled_prefix_gives_state_and_pooled_features(opened, tmp_path):
    backbone, pixels = opened.backbone, opened.pixels
    path = tmp_path / "prefix.onnx"
    spec = export.export(backbone, path, cut=opened.middle)
    assert (spec.why_torch, spec.cut) == ("", opened.middle)
    assert spec.relative_error <= 1e-4
    assert PrefixSpec.from_json(spec.as_json(), spec.preprocess.assets.__getitem__) == spec
    with torch.no_grad():
        wanted = PooledPrefix(backbone, opened.middle)(pixels).numpy()
        found = OnnxPrefix(spec, path)(pixels.numpy())
        assert found.shape == wanted.shape == (len(pixels), spec.width)
        for part in spec.layout:
            columns = spec.columns(part.name)
            scale = float(np.abs(wanted[:, columns]).max()) or 1.0
            assert np.abs(found[:, columns] - wanted[:, columns]).max() <= 1e-4 * scale, part.name
        # Training goes on from what was compiled.
        tail = PooledTail(backbone, opened.middle).eval()
        assert spec.state_shape == tail.state_shape
        assert spec.columns(STATE) == slice(0, math.prod(spec.state_shape))
        again = tail(*split_state(torch.from_numpy(found), tail))
    scale = max(1.0, float(opened.whole.abs().max()))
    torch.testing.assert_close(again, opened.whole, rtol=0, atol=1e-4 * scale)


def test_each_cut_is_compiled_once_and_kept_apart(compiling_here, empty_cache):
    source = locate("random:test_resnet")
    whole = compile_prefix(source, image_size=64)
    cut = compile_prefix(source, image_size=64, cut="layer2")
    assert not whole.cached and not cut.cached
    prefixes = whole.wait(), cut.wait()
    assert [prefix.spec.cut for prefix in prefixes] == ["", "layer2"]
    assert compile_prefix(source, image_size=64, cut="layer2").cached
    assert len(list(Path(empty_cache, "compiled").iterdir())) == 2
    pixels = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    backbone = open_backbone("random:test_resnet", image_size=64)
    tail = PooledTail(backbone, "layer2").eval()
    with torch.no_grad():
        again = tail(*split_state(torch.from_numpy(prefixes[1](pixels)), tail)).numpy()
    np.testing.assert_allclose(again, prefixes[0](pixels), rtol=0, atol=1e-4 * max(1.0, np.abs(again).max()))


def test_a_cut_at_no_block_is_refused_by_the_process_that_compiles(tmp_path):
    asked = {"name": "random:test_resnet", "modality": "image", "changes": "", "image_size": 64, "cut": "layer9"}
    assert export.main([json.dumps(asked | {"folder": str(tmp_path), "target": str(tmp_path / "target")})]) == 2
    told = json.loads((tmp_path / "error.json").read_text())
    assert (told["kind"], "has no block 'layer9'" in told["what"]) == ("BackboneError", True)
    assert "stem, layer1, layer2, layer3, layer4, pool" in told["expected"]
    assert [path.name for path in tmp_path.iterdir()] == ["error.json"]


# Changes


@pytest.fixture(scope="module")
def small():
    return open_backbone("random:test_resnet", image_size=64)


def test_a_copy_of_the_tail_trains_alone(small):
    tail = PooledTail(small, "layer2")
    other = copy.deepcopy(tail)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    fresh = PooledTail(small, "layer2").state_dict()
    for name, tensor in tail.state_dict().items():
        torch.testing.assert_close(tensor, fresh[name], rtol=0, atol=0)


def test_changes_of_another_network_are_refused_by_the_first_tensor(small, tmp_path):
    path = tmp_path / "tail.safetensors"
    save_file({"layer9.weight": torch.zeros(2)}, path)
    with pytest.raises(BackboneError, match="'layer9.weight'"):
        open_source(find_source("random:test_resnet").with_changes(path), image_size=64)


def test_other_changes_are_another_network(small, tmp_path):
    names = ["conv1.0.weight", "layer4.0.conv1.weight"]
    own = small.network.network.state_dict()
    checksums, keys = [], []
    for name in (*names, names[0]):
        path = tmp_path / f"{name}.safetensors"
        save_file({name: own[name] + 1}, path)
        located = find_source("random:test_resnet").with_changes(path)
        keys.append(located.identity)
        checksums.append(open_source(located, image_size=64).info.sha256)
    assert checksums[0] == checksums[2] != checksums[1] != small.info.sha256
    assert keys[0] == keys[2] != keys[1] != find_source("random:test_resnet").identity


@pytest.mark.parametrize(
    ("strategy", "before"),
    [("full", None), ("lora", None), ("extract", None), ("last:1", "layer3"), ("last:2", "layer2"), ("last:4", "stem")],
)
def test_a_strategy_cuts_before_its_blocks_with_weights(small, strategy, before):
    assert cut_before(small, strategy) == before
