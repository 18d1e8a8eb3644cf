"""Passes over channels-last maps in C, compiled on first use: what two or more of torch's passes do, in one.

Octave networks pool, up-sample, add and concatenate between their convolutions. Each of torch's functions for it reads
and writes whole maps; on a CPU that costs more than the multiply-adds that small alphas save.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from octvideo.layers.resize import low_size

SOURCE = Path(__file__).with_name("passes.c")
FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-fPIC", "-shared")
DEFINITIONS: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.bfloat16: ("-DBFLOAT16",)}
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "over_cells": (*(_POINTER,) * 4, _INT, _POINTER, _INT, _POINTER, ctypes.c_int),
    "max_pool": (*(_POINTER,) * 2, _INT, *(_POINTER,) * 5),
}


def takes(*maps: Tensor) -> bool:
    """True for maps that lie on a CPU channels-last, in a type for which the passes have been compiled."""
    dtype = maps[0].dtype
    return (
        dtype in DEFINITIONS
        and all(m.dtype == dtype and m.device.type == "cpu" and m.dim() in LAYOUTS for m in maps)
        and all(m.is_contiguous(memory_format=LAYOUTS[m.dim()]) for m in maps)
        and _library(dtype) is not None
    )


def join(high: Tensor, low: Tensor | None, factors: Sequence[int]) -> Tensor:
    """`torch.cat([low, avg_pool(high, factors)], 1)` in one pass; without low only the pooling.

    Shape:
        high (N, C, *size), low (N, C', *ceil(size / factors)) -> (N, C' + C, *ceil(size / factors)), factors 1 or 2.
    """
    joined = _empty_joined(high, low, factors)
    _over_cells(high, None, low, joined, factors)
    return joined


def add_raised(
    total: Tensor, raised: Tensor, low: Tensor | None, factors: Sequence[int], relu: bool, joins: bool
) -> Tensor | None:
    """Write `total + upsample(raised)`, rectified if asked for, over total; return `join` of it and low, if asked for.

    Shape:
        total (N, C, *size), raised (N, C, *ceil(size / factors)), low and the result as in `join`.
    """
    joined = _empty_joined(total, low, factors) if joins else None
    _over_cells(total, raised, low, joined, factors, relu)
    return joined


def _over_cells(
    high: Tensor,
    raised: Tensor | None,
    low: Tensor | None,
    joined: Tensor | None,
    factors: Sequence[int],
    relu: bool = False,
) -> None:
    low_channels = 0 if low is None else low.shape[1]
    pointers = high.data_ptr(), _pointer(raised), _pointer(low), _pointer(joined)
    _library(high.dtype).over_cells(  # type: ignore[union-attr]
        *pointers, high.shape[0], _size(high), low_channels, _three(factors), relu
    )


def max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """`torch.nn.functional.max_pool3d` (or 2d) without indices.

    Shape:
        (N, C, *size) -> (N, C, *floor((size + 2 padding - kernel) / stride) + 1).
    """
    axes = zip(x.shape[2:], kernel, stride, padding, strict=True)
    size = [(n + 2 * p - k) // s + 1 for n, k, s, p in axes]
    out = torch.empty((*x.shape[:2], *size), dtype=x.dtype, memory_format=LAYOUTS[x.dim()])
    window = _three(kernel), _three(stride), _three(padding, 0)
    _library(x.dtype).max_pool(x.data_ptr(), out.data_ptr(), x.shape[0], _size(x), _three(size), *window)  # type: ignore[union-attr]
    return out


def _empty_joined(high: Tensor, low: Tensor | None, factors: Sequence[int]) -> Tensor:
    channels = high.shape[1] + (0 if low is None else low.shape[1])
    shape = high.shape[0], channels, *low_size(high.shape[2:], factors)
    return torch.empty(shape, dtype=high.dtype, memory_format=LAYOUTS[high.dim()])


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _size(x: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """(T, H, W, C) of a map; an image is one frame."""
    return _numbers((1,) * (5 - x.dim()) + tuple(x.shape[2:]) + (x.shape[1],))


def _three(values: Sequence[int], missing: int = 1) -> ctypes.Array[ctypes.c_int64]:
    return _numbers((missing,) * (3 - len(values)) + tuple(values))


@cache
def _numbers(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The passes for a type; None, with a notice, where they cannot be compiled."""
    try:
        library = ctypes.CDLL(str(_compiled(dtype)))
    except (OSError, subprocess.SubprocessError) as error:
        warnings.warn(f"pooling and sums run by torch's functions, which take longer: {_reason(error)}", stacklevel=2)
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


def _compiled(dtype: torch.dtype) -> Path:
    """The shared library for a type and this machine's processor, compiled where it is not in the cache."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc) is installed")
    command = [compiler, *FLAGS, *DEFINITIONS[dtype]]
    key = "\n".join([*command, _processor(), SOURCE.read_text(encoding="utf-8")])
    path = _cache_folder() / f"passes-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            subprocess.run([*command, str(SOURCE), "-o", str(part)], check=True, capture_output=True, timeout=120)
            os.replace(part, path)
    return path


def _cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octvideo"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _processor() -> str:
    """What -march=native depends on: machines of different processors may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features"))))


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"the C compiler failed: {lines[-1] if lines else error}"
    return str(error)
