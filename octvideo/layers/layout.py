"""How the maps of a whole network lie in memory, and which of them are kept for the backward pass."""

from __future__ import annotations

from torch import nn

from octvideo.kernels import LAYOUTS
from octvideo.layers.conv import OctConv, dense_kind, octave_from_dense
from octvideo.layers.pool import planar_pool
from octvideo.layers.replace import replace_modules


def to_channels_last(network: nn.Module) -> nn.Module:
    """Make a network fast on channels-last maps, in place, for training too; return the network.

    Weights are put in channels-last memory, and dense 3-D convolutions and poolings run through 2-D views where their
    kernels allow one, as octave convolutions do. State dict and outputs stay the same (but for rounding). Clips
    should come channels-last, too: `clips.contiguous(memory_format=torch.channels_last_3d)`.

    Args:
        network: octave or dense. Its parameters stay the same objects, so an optimizer may hold them already.

    Example:
        >>> from octvideo.models import resnet3d_tiny
        >>> network = to_channels_last(resnet3d_tiny(num_classes=8, alpha=0.25))
    """

    network = replace_modules(network, lambda module: _own_convolution(module) or planar_pool(module))
    for parameter in network.parameters():
        if parameter.dim() in LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[parameter.dim()])
    return network


def lay_channels_last(network: nn.Module) -> nn.Module:
    """Let octave convolutions lay what they read in channels-last memory on a CPU; in place; return the network.

    There what the parts give each other takes one pass: an I3D-R50 takes two thirds of its time as it is, others up to
    all of it. In training, kernels over time and space at once leave a map as it is. What they write lies so, too:
    `reshape` it, for `view` wants contiguous memory. Outputs stay the same but for rounding. The networks of
    `octvideo.models` do so; on other devices nothing changes.

    Args:
        network: octave or dense.
    """
    for module in network.modules():
        if isinstance(module, OctConv):
            module.lays_channels_last = True
    return network


def own_convolutions(network: nn.Module) -> nn.Module:
    """Let dense 3-D convolutions run as octave ones of alpha 0 do, in place; return the network.

    State dict and outputs stay the same; gradients in half precision are right on a CPU, where torch's own are
    noise for a kernel that is longer than the clip. `to_channels_last` includes it.

    Args:
        network: octave or dense. Its parameters stay the same objects.
    """
    return replace_modules(network, _own_convolution)


def _own_convolution(module: nn.Module) -> nn.Module | None:
    if dense_kind(module) is nn.Conv3d:
        return octave_from_dense(module, 0, 0)  # type: ignore[arg-type]
    return None


def recompute_pooled(network: nn.Module) -> nn.Module:
    """Let octave convolutions keep no pooled maps for the backward pass, but pool again; in place; return the network.

    What training keeps then falls with alpha as the maps themselves do; otherwise the pooled inputs of the low outputs
    come on top, which at small alphas is as much as the octave saves. Results are the same; a step takes a little
    longer. torch.func's transforms cannot run through it.

    Args:
        network: octave or dense.
    """
    for module in network.modules():
        if isinstance(module, OctConv):
            module.recompute_pooled = True
    return network
