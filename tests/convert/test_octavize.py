"""octavize on networks that are not ours."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from octvideo.convert import octavize, plan_octaves
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


def test_a_module_that_cannot_take_a_pair_gets_the_merged_map():
    model = sequential(nn.Conv3d(8, 8, 3, 1, 1), nn.GroupNorm(2, 8), nn.ReLU())
    plan = plan_octaves(model, 0.5)
    assert list(plan.merges) == ["4"]
    assert "4: merges its input" in str(plan)
    assert octavize(model, 0.5)(torch.randn(1, 3, 4, 9, 9)).shape == (1, 4)


def test_a_grouped_convolution_stays_dense():
    model = sequential(nn.Conv3d(8, 8, 1), nn.Conv3d(8, 8, 3, 1, 1, groups=2), nn.ReLU())
    octavize(model, 0.5)
    assert type(model[4]) is nn.Conv3d
    assert model(torch.randn(1, 3, 4, 9, 9)).shape == (1, 4)


def test_keep_dense_and_an_edited_plan():
    model = octavize(FunctionalNet(), 0.5, keep_dense=lambda name, conv: name == "conv2")
    assert type(model.conv2) is nn.Conv3d
    assert model.conv3.alpha_in == 0
    assert model(torch.randn(1, 3, 4, 9, 9)).shape == (1, 5)
    other = FunctionalNet()
    plan = plan_octaves(other, 0.5, "temporal")
    del plan.convs["conv2"]
    plan.convs["conv3"] = dataclasses.replace(plan.convs["conv3"], alpha_in=0, in_segments=((16, 0),))
    with pytest.raises(ValueError, match="the plan is for alpha 0.5, temporal; got alpha 0.5, spatial"):
        octavize(other, 0.5, plan=plan)
    octavize(other, 0.5, "temporal", plan=plan)
    assert type(other.conv2) is nn.Conv3d
    assert other.conv3.octave == "temporal"
    assert other(torch.randn(1, 3, 4, 9, 9)).shape == (1, 5)


class ScaledSum(FunctionalNet):
    """Additions that a pair cannot follow: a weight on one summand, and a number."""

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x = torch.add(x, self.conv3(x), alpha=0.1) + 0.5
        return self.fc(torch.relu(self.conv4(x)).mean([2, 3, 4]))


def test_sums_that_pairs_cannot_follow_are_left_dense():
    with pytest.raises(ValueError, match="nothing to convert in ScaledSum"):
        octavize(ScaledSum(), 0.5)


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


def test_compiled_equals_eager():
    torch.manual_seed(0)
    model = octavize(sequential(nn.Conv3d(8, 8, 3, 1, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2)), 0.5).eval()
    x = torch.randn(2, 3, 4, 10, 9)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 3)), "nothing to convert in Sequential: it has 0 stages"),
        (lambda: nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Conv3d(4, 5, 3)), "nothing to convert.*has 2 stages"),
        (
            lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.Conv3d(8, 8, 3), nn.Conv3d(8, 8, 3)),
            "convolution '1' cannot write an octave map, since on octave axis H kernel 3.*needs padding 1",
        ),
        (lambda: sequential(nn.Conv3d(8, 2, 1)), "nothing to convert.*channels are too few"),
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
