"""The fast network of a network that is watched, that changes as it runs, or that gives strange outputs."""

import warnings

import pytest
import torch
from pytorchvideo.models import create_slowfast
from torch import nn

from octvideo.layers import OctConv3d, octave_from_dense, split
from octvideo.models import build_model, i3d_r50_nln
from octvideo.runtime import FastNetwork, optimize
from octvideo.runtime.fused import FusedConv


def small_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 1)).eval()
    nn.init.uniform_(network[1].running_var, 2.0, 4.0)
    return network


@pytest.mark.parametrize("name", ["", "0", "1", "2", "3"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.filterwarnings("error:.*(is left out|is tried)")
def test_hooks_are_called_on_what_they_saw(name, before):
    """Bounds that the example stays within, so that only the later input tells whether they hold."""
    network, x = small_network(), torch.randn(1, 3, 4, 8, 8)
    module = network.get_submodule(name)
    if before:
        module.register_forward_pre_hook(lambda module, args: (args[0].clamp(-20, 20),))
    else:
        module.register_forward_hook(lambda module, args, out: out.clamp(-20, 20))
    fast = optimize(network, x)
    torch.testing.assert_close(fast(500 * x), network(500 * x), rtol=1e-4, atol=1e-4)


def test_hooks_of_a_traced_network_are_those_of_the_network():
    network, x, seen = small_network(), torch.randn(1, 3, 4, 8, 8), []
    network.register_forward_hook(lambda module, args, kwargs, out: seen.append(set(kwargs)), with_kwargs=True)
    fast = optimize(network, x)
    assert sum(isinstance(module, FusedConv) for module in fast.modules()) == 2
    seen.clear()
    fast(x)
    assert seen == [set()]


class Remembers(nn.Module):
    """Adds what it has seen before, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.way, self.last = nn.Conv3d(3, 8, 3, padding=1), way, None
        self.register_buffer("memory", torch.zeros(1, 8, 4, 8, 8))

    def forward(self, x):
        out = self.conv(x)
        if self.way == "attribute":
            self.last = out if self.last is None else out + self.last
            return self.last
        if self.way == "mean":
            self.memory.mul_(0.9).add_(0.1 * out)
            return out
        self.memory += out
        return out + self.memory


@pytest.mark.parametrize("way", ["attribute", "mean", "sum"])
def test_networks_that_change_as_they_run_begin_as_they_were(way):
    network, x = Remembers(way).eval(), torch.randn(1, 3, 4, 8, 8)
    with pytest.warns(UserWarning, match="only lowering is tried: Remembers changes as it runs"):
        fast = optimize(network, x)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fast(x), network(x))
    torch.testing.assert_close(fast.get_buffer("network.memory"), network.memory)


class Random(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def test_a_random_network_stays_random():
    x = torch.zeros(2, 3)
    with pytest.warns(UserWarning, match="gives other outputs each time"):
        fast = optimize(Random(), x)
    assert not torch.equal(fast(x), fast(x))


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        out = self.conv(x)
        return out.masked_fill(x[:, :1] > 0, -torch.inf)


@pytest.mark.filterwarnings("error")
def test_outputs_of_infinity_are_compared_as_others():
    network, x = Masked().eval(), torch.randn(2, 3, 5, 5)
    fast = optimize(network, x)
    assert any(isinstance(module, FusedConv) for module in fast.modules())
    torch.testing.assert_close(fast(x), network(x))


def test_no_gradients_flow():
    network, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(36, 2)), torch.randn(2, 3, 3, 3)
    fast = optimize(network, x)
    assert not fast(x.requires_grad_()).requires_grad


class TwoMaps(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x, y=None):
        return self.first(x) if y is None else self.first(x) + self.second(y)


def test_a_map_that_is_missing_is_named():
    x = torch.randn(1, 3, 4, 4)
    fast = optimize(TwoMaps(), (x, x))
    with pytest.raises(TypeError, match="takes a map or a pair; got NoneType"):
        fast(x)


@pytest.mark.filterwarnings("error:.*is left out")
def test_pytorchvideos_own_slowfast_is_fused():
    """Its stages ask whether their input is a list, and so does the example's structure tell the tracer."""
    torch.manual_seed(0)
    network = create_slowfast(model_num_class=5, head_pool_kernel_sizes=((2, 2, 2), (8, 2, 2))).eval()
    x = [torch.randn(1, 3, frames, 64, 64) for frames in (2, 8)]
    fast = optimize(network, x)
    with torch.no_grad():
        torch.testing.assert_close(fast(list(x)), network(list(x)), rtol=1e-4, atol=1e-4)
    assert sum(isinstance(module, FusedConv) for module in fast.modules()) == 110


class Paths(nn.Module):
    """Takes a tuple and a dict of maps."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, maps, more):
        left, right = maps
        return {"sum": self.first(left) + self.second(right) + more["bias"]}


@pytest.mark.filterwarnings("error")
def test_tuples_and_dicts_of_maps():
    network, maps, more = Paths().eval(), (torch.randn(2, 3, 4, 5),) * 2, {"bias": torch.randn(2, 4, 4, 5)}
    fast = optimize(network, (maps, more))
    assert any(isinstance(module, FusedConv) for module in fast.modules())
    torch.testing.assert_close(fast(maps, more)["sum"], network(maps, more)["sum"])


def test_bfloat16_where_torch_has_no_average_pooling():
    network, x = build_model("energy_resnet3d", num_classes=4, alpha=0.25).eval(), torch.rand(1, 3, 9, 32, 40)
    fast = optimize(network, x, dtype=torch.bfloat16)
    assert isinstance(fast, FastNetwork)
    assert fast.dtype == torch.bfloat16
    with torch.no_grad():
        expected = network(x)
        assert (fast(x) - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_network_that_cannot_be_copied():
    network = nn.Sequential(nn.Conv2d(3, 4, 1))
    network.cache = network[0].weight * 2  # no leaf of the graph: torch refuses to copy it
    with pytest.raises(ValueError, match="Sequential cannot be copied: Only Tensors created explicitly"):
        optimize(network, torch.randn(1, 3, 4, 4))


class MakesGrid(nn.Module):
    """Registers what it keeps as it first runs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        if "grid" not in self._buffers:
            self.register_buffer("grid", torch.linspace(0, 1, x.shape[-1]))
        return self.conv(x) + self.grid


class WithScale(nn.Module):
    """Has an argument with a default beside a list of maps, by position or by name."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, maps, scale=1.0):
        return (self.first(maps[0]) + self.second(maps[1])) * scale


class ScaledByName(WithScale):
    def forward(self, maps, *, scale=1.0):
        return super().forward(maps, scale)


class AsksForScale(nn.Module):
    """Has a number, which may change, among its maps, of which it asks what they are in."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, given):
        assert isinstance(given, dict)
        return self.conv(given["x"]) * given["scale"]


@pytest.mark.filterwarnings("error:.*(is left out|is tried)")
def test_what_is_made_in_the_first_run_is_no_state():
    unused_nan = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    unused_nan.register_buffer("unused", torch.tensor(torch.nan))
    x = torch.randn(1, 3, 8, 8)
    for network in (MakesGrid(), nn.Sequential(nn.LazyConv2d(4, 1), nn.ReLU()), unused_nan):
        torch.manual_seed(0)
        fast = optimize(network, x)
        torch.manual_seed(0)  # of weights that are made in the first run
        torch.testing.assert_close(fast(x), network(x))


@pytest.mark.filterwarnings("error:.*is left out")
@pytest.mark.parametrize("kind", [WithScale, ScaledByName])
def test_arguments_beside_a_list_keep_their_defaults(kind):
    network, maps = kind().eval(), [torch.randn(2, 3, 4, 5)] * 2
    fast = optimize(network, maps)
    assert sum(isinstance(module, FusedConv) for module in fast.modules()) == 2
    torch.testing.assert_close(fast(maps, scale=3.0), network(maps, scale=3.0))


def test_numbers_among_maps_stay_free():
    network, x = AsksForScale().eval(), torch.randn(2, 3, 4, 5)
    with pytest.warns(UserWarning, match="is left out: ValueError: AsksForScale cannot be traced"):
        fast = optimize(network, {"x": x, "scale": 2.0})
    torch.testing.assert_close(fast({"x": x, "scale": 3.0}), network({"x": x, "scale": 3.0}))


class InPlace(nn.Module):
    def forward(self, x):
        return x.sub_(1).relu()


def test_the_example_stays_as_it_is():
    x = torch.randn(2, 3)
    kept = x.clone()
    optimize(InPlace(), x)
    assert torch.equal(x, kept)


class ReadsItsConvolution(nn.Module):
    """As PyTorchVideo's non-local block, whose forward function asks a convolution for its channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(6, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x):
        if x.sum() > 1e9:  # a branch that torch.fx cannot follow
            return x
        conv = self.conv
        channels = conv.in_channels, conv.out_channels, conv.groups, conv.padding_mode
        assert (*channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation) == (
            *(6, 8, 1, "zeros"), (1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1),
        )  # fmt: skip
        return conv(x) / conv.out_channels


def test_attributes_of_convolutions_that_a_network_reads():
    x = torch.randn(1, 3, 2, 8, 8)
    network = nn.Sequential(nn.Conv3d(3, 6, 1), ReadsItsConvolution()).eval()
    with torch.no_grad():
        expected = network(x)
        network[1].conv = FusedConv(octave_from_dense(network[1].conv, 0, 0), relu=False)
        torch.testing.assert_close(network(x), expected)


def test_dense_non_local_networks_are_fused():
    x = torch.randn(1, 3, 4, 64, 64)
    network = i3d_r50_nln(num_classes=4).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = optimize(network, x)
    torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)
    assert sum(isinstance(module, FusedConv) for module in fast.modules()) > 60


def test_a_fast_network_stays_in_evaluation_mode():
    network, x = nn.Sequential(nn.Conv3d(3, 8, 1), nn.Dropout(0.5)).eval(), torch.randn(1, 3, 2, 4, 4)
    fast = optimize(network, x)
    torch.testing.assert_close(fast.train()(x), network(x))
    assert not fast.training


def test_a_pair_of_which_one_part_has_no_channels():
    conv = OctConv3d(8, 8, 1, alpha_in=1, alpha_out=1).eval()
    pair = split(torch.randn(1, 8, 2, 4, 4), 1)
    out, expected = optimize(nn.Sequential(conv), pair)(pair), conv(pair)
    torch.testing.assert_close(out.low, expected.low)
