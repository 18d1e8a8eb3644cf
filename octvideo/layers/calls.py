"""Calling a network on an example, and calling it as in evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def call(network: nn.Module, example: Any) -> Any:
    """Call a network: a tuple is passed as positional arguments, all else as the one argument."""
    args = example if isinstance(example, tuple) else (example,)
    # Networks of several pathways write into the list that they are given.
    return network(*(list(arg) if isinstance(arg, list) else arg for arg in args))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, and afterwards give each of its modules the training flag that it had."""
    flags = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
