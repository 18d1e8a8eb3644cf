"""The video networks that octvideo adds something to: SlowFast, the small ones, motion energy; and names of models."""

import math

import pytest
import torch
from torch import nn

from octvideo.models import GridHead, MotionEnergy, build_model
from octvideo.models.slowfast import slow_frames

SMALL = ["resnet3d_tiny", "resnet3d_small", "energy_resnet3d"]


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
    with pytest.raises(ValueError, match="unknown model 'se_resnet5': did you mean 'se_resnet50'"):
        build_model("se_resnet5", num_classes=3)
    with pytest.raises(ValueError, match="cannot be imported"):
        build_model("nowhere:net", num_classes=3)
    with pytest.raises(ValueError, match="alpha is the low-frequency share.*got 1.2"):
        build_model("i3d_r50", num_classes=3, alpha=1.2)
    own = build_model("octvideo.models.small:resnet3d_tiny", num_classes=3, alpha=0.25)
    assert isinstance(own, nn.Module)
