"""The fast network computes what the network computes."""

import copy
import operator
import pickle
import sys
import types

import pytest
import torch
import torchvision
from pytorchvideo.models import create_slowfast
from torch import nn

from octvideo import octavize
from octvideo.layers import OctConv2d, OctConv3d, Pairwise, octave_from_dense
from octvideo.models import IMAGE_BUILDERS, build_model
from octvideo.runtime import FastNetwork, optimize
from octvideo.runtime.fused import FusedConv
from octvideo.runtime.joined import Join
from octvideo.runtime.optimize import fold_norms, fuse_convolutions, lower


def awake(model):
    """Norms with statistics of their own, so that folding them changes every weight."""
    torch.manual_seed(0)
    for module in model.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.running_var, 0.5, 2), (module.bias, -1, 1)):
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return model


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


NETWORKS = {
    **{
        f"tiny {a} {o}": ("resnet3d_tiny", a, o) for a in (0, 0.1, 1) for o in ("spatial", "temporal", "spatiotemporal")
    },
    "energy": ("energy_resnet3d", 0.5, "spatiotemporal"),
    "x3d": ("x3d_xs", 0.25, "spatial"),
    "se": ("se_resnet50", 0.25, "spatial"),
    "grouped": ("resnext50_32x4d", 0.25, "spatial"),
    "concatenated": ("densenet121", 0.25, "spatial"),
    "mobile": ("mobilenet_v1", 0.5, "spatial"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_network(name, dtype):
    builder, alpha, octave = NETWORKS[name]
    if dtype == torch.bfloat16 and builder in ("x3d_xs", "energy_resnet3d"):
        pytest.skip("torch's avg_pool3d has no bfloat16 on the CPU")
    model = awake(build_model(builder, num_classes=7, alpha=alpha, octave=octave)).to(dtype)
    size = (37, 50) if builder in IMAGE_BUILDERS else {"x3d_xs": (4, 161, 129)}.get(builder, (7, 37, 50))
    x = torch.randn(2, 3, *size, dtype=dtype)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        fast = optimize(model, x)
        assert isinstance(fast, FastNetwork)
        assert any(isinstance(m, FusedConv) for m in fast.modules()) == (dtype != torch.float64)
        more = torch.randn(1, *x.shape[1:], dtype=dtype)  # another batch than the example's
        expected = model(more)
        tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05}[dtype]
        limit = tolerance * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(fast(more), expected, rtol=0, atol=limit)
    assert len(norms(fast)) <= (62 if builder == "densenet121" else 0)  # its norms stand before the convolutions
    torch.testing.assert_close(model.state_dict(), before)


def test_fast_networks_can_be_copied_and_pickled():
    model, x = awake(build_model("resnet3d_tiny", num_classes=7, alpha=0.25)), torch.randn(1, 3, 7, 37, 50)
    with torch.no_grad():
        fast = optimize(model, x)
        expected = fast(x)
        for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            assert torch.equal(copied(x), expected)


class _JoinsAndAdds(nn.Module):
    """A pooled map that is read by octave convolutions, by a dense one, and as a summand."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.a, self.b = (OctConv2d(8, 8, 3, padding=1, alpha_in=0, alpha_out=0.25) for _ in range(2))
        self.c, self.d = (OctConv2d(8, 8, 1, alpha_in=alpha, alpha_out=0) for alpha in (0.25, 0))

    def forward(self, x):
        x = self.pool(x)
        return self.c(self.a(x) + self.b(x)), self.d(x) + x


def test_summands_stay_what_they_are():
    network, x = _JoinsAndAdds().eval(), torch.randn(1, 8, 12, 12)
    with torch.no_grad():
        fast = optimize(network, x)
        assert any(isinstance(m, Join) for m in fast.modules())
        for got, expected in zip(fast(x), network(x), strict=True):
            assert type(got) is torch.Tensor
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def adaptive(slowfast):
    slowfast.blocks[5].pool = nn.ModuleList([nn.AdaptiveAvgPool3d(1), nn.AdaptiveAvgPool3d(1)])
    return slowfast


def test_other_peoples_networks():
    networks = [
        (torchvision.models.video.r3d_18(num_classes=5), torch.randn(1, 3, 4, 33, 40)),
        (octavize(torchvision.models.video.r2plus1d_18(num_classes=5), 0.25), torch.randn(1, 3, 4, 33, 40)),
        (adaptive(create_slowfast(model_num_class=5)), [torch.randn(1, 3, t, 64, 64) for t in (2, 8)]),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(5, 3)),
    ]  # fmt: skip
    for model, x in networks:
        fast = optimize(awake(model), x)
        with torch.no_grad():
            got, expected = (net(list(x) if isinstance(x, list) else x) for net in (fast, model))
        for a, b in zip(*(o if isinstance(o, list) else [o] for o in (got, expected)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class ReadsItsOwnWeight(nn.Module):
    """A convolution whose weight something else reads: folding its norm would change that."""

    def __init__(self, hidden):
        super().__init__()
        self.conv, self.norm, self.hidden = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), hidden

    def forward(self, x):
        weight = self.conv._parameters["weight"] if self.hidden else self.conv.weight
        return self.norm(self.conv(x)) + weight.sum()


class NeedsContiguousMemory(nn.Module):
    def forward(self, x):
        return x.view(x.shape[0], -1) if x.is_contiguous() else 1 / 0


def test_a_step_that_would_change_the_outputs_is_left_out_with_a_warning():
    model, x = awake(ReadsItsOwnWeight(hidden=True)), torch.randn(2, 3, 4, 4)
    with pytest.warns(UserWarning, match="folding batch norms is left out: outputs differ by"):
        fast = optimize(model, x)
    torch.testing.assert_close(fast(x), model(x))
    with pytest.warns(UserWarning, match="lowering convolutions and poolings is left out: ZeroDivisionError"):
        fast = optimize(NeedsContiguousMemory(), torch.randn(2, 3, 2, 4, 4))
    assert fast(x).shape == (2, 48)


def test_a_weight_that_is_read_elsewhere_is_not_folded():
    model, x = awake(ReadsItsOwnWeight(hidden=False)), torch.randn(2, 3, 4, 4)
    fast = optimize(model, x)
    assert len(norms(fast)) == 1
    torch.testing.assert_close(fast(x), model(x))


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_an_example_whose_elements_are_all_the_same_is_no_check(value):
    model = awake(ReadsItsOwnWeight(hidden=True))
    nn.init.zeros_(model.norm.weight)  # of a constant map nothing is to be seen then
    with torch.no_grad():
        model.norm.weight[0] = 1
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="folding batch norms is left out: outputs differ by"):
        fast = optimize(model, torch.full((2, 3, 4, 4), value))
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(fast(x), model(x))


class InRange(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x, weights):
        torch._assert(bool((x >= 0).all()) if isinstance(x, torch.Tensor) else True, "no pixels")
        return self.conv(x) / weights.sum()


def test_a_network_that_refuses_noise_is_checked_on_its_example():
    model = InRange().eval()
    x, weights = torch.rand(2, 3, 4, 4), torch.ones(2)
    with torch.no_grad():
        for example in (torch.zeros(1, 3, 4, 4), x):
            fast = optimize(model, (example, weights))
            torch.testing.assert_close(fast(x, weights), model(x, weights), rtol=1e-4, atol=1e-4)
            assert any(isinstance(m, FusedConv) for m in fast.modules())


class Small(nn.Module):
    """Probabilities of many classes, and what is no map."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4000, 1), nn.BatchNorm2d(4000)

    def forward(self, x, scale=None):
        y = self.norm(self.conv(x)).mean((2, 3))
        y = y if scale is None else y * scale
        return {"probabilities": y.softmax(1), "classes": 4000, "name": "small"}


def test_small_outputs_and_outputs_that_are_no_tensors():
    model, x = awake(Small()), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        fast, expected = optimize(model, x), model(x, scale=torch.tensor(2.0))
        got = fast(x, scale=torch.tensor(2.0))
    assert (got["classes"], got["name"]) == (4000, "small")
    torch.testing.assert_close(got["probabilities"], expected["probabilities"], rtol=1e-4, atol=0)
    with pytest.warns(UserWarning, match="lowering convolutions and poolings is left out: outputs differ by"):
        network = optimize_with_wrong_lowering(model, x)
    torch.testing.assert_close(network(x)["probabilities"], model(x)["probabilities"])


def optimize_with_wrong_lowering(model, x):
    """Its wrong probabilities are far below 1, as are the right ones."""

    def wrong(network, dtype=None):
        network.conv.weight.data.mul_(2)
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[lower.__module__], "lower", wrong)
        return optimize(model, x)


def test_wrong_arguments():
    model, x = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 6, 6)
    for wrong in (None, nn.Conv2d):
        with pytest.raises(TypeError, match="model must be a module, an instance"):
            optimize(wrong, x)
    for wrong in ("bfloat16", torch.int8, torch.complex64):
        with pytest.raises(TypeError, match=r"dtype must be one of .*torch.bfloat16.*; got"):
            optimize(model, x, dtype=wrong)
    for wrong in (None, "clip", [], x[:0]):
        with pytest.raises(ValueError, match="example must hold tensors with elements"):
            optimize(model, wrong)
    with pytest.raises(ValueError, match=r"Conv2d does not run on the example \(\(1, 2, 6, 6\) torch.float32\)"):
        optimize(model, torch.randn(1, 2, 6, 6))
    fast = optimize(model, x)
    with pytest.raises(ValueError, match="is a fast network already"):
        optimize(fast, x)
    with pytest.raises(RuntimeError, match="torch.jit.trace does not see"):
        torch.jit.trace(fast, x)


class _Returns(nn.Module):
    """A network that returns its output as something."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 4, 3), kind

    def forward(self, x):
        return self.kind(self.conv(x))


@pytest.mark.parametrize(
    ("kind", "returned"),
    [
        (lambda x: types.SimpleNamespace(logits=x), "SimpleNamespace"),
        (lambda x: [x.numel(), "a name"], "int and str"),
        (lambda _: None, "NoneType"),
        (lambda _: (), "nothing"),
    ],
    ids=["object", "numbers and names", "None", "empty"],
)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_networks_that_return_no_tensors_are_refused(kind, returned, dtype):
    with pytest.raises(ValueError, match=f"must return tensors, alone or in .*; _Returns returned {returned}$"):
        optimize(_Returns(kind), torch.randn(1, 3, 8, 8), dtype=dtype)
    fast = optimize(_Returns(lambda x: {"logits": [x]}), torch.randn(1, 3, 8, 8), dtype=dtype)
    assert fast(torch.randn(1, 3, 8, 8))["logits"][0].shape == (1, 4, 6, 6)


class InPlace(nn.Module):
    """Statements and functions that write over a map: what is read later is no longer what it was."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.clip = Pairwise(nn.Hardtanh(-50, 50, inplace=True))  # no example of usual numbers shows it

    def forward(self, x):
        x = self.b(x)
        y = self.a(input=x)
        z = x.flatten(1) if self.kind == "view" else x
        if self.kind in ("summand", "view"):
            x += y
            return x.sum() + z.sum()
        if self.kind == "input":
            x = torch.relu_(x)
        elif self.kind == "keyword":
            torch.nn.functional.relu(x, inplace=True)
        elif self.kind == "method":
            x.mul_(3)
        elif self.kind == "module":
            self.clip(x)
        elif self.kind == "overload":
            torch.ops.aten.clamp_.default(x, max=50)
        elif self.kind == "out":
            torch.mul(y, 2, out=x)
        elif self.kind == "numbers":
            batch = x.shape[0]
            batch *= x.shape[2]
            return torch.relu(y + x).reshape(batch, -1)
        elif self.kind == "new":
            x = torch.nn.functional.interpolate(z, scale_factor=1.0)
            x += y
            return torch.relu(x) + z
        return torch.relu(y + x)


@pytest.mark.parametrize(
    ("kind", "sums_left"),
    [
        ("nothing", 0), ("numbers", 0), ("new", 1), ("input", 1), ("keyword", 1), ("method", 1), ("module", 1),
        ("overload", 1), ("out", 1), ("summand", None), ("view", None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.* is left out")
def test_maps_that_are_written_over(kind, sums_left):
    """A sum goes into the convolution before it where nothing between them changes what that reads."""
    model, x = InPlace(kind).eval(), 100 * torch.randn(2, 4, 6, 5)
    with torch.no_grad():
        fast = optimize(model, torch.randn(1, 4, 3, 3))
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-2)
    if sums_left is None:  # torch.fx does not see what is read
        assert not any(isinstance(m, FusedConv) for m in fast.modules())
    else:
        assert sum(node.target is operator.add for node in fast.network.graph.nodes) == sums_left


def test_sums_in_place_of_a_residual_network_are_fused():
    network = lower(fold_norms(awake(torchvision.models.resnet18(num_classes=5)), torch.zeros(1, 3, 64, 64)))
    fused = fuse_convolutions(network, None)
    assert not any(node.target is operator.add for node in fused.network.graph.nodes)


class TwoBranches(nn.Module):
    """Which norm follows the convolution depends on the input."""

    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.a(y) if x.sum() > 0 else self.b(y)


def test_norms_on_branches_that_depend_on_the_input_are_not_folded():
    model, x = awake(TwoBranches()), torch.rand(2, 3, 4, 4)
    with pytest.warns(UserWarning, match="folding batch norms is left out.*cannot be traced"):
        fast = optimize(model, x)
    for clip in (x, -x):
        torch.testing.assert_close(fast(clip), model(clip))


class Shortcuts(nn.Module):
    """Sums whose summands are read again, in other ways and places: none of them may be written over."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d, self.e, self.f = (nn.Conv3d(4, 4, 1) for _ in range(6))
        self.drop, self.relu = nn.Dropout(), nn.ReLU()

    def forward(self, x):
        y = self.relu(self.a(x) + x)  # the input
        z = self.b(y) + y
        u = self.drop(z)  # the same tensor in evaluation mode
        v = self.relu(self.c(z) + z)
        w = torch.add(v, self.d(v), alpha=2)
        return self.relu(self.e(w) + w) + self.f(u) + z


def test_summands_that_are_read_again_are_kept():
    model, x = Shortcuts().eval(), torch.randn(2, 4, 3, 6, 5)
    before = x.clone()
    with torch.no_grad():
        fast = optimize(model, x)
        torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)
    assert sum(isinstance(m, FusedConv) for m in fast.modules()) == 6


def test_shortcuts_of_a_residual_network_are_written_over():
    model, x = awake(build_model("i3d_r50", num_classes=5, alpha=0.25)), torch.zeros(1, 3, 8, 224, 224)
    network = lower(fold_norms(model, x))
    fused = fuse_convolutions(network, x)
    assert sum(m.in_place for m in fused.modules() if isinstance(m, FusedConv)) == 16
    assert not any(isinstance(m, nn.ReLU) for m in fused.modules())


def test_convolutions_whose_input_is_merged_by_a_hook_are_left():
    model = octavize(
        torchvision.models.resnext50_32x4d(num_classes=5), 0.25, keep_dense=lambda name, conv: name == "layer1.0.conv2"
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        fast = optimize(awake(model), x)
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-4)
    assert any(isinstance(m, FusedConv) for m in fast.modules())
    assert not isinstance(fast.get_submodule("network.layer1.0.conv2"), FusedConv)


def test_a_type_of_its_own():
    model, x = awake(build_model("c2d_r50", num_classes=5, alpha=0.5)), torch.randn(1, 3, 8, 224, 224)
    with torch.no_grad():
        expected = model(x)
        fast = optimize(model, x, dtype=torch.bfloat16)  # torch's avg_pool3d has no bfloat16 on a CPU
        out = fast(x)
    assert out.dtype == torch.float32
    assert {p.dtype for p in fast.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(out, expected, rtol=0, atol=0.05 * max(1.0, float(expected.abs().max())))


def test_compiled():
    network = nn.Sequential(
        nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv3d(8, 8, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    model, x = awake(octavize(network, 0.25)), torch.randn(1, 3, 4, 24, 24)
    assert any(isinstance(m, OctConv3d) for m in model.modules())
    with torch.no_grad():
        fast = optimize(model, x, compile=True)
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-4)
    assert not isinstance(fast, FastNetwork)  # torch's wrapper around it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 2])
def test_small_maps_and_batches_of_none(groups, dtype):
    """Of one place or less than the kernel, where torch's own kernels of bfloat16 give numbers from elsewhere."""
    network = nn.Sequential(
        nn.Conv3d(8, 8, (5, 3, 3), (4, 2, 2), (5, 2, 3), (2, 1, 2), groups), nn.ReLU(),
        nn.Conv3d(8, 8, (1, 1, 3), (1, 2, 2), 0, (1, 2, 3), groups),
        octave_from_dense(nn.Conv3d(8, 8, (1, 1, 2), (1, 1, 2), groups=groups), 0, 0),
    ).eval()  # fmt: skip
    with torch.no_grad():
        fast = optimize(network, torch.randn(2, 8, 9, 9, 24), dtype=dtype)
        assert sum(isinstance(m, FusedConv) for m in fast.modules()) == 3
        for shape in [(2, 8, 3, 2, 20), (1, 8, 1, 1, 19), (0, 8, 3, 4, 20)]:
            x = torch.randn(shape)
            tolerance = 1e-4 if dtype == torch.float32 else 0.03
            torch.testing.assert_close(fast(x), network(x), rtol=tolerance, atol=tolerance)
