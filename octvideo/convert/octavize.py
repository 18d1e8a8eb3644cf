"""Turn a built dense network into its octave network, module by module, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from octvideo.convert.plan import Alpha, OctavePlan, check_alphas, plan_octaves
from octvideo.convert.planner import ConvPlan
from octvideo.layers import (
    MergeInputs,
    OctConv1d,
    OctConv2d,
    OctConv3d,
    dense_from_octave,
    dense_layer,
    octave_from_dense,
    pair_layer,
)
from octvideo.layers.pair import octave_factors


def octavize(
    model: nn.Module,
    alpha: Alpha | None = None,
    octave: str = "spatial",
    *,
    example: Any = None,
    keep_dense: Callable[[str, nn.Module], bool] | None = None,
    down_sampling: str = "average",
    exchange: str = "both",
    plan: OctavePlan | None = None,
) -> nn.Module:
    """Swap a network's layers, in place, for octave layers that share its parameters.

    The state dict keeps its keys and shapes: a dense checkpoint loads before or after, at any alpha. Alpha 0 returns
    the network as it is.

    Args:
        model: a network of convolutions; it is changed, and returned.
        alpha, octave, example, keep_dense, down_sampling, exchange: as in `plan_octaves`.
        plan: a plan from `plan_octaves`, perhaps edited, in place of all these.

    Returns:
        The same object.

    Raises:
        ValueError: for a wrong alpha or octave, a plan beside an alpha, or a network that has nothing to convert.

    Example:
        >>> import torchvision
        >>> model = octavize(torchvision.models.video.r3d_18(), alpha=0.25)
    """
    if plan is not None:
        if alpha is not None:
            raise ValueError(f"octavize takes an alpha or a plan, which has its own; got alpha {alpha!r} and a plan")
        return _apply(model, plan)
    octave_factors(octave, 3)
    check_alphas(alpha, model)
    if alpha == 0:
        return model
    options = {"example": example, "keep_dense": keep_dense, "down_sampling": down_sampling, "exchange": exchange}
    return _apply(model, plan_octaves(model, alpha, octave, **options))  # type: ignore[arg-type]


def deoctavize(model: nn.Module) -> nn.Module:
    """Swap a network's octave layers, in place, for the dense layers that share their parameters; return the network.

    The result is the dense network with the octave network's weights: same state dict, the dense layers' output.
    """
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, MergeInputs):
                del module._forward_pre_hooks[key]
    return replace_modules(model, _dense)


def _dense(module: nn.Module) -> nn.Module | None:
    if isinstance(module, OctConv1d | OctConv2d | OctConv3d):
        return dense_from_octave(module)
    return dense_layer(module)


def _apply(model: nn.Module, plan: OctavePlan) -> nn.Module:
    convs: dict[nn.Module, ConvPlan] = {model.get_submodule(name): conv for name, conv in plan.convs.items()}
    layers = {model.get_submodule(name) for name in plan.pair_layers}
    names = {name for name, _ in model.named_modules()}
    for name in names.intersection(plan.merges):  # a function merges by itself
        model.get_submodule(name).register_forward_pre_hook(MergeInputs())

    def octave(module: nn.Module) -> nn.Module | None:
        if module in convs:
            return octave_from_dense(module, octave=plan.octave, **vars(convs[module]))  # type: ignore[arg-type]
        return pair_layer(module) if module in layers else None

    return replace_modules(model, octave)


def replace_modules(
    module: nn.Module,
    replace: Callable[[nn.Module], nn.Module | None],
    done: dict[nn.Module, nn.Module] | None = None,
) -> nn.Module:
    """Replace modules wherever they are registered, children before their parents; return what stands for `module`.

    Args:
        module: a network; it is changed.
        replace: gives a module's successor, or None to keep it.
        done: what has been replaced already, for modules that are registered twice.
    """
    done = {} if done is None else done
    if module not in done:
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = replace_modules(child, replace, done)
        done[module] = replace(module) or module
    return done[module]
