"""The kernels in C of `native/`, compiled on first use for each type of map and kept for this machine's processor."""

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

SOURCES = sorted(Path(__file__).with_name("native").glob("*.[ch]"))
WIDEST = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
FLAGS = ("-O3", "-march=native", *WIDEST, "-fopenmp", "-fPIC", "-shared")
NO_MATRICES = ("-DNO_MATRICES",)
DEFINITIONS: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.bfloat16: ("-DBFLOAT16",)}

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_FUNCTIONS: dict[str, tuple[tuple[type, ...], type | None]] = {
    "pool": ((_POINTER, _INT, _POINTER, _INT, _POINTER, _INT, _POINTER, *(ctypes.c_int,) * 2), None),
    "add_upsampled": ((*(_POINTER,) * 3, _INT, _POINTER, _INT, _POINTER, *(ctypes.c_int,) * 2), None),
    "lay_pixels": ((*(_POINTER,) * 3, _INT, _POINTER, *(_INT,) * 2, ctypes.c_int), None),
    "add_raised": ((*(_POINTER,) * 3, _INT, _POINTER, _INT, *(_POINTER,) * 2, *(ctypes.c_int,) * 2), None),
    "max_pool": ((_POINTER, _INT, _POINTER, _INT, *(_POINTER,) * 5, ctypes.c_int), None),
    "convolve": ((_POINTER,) * 4, ctypes.c_int),
    "can_convolve": ((_INT, _INT), _INT),
    "matrices_pay": ((_INT,) * 4, _INT),
    "padded_out_channels": ((_INT,), _INT),
    "packed_size": ((_INT,) * 4, _INT),
    "pack": ((_POINTER,) * 2 + (_INT,) * 5, None),
    "reads_in_place": ((_INT,), _INT),
    "copies_strips": ((_INT,) * 4, _INT),
    "reads_low": ((_INT,) * 2, _INT),
    "taps_together": ((_INT,) * 4, _INT),
    "executed": ((_INT,) * 5, _INT),
}


@cache
def library(dtype: torch.dtype, matrices: bool = True) -> ctypes.CDLL | None:
    """The kernels for a type; None, with a notice, where they cannot be compiled.

    Args:
        dtype: of the maps.
        matrices: convolve by matrix instructions (AMX), where this processor has them.
    """
    if not matrices and not _has_matrices():
        return library(dtype)
    try:
        loaded = ctypes.CDLL(str(compiled(dtype, matrices)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        slower = "networks run by oneDNN's and torch's functions, which take longer"
        warnings.warn(f"{slower}: {_reason(error)}", stacklevel=2)
        return None
    for name, (arguments, result) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, result
    return loaded


@cache
def integers(values: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    """Numbers as the kernels take them."""
    return (_INT * len(values))(*values)


def three(values: Sequence[int], missing: int = 1) -> ctypes.Array[ctypes.c_int64]:
    """Numbers of time, height and width; an image is one frame."""
    return integers((missing,) * (3 - len(values)) + tuple(values))


def compiled(dtype: torch.dtype, matrices: bool = True) -> Path:
    """The shared library for a type and this machine's processor, compiled where the cache has none that is whole.

    Raises:
        FileNotFoundError: there is no C compiler.
        subprocess.SubprocessError: the compiler fails or takes too long.
        OSError: the cache cannot be written.
        RuntimeError: the user has no home folder for it.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc) is installed")
    command = [compiler, *FLAGS, *DEFINITIONS[dtype], *(() if matrices and _has_matrices() else NO_MATRICES)]
    key = "\n".join([*command, _processor(), *(source.read_text(encoding="utf-8") for source in SOURCES)])
    path = _cache_folder() / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not _is_whole(path):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            code = [str(source) for source in SOURCES if source.suffix == ".c"]
            subprocess.run([*command, *code, "-o", str(part)], check=True, capture_output=True, timeout=120)
            _seal(part)
            os.replace(part, path)
    return path


def _seal(path: Path) -> None:
    """Put the SHA-256 of a library behind its end, where no loader looks."""
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())


def _is_whole(path: Path) -> bool:
    """Whether a library is there as it was sealed: loading one that is cut off ends the process with a bus error."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    size = len(content) - hashlib.sha256().digest_size
    return size > 0 and hashlib.sha256(memoryview(content)[:size]).digest() == content[size:]


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


@cache
def _has_matrices() -> bool:
    """Whether the processor has matrix registers (AMX) and lets this process use them: Linux asks to be asked first."""
    if "amx_bf16" not in _processor().split():
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"the C compiler failed: {lines[-1] if lines else error}"
    return str(error)
