"""The parts of tuning by themselves: heads, losses, mixing, averages, adapters."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from headstart.backbones import open_backbone
from headstart.backbones.pooling import PooledTail
from headstart.errors import SettingError
from headstart.heads.linear import LinearHead
from headstart.tuning.averaging import interpolated
from headstart.tuning.lora import adapt_linear_layers, merge_adapters
from headstart.tuning.losses import count_right, make_loss
from headstart.tuning.mixing import mix
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.optimiser import make_optimiser
from tuning_toys import toy_network, toy_plan


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small gain nothing from a second thread, and lose much where another process has the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Heads.


def features_of_many_scales(count=200, width=12):
    random = np.random.default_rng(0)
    scales = 10.0 ** random.uniform(-0.8, 0.8, width)
    return ((random.standard_normal((count, width)) + random.uniform(-5, 5, width)) * scales).astype(np.float32)


def exact_head(features, num_classes=4):
    random = np.random.default_rng(1)
    weight = (random.standard_normal((num_classes, features.shape[1])) / features.std(axis=0)).astype(np.float32)
    return LinearHead(kind="ridge", weight=weight, bias=random.standard_normal(num_classes).astype(np.float32))


def test_a_trained_head_begins_with_the_exact_heads_calibrated_scores():
    features = features_of_many_scales()
    head, temperatures = exact_head(features), np.array([0.5, 2.0, 1.0, 3.0])
    made = TrainedHead.from_exact(features, head, temperatures)
    expected = features.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias
    with torch.no_grad():
        scores = made(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(scores, expected / temperatures, rtol=1e-4, atol=1e-4)
    # What it learns on is of one scale, whatever the features are.
    standardised = (features - made.mean.numpy()) / made.scale.numpy()
    np.testing.assert_allclose(standardised.std(axis=0), 1, rtol=1e-3)
    # And back again.
    folded = made.as_head()
    np.testing.assert_allclose(folded.weight, head.weight / temperatures[:, None], rtol=1e-5)
    np.testing.assert_allclose(folded.scores(features), scores, rtol=1e-3, atol=1e-3)


def test_a_feature_that_never_changes_does_no_harm():
    features = features_of_many_scales()
    features[:, 3] = 7.0
    head = exact_head(features + np.random.default_rng(2).standard_normal(features.shape).astype(np.float32))
    with torch.no_grad():
        scores = TrainedHead.from_exact(features, head, np.ones(4))(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(scores, head.scores(features), rtol=1e-3, atol=1e-2)


def test_dense_layers_of_a_hidden_head_take_raw_features():
    features = features_of_many_scales()
    plan = toy_plan(hidden=(16, 8), dropout=0.3, seed=3)
    head = TrainedHead.with_hidden(features, 5, plan=plan).eval()
    again = TrainedHead.with_hidden(features, 5, plan=plan)
    hidden = features
    for place, (weight, bias) in enumerate(head.dense_layers()):
        assert weight.dtype == bias.dtype == np.float32
        hidden = hidden @ weight.T + bias
        hidden = hidden if place == 2 else np.maximum(hidden, 0)
    with torch.no_grad():
        scores = head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(hidden, scores, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), again.parameters(), strict=True))


# Losses.


def test_losses_are_torchs_one_for_each_sample():
    random = torch.Generator().manual_seed(0)
    scores, classes = torch.randn(7, 4, generator=random), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    for smoothing in (0.0, 0.3):
        losses = make_loss("single", label_smoothing=smoothing)(scores, classes)
        assert losses.shape == (7,)
        expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(scores, classes)
        torch.testing.assert_close(losses.mean(), expected)
    some = (torch.randn(7, 4, generator=random) > 0).float()
    torch.testing.assert_close(make_loss("multi")(scores, some).mean(), nn.BCEWithLogitsLoss()(scores, some))
    values = torch.randn(7, generator=random)
    torch.testing.assert_close(
        make_loss("value", scale=2.0)(scores[:, :1], values).mean(), nn.MSELoss()(scores[:, 0], values) / 4
    )
    assert count_right("single", scores, scores.argmax(dim=1)) == 7
    assert count_right("multi", scores, (scores > 0).float()) == 7
    assert count_right("value", values[:, None], values + 2) == pytest.approx(-28)


# Mixing.


def mixed_pair(plan, seed, inputs, targets):
    loss = make_loss("single")
    partner = torch.from_numpy(np.random.default_rng(seed).permutation(len(targets)))
    mixed, lossy = mix(inputs, targets, loss, plan, np.random.default_rng(seed))
    return mixed, lossy, partner, loss


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 4.0))
@settings(max_examples=30, deadline=None)
def test_mixup_is_its_formula(seed, strength):
    random = torch.Generator().manual_seed(seed % 1000)
    inputs = (torch.randn(6, 3, 4, 4, generator=random), torch.randn(6, 5, generator=random))
    targets, scores = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6, 3, generator=random)
    mixed, lossy, partner, loss = mixed_pair(toy_plan(mixup=strength), seed, inputs, targets)
    drawn = np.random.default_rng(seed)
    drawn.permutation(6)
    share = drawn.beta(strength, strength)
    for one, part in zip(mixed, inputs, strict=True):
        torch.testing.assert_close(one, share * part + (1 - share) * part[partner])
    expected = share * loss(scores, targets) + (1 - share) * loss(scores, targets[partner])
    torch.testing.assert_close(lossy(scores, np.arange(6)), expected)
    torch.testing.assert_close(lossy(scores[2:5], np.arange(2, 5)), expected[2:5])


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_cutmix_pastes_a_box_of_the_partner_and_tells_the_loss_its_area(seed, channels_last):
    shape = (8, 8, 5) if channels_last else (5, 8, 8)
    # Every place of every sample holds that sample's number.
    inputs = (
        torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, *shape).clone(),
        torch.arange(6.0).reshape(6, 1).expand(6, 2).clone(),
    )
    targets, scores = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6, 3)
    mixed, lossy, partner, loss = mixed_pair(toy_plan(cutmix=1.0), seed, inputs, targets)
    maps = mixed[0].permute(0, 3, 1, 2) if channels_last else mixed[0]
    assert torch.equal(maps, maps[:, :1].expand_as(maps))  # the same box in every channel
    maps = maps[:, 0]
    moved = [row for row in range(6) if partner[row] != row]
    own = torch.stack([maps[row] == row for row in moved]) if moved else torch.ones(1, 8, 8, dtype=torch.bool)
    kept = float(own[0].float().mean())
    for row in moved:
        assert set(maps[row].unique().tolist()) <= {float(row), float(partner[row])}
        assert torch.equal(maps[row] == row, own[0])  # the same box in every sample
        assert float(mixed[1][row, 0]) == pytest.approx(kept * row + (1 - kept) * float(partner[row]), abs=1e-5)
    if moved:
        box = (~own[0]).nonzero()
        sides = box.max(dim=0).values - box.min(dim=0).values + 1
        assert len(box) == int(sides.prod())
        expected = kept * loss(scores, targets) + (1 - kept) * loss(scores, targets[partner])
        torch.testing.assert_close(lossy(scores, np.arange(6)), expected)


def test_without_mixing_inputs_are_left_as_they_are():
    inputs = (torch.randn(4, 3, 2, 2), torch.randn(4, 5))
    mixed, lossy, _, loss = mixed_pair(toy_plan(), 0, inputs, torch.tensor([0, 1, 2, 0]))
    assert mixed is inputs
    scores = torch.randn(4, 3)
    assert torch.equal(lossy(scores, np.arange(4)), loss(scores, torch.tensor([0, 1, 2, 0])))


def test_inputs_without_maps_are_mixed_whole_where_cutmix_is_asked():
    inputs = (torch.empty(4, 0), torch.randn(4, 5))
    mixed, _, partner, _ = mixed_pair(toy_plan(cutmix=1.0), 0, inputs, torch.tensor([0, 1, 2, 0]))
    drawn = np.random.default_rng(0)
    drawn.permutation(4)
    share = drawn.beta(1.0, 1.0)
    torch.testing.assert_close(mixed[1], share * inputs[1] + (1 - share) * inputs[1][partner])


# Weights between two.


def test_interpolation_begins_and_ends_at_its_ends():
    start = {"weight": torch.randn(3, 3), "steps": torch.tensor(3)}
    end = {"weight": torch.randn(3, 3), "steps": torch.tensor(9)}
    assert torch.equal(interpolated(start, end, 0.0)["weight"], start["weight"])
    assert torch.equal(interpolated(start, end, 1.0)["weight"], end["weight"])
    torch.testing.assert_close(interpolated(start, end, 0.25)["weight"], 0.75 * start["weight"] + 0.25 * end["weight"])
    assert {int(interpolated(start, end, share)["steps"]) for share in (0.0, 0.5, 1.0)} == {9}


# Adapters.


@pytest.fixture(scope="module")
def transformer():
    return open_backbone("random:vit_tiny_patch16_224", image_size=32)


def adapted(backbone, **changes):
    plan = toy_plan(strategy="lora", lora_rank=4, weight_decay=0.0, **changes)
    tail = PooledTail(backbone, "blocks.8")
    adapt_linear_layers(tail, plan, backbone.info.name)
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prefix, _ = backbone.cut("blocks.8")
        state, pooled = prefix(pixels), torch.empty(8, 0)
        features = tail.eval()(state, pooled)
    head = TrainedHead(features.numpy(), nn.Sequential(nn.Linear(features.shape[1], 3)))
    return plan, TunableNetwork(tail, head, columns=slice(0, features.shape[1])), (state, pooled), features


def test_adapters_train_beside_a_frozen_network_and_merge_into_it(transformer):
    plan, network, inputs, begun = adapted(transformer)
    plain = PooledTail(transformer, "blocks.8").eval()
    with torch.no_grad():
        torch.testing.assert_close(begun, plain(*inputs), rtol=0, atol=1e-6)  # they begin by changing nothing
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"head.layers.0.weight", "head.layers.0.bias"}
    assert len(trained) == 2 + 3 * 4 * 2  # three blocks of four linear layers, each with two matrices
    optimiser = make_optimiser(network, plan)
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(trained)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for _ in range(3):
        network.train().zero_grad()
        functional.cross_entropy(network(*inputs), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])).backward()
        optimiser.step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == trained
    with torch.no_grad():
        unmerged = network.eval().tail(*inputs)
        assert float((unmerged - begun).abs().max()) > 1e-3
        merge_adapters(network.tail)
        merged = network.tail(*inputs)
    torch.testing.assert_close(merged, unmerged, rtol=1e-5, atol=1e-5)
    # What is saved has the backbone's own names, and only matrices of linear layers changed.
    source = plain.network.state_dict()
    assert list(network.tail.network.state_dict()) == list(source)
    assert set(source) <= set(transformer.network.network.state_dict())
    changed = {name for name, tensor in network.tail.network.state_dict().items() if not torch.equal(tensor, source[name])}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert changed == {f"blocks.{block}.{layer}.weight" for block in (9, 10, 11) for layer in layers}


def test_adapters_begin_the_same_for_the_same_seed_and_draw_from_no_one_else(transformer):
    def begun(seed):
        tail = PooledTail(transformer, "blocks.9")
        adapt_linear_layers(tail, toy_plan(strategy="lora", seed=seed), "vit")
        return {name: tensor for name, tensor in tail.state_dict().items() if "lora_A" in name}

    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = begun(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = begun(1), begun(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["random:resnet10t", "random:ecaresnet26t", "random:mobilenetv3_small_050"])
def test_lora_on_a_convolutional_network_is_refused(name):
    backbone = open_backbone(name, image_size=32)
    tail = PooledTail(backbone, None)
    before = {name: parameter.requires_grad for name, parameter in tail.named_parameters()}
    with pytest.raises(SettingError, match=r"LoRA adapts linear layers, and of the weights of .* 0% are") as caught:
        adapt_linear_layers(tail, toy_plan(strategy="lora"), name)
    assert "--strategy last:2" in str(caught.value)
    assert {name: parameter.requires_grad for name, parameter in tail.named_parameters()} == before


def test_lora_on_a_network_with_small_linear_layers_among_convolutions_is_refused():
    network = toy_network(toy_plan())
    tail = network.tail
    tail.network.add_module("gate", nn.Linear(4, 4))
    with pytest.raises(SettingError, match=r"of the weights of 'toy' 2% are in such layers"):
        adapt_linear_layers(tail, toy_plan(strategy="lora"), "toy")


@pytest.mark.parametrize("name", ["random:convnext_atto", "random:vit_tiny_patch16_224", "random:tf_efficientnet_lite0"])
def test_every_parameter_of_a_real_network_is_in_one_group_of_the_optimiser(name):
    backbone = open_backbone(name, image_size=32)
    tail = PooledTail(backbone, None)
    head = TrainedHead(np.random.default_rng(0).random((5, 7), np.float32), nn.Sequential(nn.Linear(7, 2)))
    network = TunableNetwork(tail, head, columns=slice(0, 7))
    plan = toy_plan(block_decay=0.5, head_rate=1.0, backbone_rate=0.5, weight_decay=0.1)
    groups = make_optimiser(network, plan).param_groups
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(network.parameters())
    rates = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    first = next(iter(tail.parameters()))
    assert rates[first] == pytest.approx(0.5 ** len(network.blocks()))
    assert rates[head.layers[0].weight] == 1.0


def test_weights_updated_in_one_sweep_are_those_of_an_update_each():
    """Whatever a weight's order in memory is."""
    backbone = open_backbone("random:test_resnet", image_size=32)
    tail = PooledTail(backbone, None)
    width = tail(torch.zeros(1, 3, 32, 32), torch.empty(1, 0)).shape[1]
    random = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Linear(width, 2))
    batches = [torch.randn(4, 3, 32, 32, generator=random) for _ in range(4)]
    found = []
    for device in ("cpu", "xla"):  # the second is of those that know no such sweep
        head = TrainedHead(np.random.default_rng(0).random((5, width), np.float32), copy.deepcopy(layers))
        network = TunableNetwork(copy.deepcopy(tail), head, columns=slice(0, width))
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        optimiser = make_optimiser(network, toy_plan(weight_decay=0.1, backbone_rate=1e-3, head_rate=1e-3), device=device)
        assert optimiser.defaults["fused"] == (device == "cpu")
        network.train()
        for batch in batches:
            network.zero_grad()
            functional.cross_entropy(network(batch, torch.empty(4, 0)), torch.tensor([0, 1, 0, 1])).backward()
            optimiser.step()
        found.append({name: parameter.detach() for name, parameter in network.named_parameters()})
    begun = dict(tail.named_parameters())
    for name, parameter in found[0].items():
        torch.testing.assert_close(parameter, found[1][name], rtol=1e-3, atol=1e-5, msg=name)
    assert all(not torch.equal(found[0][f"tail.{name}"], parameter) for name, parameter in begun.items())
