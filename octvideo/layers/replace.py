"""One module in the place of another."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn


def with_class(layer: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A layer of another class around the same parameters, buffers, children and hooks."""
    new = kind.__new__(kind)
    own = ("_parameters", "_buffers", "_modules")
    new.__dict__.update({k: copy.copy(v) if k in own else v for k, v in layer.__dict__.items()})
    return new


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
