"""Activation checkpointing changes memory only."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo.layers import convert_sync_batchnorm
from octvideo.models import build_model
from octvideo.training import checkpoint_activations


class Pathways(nn.Module):
    """A block that writes into its list, as PyTorchVideo's networks of several pathways do."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleDict({str(i): nn.Conv3d(3, 3, 1) for i in range(2)})

    def forward(self, maps):
        for i in range(2):
            maps[i] = self.convs[str(i)](maps[i]).relu()
        return maps


class TwoPathways(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Pathways(), Pathways()])
        self.norm = nn.BatchNorm3d(3)

    def forward(self, x):
        maps = [x, x * 2]
        for block in self.blocks:
            maps = block(maps)
        return self.norm(maps[0] + maps[1]).mean((2, 3, 4))


def octave_network(name, octave):
    return build_model(name, num_classes=3, alpha=0.25, octave=octave, dropout=0.5)


def step(network, clip):
    """Logits, gradients, and the bytes that are kept for the backward pass outside of recomputed blocks."""
    kept = {}
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) and t, lambda t: t
    ):
        logits = network(clip)
    F.cross_entropy(logits, torch.tensor([0, 2])).backward()
    return logits, {name: p.grad for name, p in network.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize(
    "build",
    [
        lambda: octave_network("resnet3d_tiny", "spatial"),
        lambda: octave_network("r3d_18", "spatiotemporal"),
        lambda: convert_sync_batchnorm(octave_network("resnet3d_tiny", "temporal")),
        TwoPathways,
    ],
)
def test_outputs_gradients_and_statistics_are_the_same(build):
    torch.manual_seed(0)
    plain = build().train()
    names = list(plain.state_dict())
    recomputed = copy.deepcopy(checkpoint_activations(copy.deepcopy(plain)))
    clip = torch.randn(2, 3, 4, 20, 22)
    for _ in range(2):
        for network in (plain, recomputed):
            network.zero_grad()
        expected, got = step(plain, clip), step(recomputed, clip)
        assert torch.equal(got[0], expected[0])
        torch.testing.assert_close(got[1], expected[1], rtol=0, atol=0)
        assert got[2] < expected[2] * 0.8
    assert list(recomputed.state_dict()) == names
    for name, value in plain.state_dict().items():
        assert torch.equal(recomputed.state_dict()[name], value), name


def test_a_network_without_blocks_is_named():
    with pytest.raises(ValueError, match="finds no block of two or more convolutions in Conv3d"):
        checkpoint_activations(nn.Conv3d(3, 3, 1))
