"""Number of parameters."""

from torch import nn


def count_parameters(model: nn.Module) -> int:
    """Count the elements of a model's parameters; a parameter that two modules share counts once.

    Args:
        model: the network, on any device.

    Example:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(p.numel() for p in model.parameters())
