"""What every builder does last, and the list of builders by name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable

from torch import nn

from octvideo.convert import octavize

Builder = Callable[..., nn.Module]
BUILDERS: dict[str, Builder] = {}


def finish(net: nn.Module, alpha: float, octave: str) -> nn.Module:
    """Octavize a network of PyTorchVideo's.

    PyTorchVideo computes some strides with numpy; plain integers instead let `torch.compile` read them.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            module.stride = tuple(int(s) for s in module.stride)
    return octavize(net, alpha, octave)


def register(builder: Builder) -> Builder:
    """Enter a builder under its function's name."""
    BUILDERS[builder.__name__] = builder
    return builder


def find_builder(name: str) -> Builder:
    """Return a builder by its name here, or by the dotted path of a function elsewhere ("package.module:function").

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if name in BUILDERS:
        return BUILDERS[name]
    module, _, function = name.partition(":")
    if function:
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"model {name!r} cannot be imported: {error}") from error
    near = difflib.get_close_matches(name, BUILDERS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"unknown model {name!r}: {hint}known are {', '.join(BUILDERS)}; or give 'package.module:function'"
    )


def build_model(
    name: str, *, num_classes: int, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5
) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of `BUILDERS`, or "package.module:function" of a builder of your own with the same arguments.
        num_classes: number of logits.
        alpha: low-frequency share of the channels, in [0, 1]; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        the network maps (N, C, T, H, W) -> (N, num_classes) logits.

    Raises:
        ValueError: for an unknown name, an alpha outside [0, 1] or an unknown octave.
    """
    return find_builder(name)(num_classes=num_classes, alpha=alpha, octave=octave, dropout=dropout)
