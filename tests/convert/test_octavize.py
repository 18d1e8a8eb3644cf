"""octavize on networks that are not ours."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from octvideo.convert import deoctavize, octavize, plan_octaves
from octvideo.layers import OctConv2d, OctConv3d, Pairwise

OCTAVES = ("spatial", "temporal", "spatiotemporal")


class FunctionalNet(nn.Module):
    """Functions in place of layers, and an addition in place."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(3, 8, 3, 2, 1), nn.BatchNorm3d(8)
        self.conv2, self.bn2 = nn.Conv3d(8, 16, 3, 1, 1), nn.BatchNorm3d(16)
        self.conv3 = nn.Conv3d(16, 16, 3, 1, 1)
        self.conv4 = nn.Conv3d(16, 16, 3, 2, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x += self.conv3(x)
        x = torch.relu(self.conv4(x))
        return self.fc(x.mean([2, 3, 4]))


def sequential(*middle):
    return nn.Sequential(
        nn.Conv3d(3, 8, 3, (1, 2, 2), 1), nn.BatchNorm3d(8), nn.ReLU(), *middle, nn.Conv3d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def video_net(name):
    return getattr(torchvision.models.video, name)(num_classes=5)


NETWORKS = {
    "functional": FunctionalNet,
    "sequential": lambda: sequential(nn.Conv3d(8, 8, 3, 1, 1), nn.BatchNorm3d(8), nn.SiLU(), nn.MaxPool3d(2)),
    "r3d_18": lambda: video_net("r3d_18"),
    "mc3_18": lambda: video_net("mc3_18"),
    "r2plus1d_18": lambda: video_net("r2plus1d_18"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_alpha_zero_is_the_network_itself(name):
    torch.manual_seed(3)
    model = NETWORKS[name]().eval()
    x = torch.randn(1, 3, 5, 33, 30)
    expected = model(x)
    assert octavize(model, 0) is model
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("octave", OCTAVES)
@pytest.mark.parametrize("name", NETWORKS)
def test_constant_input_gives_the_dense_output(name, octave):
    """Across a whole network, with its own batch statistics: the octave changes only what varies in space or time."""
    torch.manual_seed(3)
    model = NETWORKS[name]().double().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.padding_mode = "replicate"
            module._reversed_padding_repeated_twice = [p for q in reversed(module.padding) for p in (q, q)]
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(1, 3, 1, 1, 1, dtype=torch.float64).expand(-1, -1, 5, 33, 30)
    expected, keys = model(x), {k: v.shape for k, v in model.state_dict().items()}
    octavize(model, 0.25, octave)
    assert sum(isinstance(m, OctConv3d) for m in model.modules()) > 0
    torch.testing.assert_close(model(x), expected)
    assert {k: v.shape for k, v in model.state_dict().items()} == keys


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(3)
    model = octavize(NETWORKS[name](), 0.5)
    model(torch.randn(2, 3, 4, 33, 30)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_images():
    torch.manual_seed(3)
    model = torchvision.models.resnet18(num_classes=5).eval()
    shape = model(torch.randn(1, 3, 65, 50)).shape
    octavize(model, 0.25)
    assert model(torch.randn(1, 3, 65, 50)).shape == shape
    assert isinstance(model.layer2[0].conv1, OctConv2d)
    assert type(model.layer4[1].conv1) is nn.Conv2d
    assert model.layer4[0].conv1.alpha_out == 0 < model.layer4[0].conv1.alpha_in
    assert model.layer4[0].downsample[0].alpha_out == 0


class ChannelShuffle(nn.Module):
    def forward(self, x):
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)


class CustomAct(nn.Hardshrink):
    def forward(self, x):
        return Custom.apply(x)


def test_what_cannot_take_a_pair_gets_the_merged_map():
    model = sequential(nn.Conv3d(8, 8, 3, 1, 1), ChannelShuffle(), nn.Conv3d(8, 8, 3, 1, 1), CustomAct())
    with pytest.raises(ValueError, match="Custom is a custom autograd function.*give an input"):
        plan_octaves(model, 0.5)
    plan = plan_octaves(model, 0.5, example=torch.randn(1, 3, 4, 9, 9))
    assert "6: merges its input" in str(plan)
    assert (plan.merges, plan.merging_functions) == (["6"], ["unflatten"])
    assert "unflatten: merges its input" in str(plan)
    x = torch.randn(1, 3, 1, 1, 1).expand(-1, -1, 4, 9, 9)
    expected = model.eval()(x).shape
    assert octavize(model, plan=plan)(x).shape == expected


def test_a_grouped_convolution_runs_on_pairs_where_its_groups_divide_them():
    def build():
        return sequential(nn.Conv3d(8, 8, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3, 1, 1, groups=2))

    half, quarter = octavize(build(), 0.5), octavize(build(), 0.25)
    assert half[3].out_segments == half[6].out_segments == ((2, 2),) * 2
    assert quarter[6].out_segments == ((3, 1),) * 2
    merged = octavize(build(), 0.125)  # one low channel cannot be shared out among 2 groups
    assert type(merged[6]) is nn.Conv3d
    assert "6: merges its input" in str(plan_octaves(build(), 0.125))
    for net in (half, quarter, merged):
        assert net(torch.randn(1, 3, 4, 9, 9)).shape == (1, 4)


def test_keep_dense():
    model = octavize(FunctionalNet(), 0.5, keep_dense=lambda name, conv: name == "conv2")
    assert type(model.conv2) is nn.Conv3d
    assert model.conv3.alpha_in == 0
    assert model(torch.randn(1, 3, 4, 9, 9)).shape == (1, 5)


def test_alphas_by_module():
    model = torchvision.models.resnet18(num_classes=5)
    octavize(model, {"layer2": 0.5, "layer3": 0.25, "layer3.1.conv1": 0.75})
    assert type(model.layer1[0].conv1) is nn.Conv2d
    assert (model.layer2[1].conv1.alpha_in, model.layer2[1].conv1.alpha_out) == (0.5, 0.5)
    assert (model.layer3[0].conv1.alpha_in, model.layer3[0].downsample[0].alpha_out) == (0.5, 0.25)
    assert (model.layer3[1].conv2.alpha_in, model.layer3[1].conv2.alpha_out) == (0.75, 0.25)
    assert (model.layer4[0].conv1.alpha_in, model.layer4[0].conv1.alpha_out) == (0.25, 0)
    assert model(torch.randn(1, 3, 65, 50)).shape == (1, 5)
    with pytest.raises(ValueError, match="alpha names the module 'layer9', which ResNet does not have"):
        octavize(torchvision.models.resnet18(), {"layer9": 0.5})
    with pytest.raises(ValueError, match="alpha of 'layer2' is the low-frequency share.*got 2"):
        octavize(torchvision.models.resnet18(), {"layer2": 2})


@pytest.mark.parametrize("alpha", [0.1, 0.125, 0.5])
def test_low_channels_can_be_rounded_to_a_multiple(alpha):
    net = torchvision.models.video.r3d_18(num_classes=4)
    dense = copy.deepcopy(net)
    octavize(net, alpha, channel_multiple=16)
    found = {}
    for name, conv in net.named_modules():
        if isinstance(conv, OctConv3d):
            found[name] = sum(low for _, low in conv.out_segments)
            if found[name]:
                nearest = min(
                    range(0, conv.out_channels + 1, 16), key=lambda n: (abs(n - alpha * conv.out_channels), n)
                )
                assert found[name] == nearest
    assert found["layer2.0.conv1.0"] == {0.1: 16, 0.125: 16, 0.5: 64}[alpha]
    assert any(name.startswith("layer1") for name in found) == (alpha == 0.5)  # 64 * .125 is half a multiple: dense
    clip = torch.randn(1, 3, 4, 16, 16)
    assert net.eval()(clip).shape == (1, 4)
    assert list(net.state_dict()) == list(dense.state_dict())
    with pytest.raises(ValueError, match="channel_multiple must be 1 or more; got 0"):
        octavize(dense, alpha, channel_multiple=0)


def test_a_plan_can_be_edited():
    plan = plan_octaves(FunctionalNet(), 0.5)
    assert plan.alphas == {"conv2": 0.5, "conv3": 0.5, "conv4": 0}
    assert plan_octaves(FunctionalNet(), plan.alphas) == plan
    plan.convs["conv3"] = dataclasses.replace(plan.convs["conv3"], exchange="none", down_sampling="strided")
    model = octavize(FunctionalNet(), plan=plan)
    assert (model.conv3.exchange, model.conv3.down_sampling, model.conv2.exchange) == ("none", "strided", "both")
    assert "conv3: alpha_in 0.5, alpha_out 0.5, down_sampling strided, exchange none" in str(plan)
    with pytest.raises(ValueError, match="takes a plan, which says all, or an alpha and options; got a plan and .0.5"):
        octavize(FunctionalNet(), 0.5, plan=plan)


def test_paths_and_down_sampling_for_a_whole_network():
    """Layers at the beginning and the end of the octave part keep the one path that they need."""
    model = octavize(FunctionalNet(), 0.5, down_sampling="strided", exchange="none")
    assert [model.conv2.exchange, model.conv3.exchange, model.conv4.exchange] == ["both", "none", "both"]
    assert model.conv2.down_sampling == model.conv4.down_sampling == "strided"
    assert model(torch.randn(1, 3, 4, 9, 9)).shape == (1, 5)


class Cell(nn.Module):
    """What a network may do in one line, after two convolutions that write pairs."""

    def __init__(self, act):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.last, self.gain, self.act = nn.Conv2d(8, 4, 1), nn.Parameter(torch.tensor(0.7)), act

    def forward(self, x):
        x = self.stem(x)
        return self.last(self.act(self, x, self.a(x), self.b(x))).mean((2, 3))


def sum_in_place(net, x, a, b):
    keep = [a]
    a += b
    return keep[0] + a


def add_to_a_dense_map(net, x, a, b):
    x = x.clone()
    x.add_(a)
    return x + b


def clamp_in_place(net, x, a, b):
    a.clamp_(min=0)
    return a + b


CELLS = {
    "sum in place": sum_in_place,
    "add to a dense map": add_to_a_dense_map,
    "clamp in place": clamp_in_place,
    "dense += pair": lambda net, x, a, b: x.clone().mul_(a).add_(b),
    "power": lambda net, x, a, b: a**2 + b,
    "reciprocal": lambda net, x, a, b: 1 / (a * a + 1) - b,
    "scalar parameter": lambda net, x, a, b: net.gain * a + b,
    "layer scale": lambda net, x, a, b: a * torch.linspace(0, 1, 8).view(8, 1, 1) + b,
    "gate per row": lambda net, x, a, b: a * x[:, :, :, :1].sigmoid() + b,
    "keyword": lambda net, x, a, b: torch.relu(input=a) + torch.clamp(input=b, min=0),
    "where": lambda net, x, a, b: torch.where(a > 0, a, b) + (a == 0).float(),
    "matrix product": lambda net, x, a, b: a + (b.transpose(2, 3) @ b).mean((2, 3), keepdim=True),
    "shape": lambda net, x, a, b: a + b.reshape(b.shape) * b.size(1),
}


@pytest.mark.parametrize("name", CELLS)
def test_what_a_line_of_code_does_to_pairs_is_what_it_does_to_dense_maps(name):
    model = Cell(CELLS[name]).double()
    x = torch.randn(2, 3, 1, 1, dtype=torch.float64).expand(-1, -1, 6, 6)
    expected = model(x)
    for example in (None, torch.randn(1, 3, 4, 4, dtype=torch.float64)):
        octave = octavize(copy.deepcopy(model), 0.25, example=example)
        assert octave.a.alpha_out == 0.25
        torch.testing.assert_close(octave(x), expected)


def test_what_cannot_be_done_in_place_says_so():
    with pytest.raises(AttributeError, match="cannot change in place by 'abs_': use an operation"):
        octavize(Cell(lambda net, x, a, b: a.abs_() + b), 0.25)(torch.randn(1, 3, 4, 4))


class ScaledSum(FunctionalNet):
    """A weight on one summand, which adds dense maps, and a number; methods in place of functions."""

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)) - 0.1
        x = torch.add(x, self.conv3(x).relu_(), alpha=0.1) + 0.5
        return self.fc(self.conv4(x).relu().mean([2, 3, 4]))


class TwoPaths(nn.Module):
    """Lists between modules, and control flow on the input: only a run shows its graph."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, 3, 2, 1)
        self.a, self.b = nn.Conv3d(8, 12, 3, 1, 1), nn.Conv3d(8, 12, 1)
        self.last = nn.Conv3d(24, 8, 1)

    def forward(self, clips):
        if clips[0].sum() > clips[1].sum():
            clips.reverse()
        a, b = self.a(self.stem(clips[0])), self.b(self.stem(clips[1]))
        return self.last(torch.cat([a * 2, F.relu(b, inplace=True)], dim=1)).mean((2, 3, 4))


def test_a_network_that_cannot_be_traced_is_recorded_on_an_example():
    clips = [torch.randn(1, 3, 4, 9, 8), torch.randn(1, 3, 4, 9, 8)]
    model = TwoPaths().eval()
    with pytest.raises(ValueError, match="cannot be traced.*give an input of it as example="):
        octavize(model, 0.25)
    with pytest.raises(ValueError, match="TwoPaths fails on the example input"):
        octavize(model, 0.25, example=clips[0])
    octavize(model, 0.25, example=clips)
    assert (model.a.alpha_out, model.b.alpha_out, model.last.in_low) == (0.25, 0.25, 6)
    assert model(clips).shape == (1, 8)
    assert model.training is False


def test_the_two_tracers_agree():
    networks = [
        (FunctionalNet(), (4, 33, 33)),
        (torchvision.models.densenet121(), (33, 33)),
        (video_net("r2plus1d_18"), (4, 33, 33)),
    ]
    for model, size in networks:
        assert plan_octaves(model, 0.25) == plan_octaves(model, 0.25, example=torch.randn(1, 3, *size))


def test_a_weighted_sum_is_one_of_dense_maps():
    plan = plan_octaves(ScaledSum(), 0.5)
    assert (plan.merges, plan.merging_functions) == ([], ["add"])
    model = octavize(ScaledSum(), 0.5)
    assert model(torch.randn(1, 3, 4, 9, 9)).shape == (1, 5)


@pytest.mark.parametrize("name", NETWORKS)
def test_deoctavize_returns_the_dense_network(name):
    model = NETWORKS[name]().eval()
    x = torch.randn(1, 3, 5, 33, 30)
    expected, keys, kinds = model(x), list(model.state_dict()), [type(m) for m in model.modules()]
    assert deoctavize(octavize(model, 0.5)) is model
    assert torch.equal(model(x), expected)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == kinds
    assert plan_octaves(model, 0.5).convs


class Shared(nn.Module):
    """A convolution on a dense map and on a pair; sums of pairs split otherwise; a module named as a function."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.shared = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.flip, self.wide, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.shared(self.stem(x))
        y = self.shared(input=self.a(x)) + self.flip(torch.flip(self.a(x), [2]))
        both = torch.cat([self.wide(y), self.wide(y)], dim=1)
        return self.last(both + y).mean((2, 3))


def test_convolutions_that_cannot_be_octaves_are_kept_dense_one_by_one():
    x = torch.randn(2, 3, 1, 1, dtype=torch.float64).expand(-1, -1, 4, 4)
    model = Shared().double()
    expected = model(x)
    for example in (None, x):
        plan = plan_octaves(model, 0.3, example=example)
        assert "shared" in plan.kept_dense
        assert "a" in plan.convs
        assert "shared: kept dense" in str(plan)
        torch.testing.assert_close(octavize(copy.deepcopy(model), plan=plan)(x), expected)
    alphas = {"layer2": 0.5, "layer3": 0.25, "layer3.1.conv2": 0.75}
    plan = plan_octaves(torchvision.models.resnet18(), alphas)
    assert plan.convs["layer3.0.conv1"].alpha_out == 0.25
    assert plan.kept_dense == ["layer3.1.conv2"]


def test_other_kinds_of_convolutions_are_left_alone():
    class Standardised(nn.Conv2d):
        def _conv_forward(self, x, weight, bias):
            return super()._conv_forward(x, weight - weight.mean(), bias)

    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), Standardised(8, 8, 1),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 4, 1),
    ).double()  # fmt: skip
    x = torch.randn(2, 3, 1, 1, dtype=torch.float64).expand(-1, -1, 4, 4)
    expected = model(x)
    octavize(model, {"1": 0.5})
    assert isinstance(model[1], OctConv2d)
    torch.testing.assert_close(model(x), expected)


def test_an_octave_network_at_alphas_of_zero_is_the_network():
    model = FunctionalNet()
    assert octavize(model, {"conv2": 0}) is model
    assert type(model.conv2) is nn.Conv3d


@pytest.mark.parametrize("pool", [nn.MaxPool3d(3, 1), nn.AvgPool3d(2, 1)])
def test_a_pooling_that_no_low_part_can_follow_gets_the_merged_map(pool):
    model = octavize(sequential(nn.Conv3d(8, 8, 3, 1, 1), pool, nn.ReLU()), 0.5)
    assert model[4] is pool
    assert model(torch.randn(1, 3, 5, 11, 11)).shape == (1, 4)


def test_a_shared_layer_is_swapped_wherever_it_stands():
    act = nn.ReLU()
    model = octavize(sequential(nn.Conv3d(8, 8, 1), act, nn.Conv3d(8, 8, 1), act), 0.5)
    assert isinstance(model[4], Pairwise)
    assert model[4] is model[6]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 3)), "nothing to convert in Sequential: it has 0 stages"),
        (lambda: nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 5, 3)), "nothing to convert.*has 2 stages"),
        (
            lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.Conv3d(8, 8, 3, 3), nn.Conv3d(8, 8, 3)),
            "convolution '1' cannot write an octave map, since on octave axis H the stride must be 1 or even; got 3",
        ),
        (lambda: sequential(nn.Conv3d(8, 2, 1)), "nothing to convert.*their alpha is 0 or too small"),
        (lambda: torchvision.models.vit_b_16(), "nothing to convert in VisionTransformer|cannot be traced"),
        (lambda: octavize(FunctionalNet(), 0.5), "is an octave network already"),
    ],
)
def test_networks_that_cannot_be_converted(model, message):
    with pytest.raises(ValueError, match=message):
        octavize(model(), 0.25)


@pytest.mark.parametrize("alpha", [1.2, -1, "a", None])
def test_wrong_alpha(alpha):
    with pytest.raises(ValueError, match="alpha is the low-frequency share"):
        octavize(FunctionalNet(), alpha)


def test_wrong_octave():
    with pytest.raises(ValueError, match="octave must be one of"):
        octavize(FunctionalNet(), 0, "frequency")
