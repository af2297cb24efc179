"""Tracing: where a network can be cut, on networks made for the purpose, whose blocks are known beforehand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from headstart.backbones.cutting import cut, tapped
from headstart.backbones.flow import channel_axes, channel_axis
from headstart.backbones.tracing import trace


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(size):
    return torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(size))


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def traced(network, sample=images):
    with torch.no_grad():
        return trace(network, sample)


def names(found):
    return [block.name for block in found.blocks]


def assert_cuts_keep_the_function(network, found, batch, atol=1e-5):
    with torch.no_grad():
        whole = network(batch)
        for block in found.blocks:
            prefix, tail = cut(found, block.name)
            np.testing.assert_allclose(tail(prefix(batch)), whole, rtol=0, atol=atol, err_msg=block.name)


class Residual(nn.Module):
    """Two tensors are alive inside, one at its end; the activation works in place."""

    def __init__(self, channels=4):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.second(self.act(self.norm(self.first(x)))) + x)


class Parallel(nn.Module):
    """Two branches side by side, joined at the end."""

    def __init__(self, channels=4):
        super().__init__()
        self.wide, self.thin = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return torch.cat([self.wide(x)[:, :2], self.thin(x)[:, 2:]], dim=1).tanh()


class Plain(nn.Sequential):
    def __init__(self, channels=4):
        super().__init__(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))


class Narrow(nn.Sequential):
    """A norm, and a convolution that leaves one place of the map."""

    def __init__(self, channels=4):
        super().__init__(nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 8, stride=8))


class NarrowAndDeep(nn.Sequential):
    """The same, and more behind it."""

    def __init__(self, channels=4):
        super().__init__(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 8, stride=8), Plain(channels))


class Small(nn.Module):
    def __init__(self, kinds=(Residual, Plain)):
        super().__init__()
        self.entry = nn.Conv2d(3, 4, 3, padding=1)
        self.steps = nn.Sequential(*(kind() for kind in kinds))

    def forward(self, x):
        return self.steps(self.entry(x)).mean((2, 3))


def test_named_blocks_end_where_one_tensor_is_alive():
    network = seeded(Small)
    found = traced(network)
    assert names(found) == ["stem", "steps.0", "steps.1", "pool"]
    assert [block.shape for block in found.blocks] == [(4, 8, 8), (4, 8, 8), (4, 8, 8), (4,)]
    by_hand = [sum(p.numel() for p in part.parameters()) for part in (network.entry, network.steps[0], network.steps[1])]
    assert [block.num_parameters for block in found.blocks] == [*by_hand, 0]
    assert_cuts_keep_the_function(network, found, images(5))


@pytest.mark.parametrize("last", [Narrow, NarrowAndDeep])
def test_a_block_whose_strides_leave_one_place_is_no_pool(last):
    """As the last stage of a ConvNeXt or an EdgeNeXt on a small image: a norm, and a convolution with strides."""

    class Shrinking(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 4, 3, padding=1)
            self.steps = nn.Sequential(Residual(), last())

        def forward(self, x):
            return self.steps(self.entry(x)).mean((2, 3))

    network = seeded(Shrinking)
    found = traced(network)
    assert names(found) == ["stem", "steps.0", "steps.1"]
    assert [block.num_parameters for block in found.blocks][2] == sum(p.numel() for p in network.steps[1].parameters())
    assert_cuts_keep_the_function(network, found, images(5))


def test_tapped_outputs_are_those_of_hooks():
    network = seeded(Small)
    seen = []
    for part in (network.entry, network.steps[0], network.steps[1]):
        part.register_forward_hook(lambda module, given, output: seen.append(output.clone()))
    with torch.no_grad():
        whole = network(images(2))
    by_hooks = [*seen, whole]
    outputs = tapped(traced(network))(images(2))
    assert len(outputs) == 4
    for output, wanted in zip(outputs, by_hooks, strict=True):
        np.testing.assert_allclose(output, wanted, atol=1e-6)


def test_in_place_activations_do_not_change_a_block_after_its_end():
    """The second block writes over its input, which is the first block's output."""

    class Writer(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 4, 1)
            self.steps = nn.Sequential(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 1))

        def forward(self, x):
            return self.steps(self.entry(x)).mean((2, 3))

    network = seeded(Writer)
    with torch.no_grad():
        entry = network.entry(images(2)).clone()
    found = traced(network)
    first = tapped(found)(images(2))[0]
    assert (entry < 0).any()
    np.testing.assert_array_equal(first, entry)
    assert_cuts_keep_the_function(network, found, images(2))


def test_no_cut_between_parallel_branches():
    found = traced(seeded(lambda: Small((Parallel, Parallel))))
    assert names(found) == ["stem", "steps.0", "steps.1", "pool"]


def test_a_long_skip_leaves_no_cut_under_it():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry, self.a, self.b, self.c = (nn.Conv2d(i, 4, 3, padding=1) for i in (3, 4, 4, 4))

        def forward(self, x):
            x = self.entry(x)
            return self.c(self.b(self.a(x)) + x).mean((2, 3))

    network = seeded(Skip)
    found = traced(network)
    assert names(found) == ["stem", "b", "c", "pool"]
    assert [block.num_parameters for block in found.blocks] == [112, 2 * 148, 148, 0]
    assert_cuts_keep_the_function(network, found, images(4))


class Tokens(nn.Module):
    """Like a ViT: batch and token numbers are carried along, a class token is put in front, and heads are folded."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.places = nn.Parameter(torch.randn(1, 5, 6))
        self.blocks = nn.Sequential(*(Attention() for _ in range(3)))
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        size = x.shape[0]
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(size, -1, -1), x], dim=1) + self.places
        return self.norm(self.blocks(x))[:, 0].reshape(size, -1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Linear(6, 18), nn.Linear(6, 6)

    def forward(self, x):
        size, tokens, width = x.shape
        q, k, v = self.mix(x).reshape(size, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).reshape(size, tokens, width))


def test_integers_carried_along_are_no_data_and_follow_any_batch():
    network = seeded(Tokens)
    found = traced(network)
    assert names(found) == ["stem", "blocks.0", "blocks.1", "blocks.2", "pool"]
    assert [block.shape for block in found.blocks] == [(5, 6)] * 4 + [(6,)]
    assert sum(block.num_parameters for block in found.blocks) == sum(p.numel() for p in network.parameters())
    for size in (1, 2, 3, 7):
        assert_cuts_keep_the_function(network, found, images(size))


def test_a_number_that_is_a_multiple_of_the_batch_is_told_again():
    """As in windowed attention: windows times pictures is carried across the cut."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry, self.last = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)

        def forward(self, x):
            windows = x.shape[0] * 4
            x = self.entry(x)
            return self.last(x.reshape(windows, 4, 16).mean(2)).reshape(windows // 4, 16)

    network = seeded(Windows)
    found = traced(network)
    assert [block.shape for block in found.blocks] == [(4, 8, 8), (16,)]  # none where the first axis counts windows
    for size in (1, 2, 5):
        assert_cuts_keep_the_function(network, found, images(size))


def test_the_tail_has_its_own_weights_and_the_prefix_shares_the_networks():
    network = seeded(Small)
    found = traced(network)
    prefix, tail = cut(found, "steps.0")
    ours = {parameter.data_ptr() for parameter in network.parameters()}
    assert {parameter.data_ptr() for parameter in prefix.parameters()} <= ours
    assert not {parameter.data_ptr() for parameter in tail.parameters()} & ours
    assert all(parameter.requires_grad for parameter in tail.parameters())
    assert sum(1 for _ in tail.parameters()) == 2
    with torch.no_grad():
        before = network(images(2))
        for parameter in tail.parameters():
            parameter.add_(1)
        np.testing.assert_array_equal(network(images(2)), before)


def test_nothing_is_left_of_the_other_side():
    prefix, tail = cut(traced(seeded(Small)), "steps.0")
    assert sum(isinstance(m, nn.Conv2d) for m in prefix.modules()) == 3
    assert sum(isinstance(m, nn.Conv2d) for m in tail.modules()) == 1


def test_arguments_with_defaults_are_fixed_at_them():
    class Optional(Small):
        def forward(self, x, mask=None, scale=2.0):
            x = super().forward(x)
            return x * scale if mask is None else x * mask

    network = seeded(Optional)
    found = traced(network)
    np.testing.assert_allclose(tapped(found)(images(2))[-1], network(images(2)).detach(), atol=1e-6)


def test_what_follows_the_data_raises():
    class Undecided(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(torch.fx.proxy.TraceError):
        traced(Undecided())


@settings(max_examples=15, deadline=None)
@given(kinds=st.lists(st.sampled_from([Residual, Plain, Parallel]), min_size=2, max_size=5), size=st.integers(1, 4))
def test_any_stack_is_cut_at_every_block(kinds, size):
    network = seeded(lambda: Small(kinds))
    found = traced(network)
    first, *middle, last = names(found)
    assert (first, last) == ("stem", "pool")
    # A container that holds too few of the steps is one block as a whole.
    assert middle in (["steps"], [f"steps.{index}" for index in range(len(kinds))])
    assert_cuts_keep_the_function(network, found, images(size))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((64,), 0), ((197, 192), 1), ((64, 56, 56), 0), ((56, 56, 96), 2), ((7, 7, 7), 0), ((2048, 1, 1), 0), ((1, 1, 768), 2)],
)
def test_channels_are_told_by_the_two_equal_sides(shape, axis):
    assert channel_axis(shape) == axis


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(96, 96, 96), (96, 96, 96), (48, 48, 192), (768,)], [2, 2, 2, 0]),
        ([(32, 32, 32), (64, 16, 16)], [0, 0]),
        ([(16, 16, 32), (8, 8, 8), (197, 64)], [2, 2, 1]),
        ([(7, 7, 7)], [0]),
        ([], []),
    ],
)
def test_where_all_sides_are_equal_the_nearest_other_map_tells(shapes, axes):
    assert channel_axes(shapes) == axes
