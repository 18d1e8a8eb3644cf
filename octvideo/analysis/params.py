"""Number of parameters."""

from torch import nn


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Count the elements of a model's parameters; a parameter that two modules share counts once.

    Args:
        model: the network, on any device.
        trainable_only: leave out the parameters that need no gradient.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)
