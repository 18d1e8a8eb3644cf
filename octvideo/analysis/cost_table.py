"""Cost of one network over alpha, counted without data and without memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from octvideo.analysis.macs import count_macs, nested_tensors
from octvideo.analysis.params import count_parameters
from octvideo.analysis.shapes import ShapesOnly
from octvideo.layers.calls import call, evaluating

_FLOAT32_BYTES = 4


def activation_bytes(model: nn.Module, inputs: Any) -> int:
    """Bytes of the outputs of all leaf modules of one forward pass, as float32.

    Each call of a module without children adds the tensors that it returns, both parts of an octave pair among them.
    Not counted is what functional calls return: residual sums, and pooled or upsampled maps inside a layer. It is the
    traffic that the network's layers write, and no peak of memory.

    Args:
        model: the network; its training flags are put back afterwards.
        inputs: a tuple is passed as positional arguments, all else as the one argument.
    """
    num_elements = 0

    def add(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal num_elements
        num_elements += sum(tensor.numel() for tensor in nested_tensors(output))

    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    hooks = [leaf.register_forward_hook(add) for leaf in leaves]
    try:
        with evaluating(model), torch.no_grad(), ShapesOnly():
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return _FLOAT32_BYTES * num_elements


def cost_table(
    build: Callable[[float], nn.Module], alphas: Sequence[float], input_shape: Sequence[int]
) -> list[dict[str, float]]:
    """Count one network at several alphas on the meta device.

    Args:
        build: makes the network at an alpha; alpha 0 is the dense one.
        alphas: shares of low-frequency channels, one row each, in this order.
        input_shape: shape of one view, (C, T, H, W) of a clip, (C, H, W) of an image; of a clip also with a leading 1.

    Returns:
        Rows with alpha, gmacs (10^9 multiply-adds of convolutions and matmuls), relative_percent (of the dense
        network's gmacs), pool_gmacs (average pooling), params_m (10^6 parameters) and activation_mb (10^6 bytes of
        `activation_bytes`).

    Raises:
        ValueError: alphas is empty.
    """
    if not alphas:
        raise ValueError("alphas should hold at least one value, got none. Pass for instance (0, 0.125, 0.25, 0.5).")
    shape = tuple(input_shape) if len(input_shape) == 5 else (1, *input_shape)
    rows = [_cost_row(build, alpha, shape) for alpha in alphas]
    dense = next((row for row in rows if row["alpha"] == 0), None) or _cost_row(build, 0.0, shape)
    return [_with_relative(row, dense["gmacs"]) for row in rows]


def _with_relative(row: dict[str, float], dense_gmacs: float) -> dict[str, float]:
    relative_percent = 100.0 * row["gmacs"] / dense_gmacs
    return {"alpha": row["alpha"], "gmacs": row["gmacs"], "relative_percent": relative_percent, **row}


def _cost_row(build: Callable[[float], nn.Module], alpha: float, shape: Sequence[int]) -> dict[str, float]:
    model = _build_on_meta(build, alpha)
    inputs = torch.empty(shape, device="meta")
    report = count_macs(model, inputs)
    return {
        "alpha": alpha,
        "gmacs": report.gmacs,
        "pool_gmacs": report.pool_gmacs,
        "params_m": count_parameters(model) / 1e6,
        "activation_mb": activation_bytes(model, inputs) / 1e6,
    }


def _build_on_meta(build: Callable[[float], nn.Module], alpha: float) -> nn.Module:
    try:
        with ShapesOnly(), torch.device("meta"):
            return build(alpha).to("meta")
    except (NotImplementedError, RuntimeError):
        # Some builders read numbers out of tensors, which meta tensors do not hold: build for real, then let go.
        return build(alpha).to("meta")
