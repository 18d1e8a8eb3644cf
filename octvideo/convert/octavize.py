"""Turn a built dense network into its octave network, module by module, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from octvideo.convert.plan import Alpha, OctavePlan, check_alphas, plan_octaves
from octvideo.layers import (
    MergeInputs,
    MergeOutputs,
    OctConv1d,
    OctConv2d,
    OctConv3d,
    dense_from_octave,
    dense_layer,
    octave_from_dense,
    pair_layer,
)
from octvideo.layers.replace import replace_modules
from octvideo.layers.resize import octave_factors


def octavize(
    model: nn.Module,
    alpha: Alpha | None = None,
    octave: str = "spatial",
    *,
    example: Any = None,
    keep_dense: Callable[[str, nn.Module], bool] | None = None,
    down_sampling: str = "average",
    exchange: str = "both",
    channel_multiple: int = 1,
    plan: OctavePlan | None = None,
) -> nn.Module:
    """Swap a network's layers, in place, for octave layers that share its parameters.

    The state dict keeps its keys and shapes: a dense checkpoint loads before or after, at any alpha. Alpha 0 returns
    the network as it is.

    Args:
        model: a network of convolutions; it is changed, and returned.
        alpha, octave, example, keep_dense, down_sampling, exchange, channel_multiple: as in `plan_octaves`.
        plan: a plan from `plan_octaves`, perhaps edited, in place of all these.

    Returns:
        The same object.

    Raises:
        ValueError: for a wrong alpha or octave, a plan beside other options, or a network that has nothing to convert.

    Example:
        >>> import torchvision
        >>> model = octavize(torchvision.models.video.r3d_18(), alpha=0.25)
    """
    options = {
        "example": example,
        "keep_dense": keep_dense,
        "down_sampling": down_sampling,
        "exchange": exchange,
        "channel_multiple": channel_multiple,
    }
    if plan is not None:
        given = (alpha, octave, *options.values())
        if given != (None, "spatial", None, None, "average", "both", 1):
            raise ValueError(f"octavize takes a plan, which says all, or an alpha and options; got a plan and {given}")
        return _apply(model, plan)
    octave_factors(octave, 3)
    check_alphas(alpha, model)
    if alpha == 0 or (isinstance(alpha, Mapping) and not any(alpha.values())):
        return model
    return _apply(model, plan_octaves(model, alpha, octave, **options))  # type: ignore[arg-type]


def deoctavize(model: nn.Module) -> nn.Module:
    """Swap a network's octave layers, in place, for the dense layers that share their parameters; return the network.

    The result is the dense network with the octave network's weights: same state dict, the dense layers' output.
    """
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, MergeInputs):
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
        for key, output_hook in list(module._forward_hooks.items()):
            if isinstance(output_hook, MergeOutputs):
                del module._forward_hooks[key]
    return replace_modules(model, _dense)


def _dense(module: nn.Module) -> nn.Module | None:
    if isinstance(module, OctConv1d | OctConv2d | OctConv3d):
        return dense_from_octave(module)
    return dense_layer(module)


def _apply(model: nn.Module, plan: OctavePlan) -> nn.Module:
    convs: dict[nn.Module, nn.Module] = {}
    for name, conv in plan.convs.items():  # all made before the first is put in place: an error changes nothing
        dense: Any = model.get_submodule(name)
        convs[dense] = octave_from_dense(dense, octave=plan.octave, **vars(conv))
    layers = {model.get_submodule(name) for name in plan.pair_layers}
    for name in plan.merges:
        model.get_submodule(name).register_forward_pre_hook(MergeInputs(), with_kwargs=True)

    if plan.merges_output:
        model.register_forward_hook(MergeOutputs())

    def octave(module: nn.Module) -> nn.Module | None:
        return convs.get(module) or (pair_layer(module) if module in layers else None)

    return replace_modules(model, octave)
