"""Checkpoint files that a crash, a kill or a full disk leaves whole, and which of them a run goes on from."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from octvideo.files import replace_file
from octvideo.training.checkpoints import read_checkpoint

CHECKPOINTS = "checkpoints"
LAST, PREVIOUS, BEST = "last.ckpt", "last-previous.ckpt", "best.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all; beside last.ckpt the one before it is kept as last-previous.ckpt.

    A last.ckpt that cannot be read never becomes the one before: that would cost the run its only good checkpoint.
    """

    _written: tuple[int, int] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write into a file beside `path`, force it to the disk, and give it the name."""
        buffer = io.BytesIO()  # torch.save into a file hides what the system says of a full disk
        torch.save(checkpoint, buffer)
        path = Path(path)
        is_kept = path.name == LAST and self._is_whole(path)
        write_whole(buffer.getbuffer(), path, path.with_name(PREVIOUS) if is_kept else None)
        if path.name == LAST:
            self._written = _stamp(path)

    def _is_whole(self, path: Path) -> bool:
        """Whether a checkpoint can be read; one that was written here, and not changed since, is not read for it."""
        if not path.is_file():
            return False
        if self._written == _stamp(path):
            return True
        try:
            read_checkpoint(path)
        except ValueError:
            return False
        return True


def write_whole(content: bytes | memoryview, path: Path, previous: Path | None = None) -> None:
    """Write a file whole or not at all.

    Args:
        content: all of it.
        path: of the file; its folder is made when missing.
        previous: new path of the file that stands at `path` now; None gives it up.

    Raises:
        OSError: the file cannot be written, as on a full disk; the one that stood at `path` is kept.
    """
    try:
        with replace_file(path, previous) as file:
            file.write(content)
    except OSError as error:
        raise OSError(_why_not_written(path, len(content), error)) from error


def last_checkpoint(output: str | Path) -> Path | None:
    """A run's newest checkpoint, or None where there is none yet."""
    return next((path for path in _newest_first(output) if path.is_file()), None)


def best_checkpoint(output: str | Path) -> Path | None:
    """The best checkpoint by validation top-1, or the last where nothing was validated; None where there is none."""
    path = Path(output) / CHECKPOINTS / BEST
    return path if path.is_file() else last_checkpoint(output)


def resumable_checkpoint(output: str | Path) -> Path | None:
    """The newest checkpoint of a run that can be read, with a warning where a newer one cannot; None for a new run.

    Raises:
        ValueError: the run has checkpoints, and none of them can be read.
    """
    broken: list[tuple[Path, ValueError]] = []
    for path in filter(Path.is_file, _newest_first(output)):
        try:
            read_checkpoint(path)
        except ValueError as error:
            broken.append((path, error))
        else:
            if broken:
                warnings.warn(f"{broken[0][0]} is damaged: the run goes on from {path}, the one before", stacklevel=2)
            return path
    if broken:
        names = " and ".join(path.name for path, _ in broken)
        raise ValueError(
            f"{broken[0][1]}. The run cannot go on from {names}: put a copy in the place, or delete {names} to start "
            f"anew (--init {Path(output) / CHECKPOINTS / BEST} starts from the best weights, where it is there)"
        )
    return None


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _newest_first(output: str | Path) -> tuple[Path, Path]:
    return Path(output) / CHECKPOINTS / LAST, Path(output) / CHECKPOINTS / PREVIOUS


def _why_not_written(path: Path, num_bytes: int, error: OSError) -> str:
    free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
    sizes = f"it takes {num_bytes / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free"
    return (
        f"{path} cannot be written ({error.strerror or error}): {sizes}. "
        "What was written before is whole: make room, then go on with --resume"
    )
