"""Turn a built dense network into its octave network, module by module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from octvideo.convert.plan import OctavePlan, plan_octaves
from octvideo.layers import MergeInputs, octave_from_dense, pair_layer
from octvideo.layers.pair import check_alpha, octave_factors


def octavize(
    model: nn.Module,
    alpha: float,
    octave: str = "spatial",
    *,
    keep_dense: Callable[[str, nn.Module], bool] | None = None,
    plan: OctavePlan | None = None,
) -> nn.Module:
    """Swap a network's layers, in place, for octave layers that share its parameters.

    The state dict keeps its keys and shapes: a dense checkpoint loads before or after, at any alpha. Alpha 0 returns
    the network as it is.

    Args:
        model: a network of 2-D or 3-D convolutions that `torch.fx` can trace; it is changed, and returned.
        alpha: low-frequency share of the channels, in [0, 1].
        octave: "spatial" (the paper's), "temporal" or "spatiotemporal".
        keep_dense: called with each convolution's name and module; True keeps its output dense.
        plan: a plan from `plan_octaves`, perhaps edited; None draws one.

    Returns:
        The same object.

    Raises:
        ValueError: for a wrong alpha or octave, a plan for others, or a network that has nothing to convert.

    Example:
        >>> import torchvision
        >>> model = octavize(torchvision.models.video.r3d_18(), alpha=0.25)
    """
    check_alpha(alpha)
    octave_factors(octave, 3)
    if alpha == 0 and plan is None:
        return model
    if plan is not None and (plan.alpha, plan.octave) != (alpha, octave):
        raise ValueError(f"the plan is for alpha {plan.alpha:g}, {plan.octave}; got alpha {alpha:g}, {octave}")
    plan = plan or plan_octaves(model, alpha, octave, keep_dense)
    swaps: dict[nn.Module, nn.Module] = {}
    for name, conv in plan.convs.items():
        dense: Any = model.get_submodule(name)
        swaps[dense] = octave_from_dense(dense, conv.alpha_in, conv.alpha_out, plan.octave, conv.in_segments)
    for name in plan.pair_layers:
        layer = model.get_submodule(name)
        swaps[layer] = pair_layer(layer) or layer
    for name, segments in plan.merges.items():
        model.get_submodule(name).register_forward_pre_hook(MergeInputs(segments))
    _swap(model, swaps)
    return model


def _swap(model: nn.Module, swaps: dict[nn.Module, nn.Module]) -> None:
    """Put the new modules wherever the old ones are registered."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children leaves out a second name of one module
            if child is not None and child in swaps:
                setattr(parent, name, swaps[child])
