"""A network in channels-last memory computes and learns the same."""

import copy

import pytest
import torch
from torch import nn

from octvideo.layers import OctConv3d, merge, recompute_pooled, split, to_channels_last
from octvideo.layers.lowering import is_channels_last
from octvideo.models import build_model


@pytest.mark.parametrize(
    ("name", "alpha", "octave", "shape"),
    [
        ("resnet3d_tiny", 0, "spatial", (2, 3, 3, 25, 22)),
        ("resnet3d_tiny", 0.25, "spatiotemporal", (2, 3, 5, 25, 22)),
        ("r2plus1d_18", 0.125, "spatial", (2, 3, 4, 20, 24)),
        ("mobilenet_v2", 0.25, "spatial", (2, 3, 33, 40)),
    ],
)
def test_outputs_and_gradients_stay(name, alpha, octave, shape):
    torch.manual_seed(0)
    plain = build_model(name, num_classes=3, alpha=alpha, octave=octave, dropout=0).double()
    fast = copy.deepcopy(plain)
    parameters = dict(fast.named_parameters())
    fast = to_channels_last(fast)
    assert {name: id(p) for name, p in fast.named_parameters()} == {name: id(p) for name, p in parameters.items()}
    assert list(fast.state_dict()) == list(plain.state_dict())
    clip = torch.randn(shape).double()
    layout = torch.channels_last_3d if clip.dim() == 5 else torch.channels_last
    results = []
    for network, x in ((plain, clip), (fast, clip.contiguous(memory_format=layout))):
        logits = network(x)
        logits.square().sum().backward()
        results.append((logits, [p.grad for p in network.parameters()], dict(network.named_buffers())))
    torch.testing.assert_close(*results)


def test_every_map_stays_channels_last():
    network = to_channels_last(build_model("resnet3d_tiny", num_classes=3, alpha=0.25))
    seen = []
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.BatchNorm3d)):
            module.register_forward_hook(lambda m, args, out: seen.extend([args[0], out]))
    network(torch.randn(2, 3, 4, 32, 32).contiguous(memory_format=torch.channels_last_3d))
    parts = [part for x in seen for part in (x.parts if hasattr(x, "segments") else [x]) if part.shape[1]]
    assert len(parts) > 30
    assert all(map(is_channels_last, parts))


@pytest.mark.parametrize("octave", ["spatial", "spatiotemporal"])
def test_pooled_maps_are_not_kept_but_pooled_again(octave):
    """Kept are then the two parts of the input, the weight, and what autograd notes in passing; no joined input."""
    torch.manual_seed(0)
    conv = OctConv3d(16, 8, 3, 2, 1, alpha_in=0.25, alpha_out=0.25, octave=octave).double()
    pair = split(torch.randn(2, 16, 7, 9, 6).double(), 0.25, octave).map(torch.Tensor.requires_grad_)
    results, kept = [], []
    for module in (conv, recompute_pooled(copy.deepcopy(conv))):
        saved = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=saved: s.setdefault(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) and t,
            lambda t: t,
        ):
            out = module(pair)
        grads = torch.autograd.grad(merge(out).square().sum(), [*pair.parts, module.weight, module.bias])
        results.append([*out.parts, *grads])
        kept.append(sum(saved.values()))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    assert kept[1] < kept[0]
