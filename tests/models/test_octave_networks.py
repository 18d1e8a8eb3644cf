"""Every builder at alpha above 0: names of the dense network, odd sizes, a gradient for every parameter."""

import math

import pytest
import torch
from torch import nn

from octvideo.analysis.shapes import ShapesOnly
from octvideo.models import BUILDERS, IMAGE_BUILDERS, build_model
from octvideo.models.slowfast import SlowFast

# One network of each family computes; the others pass sizes only (on the meta device).
COMPUTED = [
    "c2d_r50",
    "i3d_r50_nln",
    "slowfast_r50_4x16",
    "x3d_xs",
    "r2plus1d_r50",
    "csn_r101",
    "s3d",
    "r3d_18",
    "mc3_18",
    "r2plus1d_18",
    "resnet18",
    "resnet26",
    "se_resnet50",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v1",
    "mobilenet_v2",
]
ALL = [*BUILDERS, *IMAGE_BUILDERS]


def build(name, alpha, octave="spatial"):
    """A network with 5 classes whose head takes maps of any size and whose blocks all take part."""
    net = build_model(name, num_classes=5, alpha=alpha, octave=octave, dropout=0.0)
    for parent in list(net.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, nn.AvgPool3d) and "MotionEnergy" not in type(parent).__name__:
                setattr(parent, child_name, nn.AdaptiveAvgPool3d(1))
        if isinstance(parent, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(parent.weight)
    return net


def odd_input(name, net, device):
    if name in IMAGE_BUILDERS:
        return torch.randn(2, 3, 65, 75, device=device)
    frames = 8 if isinstance(net, SlowFast) else 9
    return torch.randn(2, 3, frames, 37, 51, device=device)


def without_gradient(net):
    """Parameters that no gradient reached, or a bad one; a bias before a norm has none but rounding."""
    bad = []
    for name, parameter in net.named_parameters():
        total = None if parameter.grad is None else float(parameter.grad.abs().sum())
        if total is None or not math.isfinite(total) or (total == 0 and not name.endswith("bias")):
            bad.append(name)
    return bad


@pytest.mark.parametrize("name", ALL)
def test_names_do_not_depend_on_alpha_and_odd_sizes_pass(name):
    with ShapesOnly(), torch.device("meta"):
        dense, ours = build(name, 0), build(name, 0.25)
        logits = ours(odd_input(name, ours, "meta"))
        logits.sum().backward()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in dense.state_dict().items()}
    assert logits.shape == (2, 5)
    assert [n for n, p in ours.named_parameters() if p.grad is None or p.grad.shape != p.shape] == []


@pytest.mark.parametrize("name", COMPUTED)
def test_octave_networks_train_on_odd_sizes(name):
    torch.manual_seed(0)
    net = build(name, 0.25)
    logits = net(odd_input(name, net, "cpu"))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    assert without_gradient(net) == []


@pytest.mark.parametrize("octave", ["temporal", "spatiotemporal"])
@pytest.mark.parametrize("name", [n for n in COMPUTED if n in BUILDERS])
def test_octaves_in_time_pass_odd_sizes(name, octave):
    with ShapesOnly(), torch.device("meta"):
        net = build(name, 0.25, octave)
        assert net(odd_input(name, net, "meta")).shape == (2, 5)


def test_images_have_no_octave_in_time():
    with pytest.raises(ValueError, match="octave"):
        build_model("resnet18", num_classes=5, alpha=0.25, octave="temporal")


def test_widths():
    for name in ("mobilenet_v1", "mobilenet_v2"):
        with pytest.raises(ValueError, match="width must be above 0.*got 0"):
            IMAGE_BUILDERS[name](width=0)
