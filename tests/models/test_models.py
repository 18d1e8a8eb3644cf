"""All builders: against PyTorchVideo with the same weights, and against a table of counted multiply-adds."""

import math

import pytest
import torch
from pytorchvideo.models import hub
from pytorchvideo.models.slowfast import create_slowfast
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from octvideo.layers import OctConv3d
from octvideo.models import BUILDERS, GridHead, MotionEnergy, SlowFast, build_model
from octvideo.models.slowfast import slow_frames

SMALL = {
    "resnet3d_tiny": (1, 3, 16, 48, 48),
    "resnet3d_small": (1, 3, 16, 112, 112),
    "energy_resnet3d": (1, 3, 65, 72, 96),
}
LARGE = [n for n in BUILDERS if n not in SMALL]
ALPHAS = (0, 0.1, 0.125, 0.2, 0.25, 0.5)

# Multiply-adds of convolutions and linear layers, in 1e9, for one view of 224 x 224 and the network's own frames
# (8, SlowFast 32; small networks as in SMALL), and parameters in 1e6, 400 classes.
GMACS = {
    "c2d_r50": ((19.49, 17.51, 16.95, 15.65, 14.71, 11.15), 24.33),
    "i3d_r50": ((28.41, 25.78, 25.05, 23.33, 22.10, 17.44), 28.04),
    "i3d_r101": ((46.96, 41.73, 40.34, 36.89, 34.56, 25.56), 51.75),
    "slow_r50": ((41.74, 37.52, 36.38, 33.58, 31.66, 24.11), 32.45),
    "slowfast_r50_4x16": ((27.64, 25.13, 24.37, 22.70, 21.48, 16.85), 34.48),
    "slowfast_r50_8x8": ((50.31, 45.50, 44.11, 40.92, 38.64, 29.87), 34.57),
    "slowfast_r101_8x8": ((96.40, 85.15, 82.09, 74.63, 69.60, 50.03), 62.83),
    "resnet3d_tiny": ((0.2884, 0.2717, 0.2663, 0.2559, 0.2462, 0.2117), 0.556),
    "resnet3d_small": ((3.4566, 3.2187, 3.1302, 2.9636, 2.8302, 2.3094), 2.457),
    "energy_resnet3d": ((0.0913, 0.0854, 0.0829, 0.0791, 0.0754, 0.0629), 1.337),
}


def clip_shape(name):
    if name in SMALL:
        return SMALL[name]
    return (1, 3, 32 if "slowfast" in name else 8, 224, 224)


def gmacs(model, shape):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2e9  # torch counts two operations per multiply-add


def on_meta(name, alpha, octave="spatial"):
    with torch.device("meta"):
        return build_model(name, num_classes=400, alpha=alpha, octave=octave).eval()


@pytest.mark.parametrize("name", BUILDERS)
def test_counted_multiply_adds_and_parameters(name):
    expected, parameters_m = GMACS[name]
    for alpha, value in zip(ALPHAS, expected, strict=True):
        model = on_meta(name, alpha)
        assert gmacs(model, clip_shape(name)) == pytest.approx(value, rel=0.005)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters_m, abs=0.01)


@pytest.mark.parametrize(
    ("name", "octave"),
    [(n, "spatial") for n in BUILDERS] + [("i3d_r50", "temporal"), ("slowfast_r50_4x16", "spatiotemporal")],
)
def test_state_dict_does_not_depend_on_alpha(name, octave):
    dense, ours = on_meta(name, 0), on_meta(name, 0.25, octave)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in dense.state_dict().items()}
    assert gmacs(ours, clip_shape(name)) < gmacs(dense, clip_shape(name))


PEERS = {
    "c2d_r50": lambda: hub.c2d_r50(),
    "i3d_r50": lambda: hub.i3d_r50(),
    "slow_r50": lambda: hub.slow_r50(),
    "slowfast_r50_8x8": lambda: hub.slowfast_r50(),
    "slowfast_r50_4x16": lambda: create_slowfast(
        slowfast_fusion_conv_kernel_size=(5, 1, 1),
        slowfast_fusion_conv_stride=(8, 1, 1),
        head_pool_kernel_sizes=((4, 7, 7), (32, 7, 7)),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_alpha_zero_equals_pytorchvideo_with_the_same_weights(name):
    peer, ours = PEERS[name]().eval(), build_model(name, num_classes=400).eval()
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    ours.load_state_dict(peer.state_dict())
    clip = torch.randn(clip_shape(name))
    with torch.no_grad():
        peer_input = clip
        if isinstance(ours, SlowFast):
            index = torch.linspace(0, 31, 32 // ours.frame_ratio).long()  # as PySlowFast draws the slow frames
            peer_input = [clip[:, :, index], clip]
        assert torch.equal(ours(clip), peer(peer_input))


@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
def test_constant_clip_gives_the_dense_output_across_slowfast(octave):
    """Also after its lateral connections: every dense weight meets its own channel."""
    dense = build_model("slowfast_r50_8x8", num_classes=7)
    ours = build_model("slowfast_r50_8x8", num_classes=7, alpha=0.1, octave=octave)
    ours.load_state_dict(dense.state_dict())
    for model in (dense, ours):
        generator = torch.Generator().manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.weight.data = torch.rand(module.num_features, generator=generator) + 0.5
            elif isinstance(module, nn.Conv3d):
                module.padding_mode = "replicate"
                module._reversed_padding_repeated_twice = [p for q in reversed(module.padding) for p in (q, q)]
            if isinstance(module, OctConv3d):
                module.geometry = module.geometry._replace(padding_mode="replicate")
        model.double().eval()
        model.blocks[5].pool = nn.ModuleList([nn.AdaptiveAvgPool3d(1), nn.AdaptiveAvgPool3d(1)])
    clip = torch.randn(1, 3, 1, 1, 1, dtype=torch.float64).expand(-1, -1, 16, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), dense(clip))


@pytest.mark.parametrize("alpha", [0, 0.25, 0.9, 1])
@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_train_on_odd_sizes(name, alpha, octave):
    model = build_model(name, num_classes=5, alpha=alpha, octave=octave)
    logits = model(torch.randn(2, 3, 7, 37, 50))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not 0 < p.grad.abs().sum() < math.inf] == []


def test_the_papers_plan():
    """Stem dense, alpha_in 0 at the first octave layer, all of res5 writes dense maps (paper section 4.1)."""
    model = build_model("i3d_r50", num_classes=400, alpha=0.125)
    first, last = model.blocks[1].res_blocks, model.blocks[5].res_blocks
    assert type(model.blocks[0].conv) is nn.Conv3d
    assert (first[0].branch2.conv_a.alpha_in, first[0].branch2.conv_a.alpha_out) == (0, 0.125)
    assert (first[0].branch1_conv.alpha_in, first[0].branch1_conv.alpha_out) == (0, 0.125)
    assert (first[1].branch2.conv_a.alpha_in, first[1].branch2.conv_a.alpha_out) == (0.125, 0.125)
    assert (last[0].branch2.conv_a.alpha_in, last[0].branch2.conv_a.alpha_out) == (0.125, 0)
    assert (last[0].branch1_conv.alpha_in, last[0].branch1_conv.alpha_out) == (0.125, 0)
    assert type(last[0].branch2.conv_b) is type(last[2].branch2.conv_c) is nn.Conv3d


def test_motion_energy_sees_only_what_changes():
    """Against its definition, one output frame at a time; a still clip is constant, whatever it shows."""
    clip = torch.rand(2, 3, 10, 4, 5, dtype=torch.float64)
    grey = clip.mean(1)
    for sample, out in zip(grey, MotionEnergy(steps=4)(clip)[:, 0], strict=True):
        change = [(sample[t + 1] - sample[t]).abs() for t in range(9)]
        energy = torch.stack([torch.stack(change[t : t + 4]).mean(0) for t in (0, 4, 8)]).sqrt()
        torch.testing.assert_close(out, energy / energy.square().mean().sqrt() - 0.7, rtol=1e-4, atol=1e-4)
    still = clip[:, :, :1].expand(-1, -1, 10, -1, -1)
    assert MotionEnergy(steps=4)(still).std() == 0


def test_the_grid_head_keeps_where_something_happened():
    head = GridHead(2, (1, 2, 2), num_classes=3, dropout=0.0)
    x = torch.zeros(2, 2, 4, 6, 6)
    x[0, :, :, :3, :3], x[1, :, :, 3:, 3:] = 1, 1
    a, b = head(x)
    assert not torch.allclose(a, b)


def test_slow_frames():
    assert slow_frames(32, 8) == [0, 10, 20, 31]
    assert slow_frames(8, 8) == [0]
    with pytest.raises(ValueError, match="multiple of 8; got 20"):
        slow_frames(20, 8)


def test_model_names():
    with pytest.raises(ValueError, match="unknown model 'i3d_r5': did you mean 'i3d_r50'"):
        build_model("i3d_r5", num_classes=3)
    with pytest.raises(ValueError, match="cannot be imported"):
        build_model("nowhere:net", num_classes=3)
    with pytest.raises(ValueError, match="alpha is the low-frequency share.*got 1.2"):
        build_model("i3d_r50", num_classes=3, alpha=1.2)
    own = build_model("octvideo.models.small:resnet3d_tiny", num_classes=3, alpha=0.25)
    assert isinstance(own, nn.Module)
