"""Write a network as an ONNX file or as a torch.export program, and check the file against the network."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.runtime.formats import Runner, Writer, open_onnx, open_program, write_onnx, write_program
from octvideo.runtime.trace import trace

ENDINGS = {".onnx": "an ONNX file (--format onnx)", ".pt2": "a torch.export program (--format torch)"}
CHECKED_BATCHES = (1, 3)
ONE_FILE_BYTES = 1536 * 2**20  # torch puts the weights of a larger network into a second file


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Args:
        path: the file.
        version: ONNX operator set or torch version that a reader needs.
        size_bytes: of the file.
        seconds: for tracing, writing and checking.
        max_difference: largest absolute difference between the file's logits and the network's; None if not checked.
        max_logit: largest absolute logit of the check; None if not checked.
    """

    path: Path
    version: str
    size_bytes: int
    seconds: float
    max_difference: float | None
    max_logit: float | None


def export_onnx(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    check: bool = True,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write an ONNX file with the input "clip" (or "image"), the output "logits" and a free batch size.

    The file appears under its name only when it is whole and has passed the check.

    Args:
        model: maps a batch to logits; exported in evaluation mode, as float32 on the CPU, and left as it is.
        example: float32 batch of clips or images, which gives the sizes; its values do not matter.
        path: ends in .onnx; an existing file is replaced.
        metadata: plain values (class names, preprocessing), stored as JSON under "octvideo.json" in metadata_props.
        check: compare with the network on random batches of 1 and 3, in ONNX Runtime.
        tolerance: largest difference allowed, relative to the largest absolute logit, or to 1 where that is smaller.

    Shape:
        example (N, C, T, H, W) or (N, C, H, W); the file takes (batch, C, T, H, W) or (batch, C, H, W).

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        FileNotFoundError: the folder of path is missing.
        ValueError: another ending, an unfit example, a network that cannot be exported or is too large for one file.
        RuntimeError: the file's logits differ by more than the tolerance.
    """
    _need("onnx", "onnxscript", *(["onnxruntime"] if check else []))
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    if size > ONE_FILE_BYTES:
        raise ValueError(
            f"{type(model).__name__} has {size / 1e9:.1f} GB of weights, more than the {ONE_FILE_BYTES / 1e9:.1f} GB "
            "that one ONNX file holds: write a torch.export program"
        )
    path = _target(path, ".onnx")
    return _export(model, example, path, metadata, write_onnx, open_onnx if check else None, tolerance)


def export_program(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    check: bool = True,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write a program that `torch.export.load` reads without octvideo: arguments and errors as `export_onnx`.

    The path ends in .pt2; the metadata is the extra file "octvideo.json".
    """
    path = _target(path, ".pt2")
    return _export(model, example, path, metadata, write_program, open_program if check else None, tolerance)


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"exporting to ONNX needs {' and '.join(missing)}: pip install 'octvideo[export]'")


def _target(path: str | Path, ending: str) -> Path:
    path = Path(path)
    if path.suffix != ending:
        raise ValueError(f"output {path} must end in {ending} for {ENDINGS[ending]}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder {path.parent} of output {path} not found: make it first")
    return path


def _export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    metadata: Mapping[str, Any] | None,
    write: Writer,
    open_file: Callable[[Path], Runner] | None,
    tolerance: float,
) -> ExportReport:
    start = time.monotonic()
    text = json.dumps(dict(metadata or {}))
    program = trace(model, example)
    difference = largest = None
    with tempfile.TemporaryDirectory(prefix=".export", dir=path.parent) as folder:
        part = Path(folder) / path.name
        version = write(program, part, text)
        if open_file is not None:
            difference, largest = _compare(model, open_file(part), example.shape)
            if not difference <= tolerance * max(1.0, largest):
                raise RuntimeError(
                    f"{path} was not written: its logits differ from the network's by {difference:.2g}, more than "
                    f"{tolerance:g} of {max(1.0, largest):.3g}"
                )
        os.replace(part, path)
    return ExportReport(path, version, path.stat().st_size, time.monotonic() - start, difference, largest)


@torch.no_grad()
def _compare(model: nn.Module, run: Runner, shape: torch.Size) -> tuple[float, float]:
    """Largest absolute difference, and largest absolute logit, over random batches."""
    network = copy.deepcopy(model).cpu().float().eval()
    noise = torch.Generator().manual_seed(0)
    differences, largest = [], []
    for size in CHECKED_BATCHES:
        batch = torch.randn(size, *shape[1:], generator=noise)
        expected, given = network(batch), run(batch)
        if given.shape != expected.shape:
            raise RuntimeError(f"the file gives logits {tuple(given.shape)}; expected {tuple(expected.shape)}")
        differences.append((given - expected).abs().max())
        largest.append(expected.abs().max())
    return float(torch.stack(differences).max()), float(torch.stack(largest).max())
