"""Clips that could not be read: what stands for them in a batch, and the list of them on disk."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import default_collate

from octvideo.files import csv_line

__all__ = ["UNREADABLE_POLICIES", "UnreadableClip", "UnreadableLog", "check_unreadable", "collate_clips"]

UNREADABLE_POLICIES = ("error", "skip")
"""What a clip that cannot be read becomes: an error, or one clip less in its batch, counted and listed."""


def check_unreadable(unreadable: str, timeout_seconds: float) -> None:
    """Check a policy and a time limit.

    Raises:
        ValueError: an unknown policy, or a time limit below 0.
    """
    if unreadable not in UNREADABLE_POLICIES:
        raise ValueError(f"unreadable should be one of {', '.join(UNREADABLE_POLICIES)}, but it is {unreadable!r}.")
    if timeout_seconds < 0:
        raise ValueError(f"timeout_seconds should be at least 0, which sets no limit, but it is {timeout_seconds:g}.")


class UnreadableClip(NamedTuple):
    """Stands for an item that could not be made.

    Args:
        video: index of the video in its list.
        view: number of the clip and crop.
        path: file.
        reason: why it cannot be read.
    """

    video: int
    view: int
    path: str
    reason: str


def collate_clips(
    items: Sequence[Any], stack: Callable[[list[torch.Tensor]], torch.Tensor] | None = None
) -> dict[str, Any]:
    """A batch of the clips that could be read, as torch makes it; the others are listed under "unreadable".

    Where none could be read, every tensor is empty: the batch has no clips, and still counts as one.

    Args:
        items: of a data set, or what stands for those that could not be made.
        stack: makes one tensor of the clips (C, T, H, W); None is torch's way.
    """
    unreadable = [item for item in items if isinstance(item, UnreadableClip)]
    clips = [item for item in items if not isinstance(item, UnreadableClip)]
    if clips:
        if stack is None:
            return {**default_collate(clips), "unreadable": unreadable}
        others = default_collate([{name: value for name, value in item.items() if name != "clip"} for item in clips])
        return {"clip": stack([item["clip"] for item in clips]), **others, "unreadable": unreadable}
    none = torch.empty(0, dtype=torch.long)
    return {"clip": torch.empty(0), "label": none, "video": none, "view": none, "unreadable": unreadable}


class UnreadableLog:
    """A CSV file of clips that were left out: split, epoch, path, reason.

    A video has one line for each epoch (and one in all outside training) that it was left out of. Lines are appended as
    clips fail, so that none is lost in a crash; several processes may append to one file.

    Args:
        path: file to append to; None keeps the list in memory only.
    """

    HEADER = ("split", "epoch", "path", "reason")

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        self.rows: dict[tuple[str, str, str], str] = {}
        if self.path is not None and self.path.is_file():
            self._end_torn_line(self.path)
        self.reload()

    def __len__(self) -> int:
        """Clips (in training) and videos (else) that were left out."""
        return len(self.rows)

    def videos(self, split: str) -> dict[str, str]:
        """The videos of a split that were left out at least once, and why."""
        return {path: reason for (one, _, path), reason in self.rows.items() if one == split}

    def add(self, split: str, epoch: int | None, clips: Iterable[tuple[str, str]]) -> None:
        """Add (path, reason) pairs; those that are there already change nothing."""
        for path, reason in clips:
            key = (split, "" if epoch is None else str(epoch), path)
            if key not in self.rows:
                self.rows[key] = reason
                self._append((*key, reason))

    def _append(self, row: Sequence[str]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:
            # One call for each line: lines of other processes come before or after it, never within.
            file.write(csv_line(row) if file.tell() else csv_line(self.HEADER) + csv_line(row))

    def reload(self) -> None:
        """Take up what other processes, or a run before this one, have appended to the file."""
        if self.path is None or not self.path.is_file():
            return
        text = self.path.read_bytes().decode("utf-8", errors="surrogateescape")
        for row in csv.reader(io.StringIO(text, newline="")):
            if len(row) == len(self.HEADER) and row != list(self.HEADER):
                self.rows.setdefault((row[0], row[1], row[2]), row[3])

    def _end_torn_line(self, path: Path) -> None:
        """End a line that a crash cut short: it has too few cells to count, but the next one must not run into it."""
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            last = content.rpartition(b"\n")[2]
            with open(path, "ab") as file:
                file.write(b'"\n' if last.count(b'"') % 2 else b"\n")
