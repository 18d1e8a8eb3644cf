"""Which listed videos exist, and where: folders are listed once each, instead of asking for file after file."""

from __future__ import annotations

import os
import sys
import time
from array import array
from collections.abc import Callable, Iterator

import numpy as np
from pytorch_lightning.utilities import rank_zero_only

from octvideo.data.annotations.packed import PackedStrings, Packer
from octvideo.data.annotations.rows import Rows

__all__ = ["VIDEO_EXTENSIONS", "find_videos", "is_present"]

VIDEO_EXTENSIONS = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".ts",
)  # fmt: skip

NOWHERE = -1
FEW = 8  # files of one folder that are asked for one by one, since the folder may hold many others
PROGRESS_SECONDS = 5.0
PROGRESS_STEP = 256  # files between looks at the clock


def is_present(paths: PackedStrings) -> np.ndarray:
    """Whether each path is a file; bool, (number of paths,).

    A folder with more than a few of the paths is listed once.
    """
    codes: dict[str, int] = {}
    folder_of = np.fromiter((codes.setdefault(os.path.dirname(path), len(codes)) for path in paths), np.int64)
    order = np.argsort(folder_of, kind="stable")
    bounds = np.searchsorted(folder_of[order], np.arange(len(codes) + 1))
    present = np.zeros(len(paths), dtype=bool)
    progress = Progress("looking for the listed videos")
    for code, folder in enumerate(codes):
        rows = order[bounds[code] : bounds[code + 1]]
        if len(rows) > FEW and not os.path.isdir(folder or os.curdir):
            continue
        listed = _files_among({os.path.basename(paths[row]) for row in rows}, folder) if len(rows) > FEW else set()
        for row in rows:
            # Also asked one by one: names that the file system takes for another spelling of a listed one.
            present[row] = os.path.basename(paths[row]) in listed or os.path.isfile(paths[row])
            progress.count()
    return present


def find_videos(rows: Rows, root: str) -> tuple[PackedStrings, np.ndarray]:
    """Look for videos by name below a folder, with any video extension.

    Of several files of one name the one in a folder of the row's label (or of the label with underscores) is taken,
    and among these the first by path.

    Args:
        rows: each with a name without extension.
        root: folder; links to folders in it are followed, hidden and unreadable ones left out.

    Returns:
        The paths of the rows whose video was found, in the rows' order, and for each row whether it was.
    """
    first: dict[str, int] = {}
    names = rows.names.packed()
    first_of = np.fromiter((first.setdefault(name, row) for row, name in enumerate(names)), np.int64, len(names))
    found, place = Packer(), array("q", [NOWHERE]) * len(names)
    for entry in _video_entries(root):
        row = first.get(os.path.splitext(entry.name)[0])
        if row is None or not _holds(entry.is_file):
            continue
        if place[row] == NOWHERE or _rank(entry.path, rows.label(row)) < _rank(found.get(place[row]), rows.label(row)):
            place[row] = len(found)
            found.add(entry.path)
    places = np.array(place, dtype=np.int64)[first_of]
    return found.packed().take(places[places != NOWHERE]), places != NOWHERE


def _rank(path: str, label: str | None) -> tuple[bool, str]:
    folder = os.path.basename(os.path.dirname(path))
    return label is None or folder.replace("_", " ") != label.replace("_", " "), path


def _files_among(names: set[str], folder: str) -> set[str]:
    """The names that are files of a folder; none where it cannot be listed."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return {entry.name for entry in entries if entry.name in names and entry.is_file()}
    except OSError:
        return set()


def _video_entries(root: str) -> Iterator[os.DirEntry[str]]:
    """Entries below a folder with a video's extension, each real folder once."""
    seen: set[tuple[int, int]] = set()
    folders = [root]
    progress = Progress(f"looking for videos below {root}")
    while folders:
        folder = folders.pop()
        try:
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:  # links may lead in circles
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.name.lower().endswith(VIDEO_EXTENSIONS):
                        progress.count()
                        yield entry
                    elif _holds(entry.is_dir):
                        folders.append(entry.path)
        except OSError:
            continue


def _holds(question: Callable[[], bool]) -> bool:
    """Whether an entry is what is asked for; no where a link leads into a circle or a folder that cannot be entered."""
    try:
        return question()
    except OSError:
        return False


class Progress:
    """Says on standard error, every few seconds, how far long work has come; by the first rank alone."""

    def __init__(self, task: str) -> None:
        self._task, self._count, self._start = task, 0, time.monotonic()
        self._next = self._start + PROGRESS_SECONDS

    def count(self) -> None:
        """One more is done."""
        self._count += 1
        if self._count % PROGRESS_STEP == 0 and (now := time.monotonic()) > self._next:
            self._next = now + PROGRESS_SECONDS
            _say(f"{self._task}: {self._count:,} files, {now - self._start:.0f} s")


@rank_zero_only
def _say(text: str) -> None:
    print(f"octvideo: {text}", file=sys.stderr, flush=True)
