"""What each step of the fast path is checked by: an input that tells, and what the network gives for it."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from octvideo.layers.calls import call

TOLERANCES: dict[torch.dtype | None, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 0.02,
    torch.bfloat16: 0.1,
}
"""Largest difference of the outputs, relative to the largest output, by the input's type."""


class Check(NamedTuple):
    """What a step is checked by.

    Args:
        example: an input that tells.
        expected: the leaves of the network's output.
        tolerance: largest difference, relative to the largest output.
        has_state: the network changes as it runs, so that only copies are run, or is random.
    """

    example: Any
    expected: list[Any]
    tolerance: float
    has_state: bool

    def difference(self, network: nn.Module) -> float:
        """Largest difference of a network's output for the example, relative to the largest number expected."""
        runner = copy.deepcopy(network) if self.has_state else network
        return _worst(tree_leaves(call(runner, _cloned(self.example))), self.expected)


def check_of(runner: nn.Module, example: Any, dtype: torch.dtype | None) -> Check:
    """What the steps are checked by; `runner` is run for it."""
    expected, example = _outputs(runner, example)
    types = [*([dtype] if dtype else []), *(e.dtype for e in expected if isinstance(e, Tensor))]
    tolerance = max(TOLERANCES.get(t, 0.0) for t in types)
    before = copy.deepcopy(_tensors_of(runner))  # after a first run, in which some networks make what they keep
    again = tree_leaves(call(runner, _cloned(example)))
    has_state = not _are_equal(before, _tensors_of(runner)) or _worst(again, expected) > tolerance
    return Check(example, expected, tolerance, has_state)


def _tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _are_equal(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    if before.keys() != after.keys() or any(before[name].shape != after[name].shape for name in before):
        return False
    return all(torch.allclose(before[name], after[name], rtol=0, atol=0, equal_nan=True) for name in before)


def _cloned(example: Any) -> Any:
    """The example for a network that may write into it."""
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, example)


def _outputs(network: nn.Module, example: Any) -> tuple[list[Any], Any]:
    """What a network gives for an example, and the example, or noise in its place where that would show nothing."""
    tensors = [t for t in tree_leaves(example) if isinstance(t, Tensor)]
    if not any(t.numel() for t in tensors):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors) or repr(type(example).__name__)
        raise ValueError(f"example must hold tensors with elements, an input such as those to come; got {shapes}")
    telling = _telling(example)
    unused = network if telling is example else copy.deepcopy(network)
    try:
        expected = tree_leaves(call(network, _cloned(example)))
    except Exception as error:
        shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in tensors)
        raise ValueError(f"{type(network).__name__} does not run on the example ({shapes}): {error}") from error
    if not any(isinstance(e, Tensor) for e in expected):
        kinds = " and ".join(sorted({type(e).__name__ for e in expected})) or "nothing"
        raise ValueError(
            "the network must return tensors, alone or in tuples, lists, dicts; "
            f"{type(network).__name__} returned {kinds}"
        )
    if telling is example:
        return expected, example
    try:  # the network may want other numbers than noise
        shown = tree_leaves(call(unused, _cloned(telling)))
    except Exception:
        return expected, example
    finite = all(bool(t.isfinite().all()) for t in shown if isinstance(t, Tensor))
    return (shown, telling) if finite else (expected, example)


def _telling(example: Any) -> Any:
    """An example with noise in place of floating tensors whose elements are all the same, or itself without such."""
    generator = torch.Generator().manual_seed(0)

    def constant(t: Any) -> bool:
        return is_floating(t) and t.numel() > 1 and bool((t == t[(0,) * t.dim()]).all())

    if not any(map(constant, tree_leaves(example))):
        return example
    return tree_map(lambda t: torch.randn(t.shape, generator=generator).to(t) if constant(t) else t, example)


def is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _worst(got: list[Any], expected: list[Any]) -> float:
    """Largest `_difference` of outputs; infinite where there are more of one kind."""
    if len(got) != len(expected):
        return float("inf")
    differences = [_difference(*both) for both in zip(got, expected, strict=True)]
    return float(torch.tensor([0.0, *differences], dtype=torch.float64).max())


def _difference(got: Any, expected: Any) -> float:
    """Largest difference of two outputs, relative to the largest number in the second; infinite for unlike ones."""
    if not isinstance(expected, Tensor):
        return 0.0 if _is_same(got, expected) else float("inf")
    if got.shape != expected.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    got, expected = got.double(), expected.double()
    largest = expected.abs().masked_fill(expected.isinf(), 0).max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((got - expected).abs().masked_fill(got == expected, 0).max() / largest)  # equal infinities, too


def _is_same(got: Any, expected: Any) -> bool:
    try:
        return bool(got == expected)
    except Exception:  # arrays, for one, say so element by element
        return False
