"""Octave convolutions that lay what they read channels-last."""

import copy

import pytest
import torch
from torch import nn

from octvideo import octavize
from octvideo.layers import OctConv3d, OctPair, lay_channels_last, split
from octvideo.layers.lowering import is_channels_last
from octvideo.models import build_model


def network():
    return nn.Sequential(
        OctConv3d(3, 16, (1, 3, 3), padding=(0, 1, 1), alpha_in=0, alpha_out=0.25),
        OctConv3d(16, 24, (3, 1, 1), padding=(1, 0, 0), alpha_in=0.25, alpha_out=0.5),
        OctConv3d(24, 8, 3, padding=1, alpha_in=0.5, alpha_out=0.25),
        OctConv3d(8, 6, 1, alpha_in=0.25, alpha_out=0),
    )


def maps_between(model, x):
    """What each convolution reads."""
    seen = []
    for module in model:
        module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    return model(x), seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_outputs_and_gradients_are_the_same(dtype):
    torch.manual_seed(0)
    plain = network().to(dtype)
    laid = lay_channels_last(copy.deepcopy(plain))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    x = torch.randn(2, 3, 5, 9, 12, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(laid(x), plain(x), rtol=tolerance, atol=tolerance)
    for model in (plain, laid):
        model(x).square().sum().backward()
    for ours, theirs in zip(laid.parameters(), plain.parameters(), strict=True):
        scale = float(theirs.grad.abs().max())
        torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, rtol=tolerance, atol=tolerance)


def test_pairs_lie_channels_last_in_the_types_that_gain():
    for dtype, gains in ((torch.float32, True), (torch.bfloat16, True), (torch.float64, False)):
        with torch.no_grad():
            out, seen = maps_between(lay_channels_last(network().to(dtype)), torch.randn(2, 3, 4, 8, 8, dtype=dtype))
        pairs = [x for x in seen if isinstance(x, OctPair)]
        assert [is_channels_last(part) for pair in pairs for part in pair.parts] == [gains] * 6
        assert is_channels_last(out) == gains


def test_training_leaves_kernels_over_time_and_space_their_layout():
    conv = lay_channels_last(OctConv3d(8, 8, 3, padding=1, alpha_in=0.5, alpha_out=0.5))
    pair = split(torch.randn(2, 8, 4, 8, 8), 0.5)
    assert not is_channels_last(conv(pair).high)
    with torch.no_grad():
        assert is_channels_last(conv(pair).high)


def test_built_networks_do_it_and_other_peoples_where_they_are_asked_to():
    def lays(model):
        return {m.lays_channels_last for m in model.modules() if isinstance(m, OctConv3d)}

    assert lays(build_model("resnet3d_tiny", num_classes=3, alpha=0.25)) == {True}
    theirs = octavize(nn.Sequential(*(nn.Conv3d(4, 4, 1) for _ in range(4))), {"1": 0.5})
    assert lays(theirs) == {False}
    assert lays(lay_channels_last(theirs)) == {True}


def test_transforms_and_exporters_run_through():
    torch.manual_seed(0)
    model, x = lay_channels_last(network()), torch.randn(3, 2, 3, 4, 8, 8)
    with torch.no_grad():
        expected = torch.stack([model(clips) for clips in x])
        torch.testing.assert_close(torch.func.vmap(model)(x), expected, rtol=1e-4, atol=1e-5)
        program = torch.export.export(model, (x[0],)).module()
        torch.testing.assert_close(program(x[2]), expected[2], rtol=1e-4, atol=1e-5)
