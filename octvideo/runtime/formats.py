"""The two file formats: how each is written and opened again. Writers return the version that a reader needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from octvideo.runtime.trace import for_onnx

METADATA = "octvideo.json"
"""Where a file holds its metadata: a key of ONNX's metadata_props, an extra file in torch.export's archive."""

Writer = Callable[[ExportedProgram, Path, str], str]
Runner = Callable[[Tensor], Tensor]


def write_onnx(program: ExportedProgram, path: Path, metadata: str) -> str:
    """Write an ONNX file with the input "clip" or "image" and the output "logits".

    Raises:
        ValueError: the program holds an operation that ONNX lacks.
    """
    name = "image" if program.example_inputs[0][0].dim() == 4 else "clip"
    try:
        written: Any = torch.onnx.export(
            for_onnx(program),
            dynamo=True,
            input_names=[name],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    except Exception as error:
        raise ValueError(f"torch.onnx has no ONNX form of this network: {_cause(error)}") from error
    written.model.metadata_props[METADATA] = metadata
    for node in written.model.graph:
        node.metadata_props.clear()  # the tracer's notes: as long as the graph, and of no use to a reader
    written.save(path)
    return f"ONNX opset {written.model.opset_imports['']}"


def open_onnx(path: Path) -> Runner:
    """The file as a function of a batch, run by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0])


def write_program(program: ExportedProgram, path: Path, metadata: str) -> str:
    """Write a program as `torch.export.save` does."""
    program.example_inputs = None  # zeros, which would make the file larger by two clips
    torch.export.save(program, path, extra_files={METADATA: metadata})
    return f"torch {torch.__version__}"


def open_program(path: Path) -> Runner:
    """The file as a function of a batch, run by torch."""
    return torch.export.load(path).module()


def _cause(error: BaseException) -> str:
    """The last line of what lies behind an exporter's long report."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
