"""What every builder does last, and the list of builders by name."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from octvideo.convert import octavize
from octvideo.layers import lay_channels_last
from octvideo.layers.pool import clip_window
from octvideo.layers.replace import replace_modules

Builder = Callable[..., nn.Module]
BUILDERS: dict[str, Builder] = {}
"""Builders of video networks, (N, 3, T, H, W) -> (N, num_classes)."""
IMAGE_BUILDERS: dict[str, Builder] = {}
"""Builders of image networks, (N, 3, H, W) -> (N, num_classes)."""
_VIEW_SIZES: dict[str, tuple[int, ...]] = {}
_INTEGER_FIELDS = ("kernel_size", "stride", "padding")


def finish(
    net: nn.Module, alpha: float, octave: str, keep_dense: Callable[[str, nn.Module], bool] | None = None
) -> nn.Module:
    """Octavize a built network.

    PyTorchVideo computes some strides and windows with numpy; plain integers instead let `torch.compile` read them.
    The pooling of its heads has windows of the size that the network is made for; smaller maps are averaged whole.

    Args:
        net: the dense network; it is changed, and returned.
        alpha: low-frequency share of the channels; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        keep_dense: as in `octavize`; for networks whose modules are not grouped by resolution.
    """
    for module in net.modules():
        for field in _INTEGER_FIELDS:
            values = getattr(module, field, None)
            if isinstance(values, Sequence) and not isinstance(values, str):
                setattr(module, field, tuple(int(v) for v in values))
    return lay_channels_last(replace_modules(octavize(net, alpha, octave, keep_dense=keep_dense), clip_window))


def register(builder: Builder | None = None, *, view: tuple[int, int, int] = (8, 224, 224)) -> Any:
    """Enter a builder of a video network under its function's name.

    Args:
        builder: the function below `@register`.
        view: frames, height and width of the clips that the network is made for; `@register(view=(16, 112, 112))`.
    """
    if builder is None:
        return functools.partial(register, view=view)
    BUILDERS[builder.__name__] = builder
    _VIEW_SIZES[builder.__name__] = view
    return builder


def register_image(builder: Builder) -> Builder:
    """Enter a builder of an image network, made for 224 x 224 pixels, under its function's name."""
    IMAGE_BUILDERS[builder.__name__] = builder
    _VIEW_SIZES[builder.__name__] = (224, 224)
    return builder


def view_size(name: str) -> tuple[int, ...]:
    """Size of one view that a network is made for.

    Args:
        name: of a builder; one from elsewhere ("package.module:function") is taken for a video network of 8 frames.

    Returns:
        Frames, height and width of a video network, height and width of an image network.
    """
    return _VIEW_SIZES.get(name, (8, 224, 224))


def default_num_classes(model: str) -> int:
    """Classes of the data set that a network was made for: Kinetics-400 or ImageNet."""
    return 1000 if model in IMAGE_BUILDERS else 400


def chosen_size(model: str, num_frames: int | None, crop: Sequence[int]) -> tuple[int, ...]:
    """Size of one view: what is given, and the network's own for the rest.

    Raises:
        ValueError: frames for a network on images, or a crop that is not one number or two.
    """
    *frames, height, width = view_size(model)
    if num_frames is not None and model in IMAGE_BUILDERS:
        raise ValueError(f"num_frames is {num_frames}, but {model} is a network on images: leave it out")
    if min((*crop, 1 if num_frames is None else num_frames)) < 1:
        raise ValueError(f"num_frames and crop must be 1 or more; got {num_frames} and {list(crop)}")
    if len(crop) > 2:
        raise ValueError(f"crop must be one number or height and width; got {list(crop)}")
    if crop:
        height, width = crop[0], crop[-1]
    return (*(frames if num_frames is None else [num_frames]), height, width)


def find_builder(name: str) -> Builder:
    """Return a builder by its name here, or by the dotted path of a function elsewhere ("package.module:function").

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    known = BUILDERS | IMAGE_BUILDERS
    if name in known:
        return known[name]
    module, _, function = name.partition(":")
    if function:
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"model {name!r} cannot be imported: {error}") from error
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown model {name!r}: {hint}known are {', '.join(known)}; or give 'package.module:function'")


def build_model(
    name: str, *, num_classes: int, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5
) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of `BUILDERS` (video) or `IMAGE_BUILDERS`, or "package.module:function" of a builder of your own with
            the same arguments.
        num_classes: number of logits.
        alpha: low-frequency share of the channels, in [0, 1]; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        a video network maps (N, C, T, H, W), an image network (N, C, H, W), to (N, num_classes) logits.

    Raises:
        ValueError: for an unknown name, an alpha outside [0, 1] or an unknown octave.
    """
    return find_builder(name)(num_classes=num_classes, alpha=alpha, octave=octave, dropout=dropout)
