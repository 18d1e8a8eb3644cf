"""Trace a network into a program of torch operations with a free batch size."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


def trace(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Trace a network in evaluation mode on the CPU; the model itself is not changed.

    Args:
        model: maps a batch to one tensor of logits.
        example: float32 batch of any number of clips or images; only its shape matters.

    Shape:
        example (N, C, T, H, W) or (N, C, H, W); the program takes any N and these other sizes only.

    Raises:
        ValueError: for an example of another shape or type, or a network that `torch.export` cannot trace.
    """
    if example.dim() not in (4, 5) or example.dtype != torch.float32:
        raise ValueError(
            "example must be float32 clips (N, C, T, H, W) or images (N, C, H, W); "
            f"got {str(example.dtype).removeprefix('torch.')} {tuple(example.shape)}"
        )
    network = copy.deepcopy(model).cpu().float().eval()
    batch = torch.zeros(2, *example.shape[1:])  # a batch of 1 would be taken for a fixed one
    try:
        with torch.no_grad():
            program = torch.export.export(network, (batch,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:  # the tracer runs the network's code, which can fail in any way
        raise ValueError(
            f"{type(model).__name__} cannot be traced on inputs of {tuple(batch.shape[1:])}: {_first_line(error)}"
        ) from error
    if len(program.graph_signature.user_outputs) != 1:
        raise ValueError(f"{type(model).__name__} must return one tensor of logits to be exported")
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which are nobody's business elsewhere
    return program


def for_onnx(program: ExportedProgram) -> ExportedProgram:
    """Spell out the operations that ONNX lacks: adaptive pooling of videos."""
    pool = torch.ops.aten.adaptive_avg_pool3d.default
    if all(node.target is not pool for node in program.graph.nodes):
        return program
    return program.run_decompositions({pool: adaptive_avg_pool})


def adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """`F.adaptive_avg_pool3d` from slices and means.

    On an axis of n elements, cell i of g averages the elements from floor(i n / g) to ceil((i + 1) n / g), exclusive.

    Shape:
        (N, C, *size) -> (N, C, *output_size).
    """
    for axis, cells in enumerate(output_size, start=2):
        n = x.shape[axis]
        windows = [(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]
        x = torch.cat([x.narrow(axis, a, b - a).mean(axis, keepdim=True) for a, b in windows], dim=axis)
    return x


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
