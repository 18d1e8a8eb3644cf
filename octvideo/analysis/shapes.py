"""Passes on the meta device, of which only shapes are wanted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class ShapesOnly(TorchDispatchMode):
    """Answers batch norms and random values on the meta device at once, by their shapes.

    torch takes them apart into a dozen operators each, in Python: two thirds of the time of a network's pass. All other
    operators, and tensors on other devices, get torch's own answers.

    Example:
        >>> with ShapesOnly(), torch.device("meta"):
        ...     torch.nn.BatchNorm2d(8)(torch.empty(1, 8, 4, 4)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator's answer."""
        answer = _ANSWERS.get(func) if args and isinstance(args[0], Tensor) and args[0].is_meta else None
        return (answer or func)(*args, **(kwargs or {}))


def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *settings: float) -> tuple:
    channels = x.shape[1] if training else 0
    return torch.empty_like(x), x.new_empty(channels), x.new_empty(channels)


def _batch_norm_backward(grad: Tensor, x: Tensor, *args: Any) -> tuple:
    """The last argument says which of the three gradients are asked for."""
    answers = (torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1]))
    return tuple(answer if asked else None for answer, asked in zip(answers, args[-1], strict=True))


def _in_place(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return x


_ANSWERS: dict[Any, Callable[..., Any]] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.normal_.default: _in_place,
    aten.uniform_.default: _in_place,
}
