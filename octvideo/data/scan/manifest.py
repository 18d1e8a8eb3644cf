"""What a scan found out about each video file: a CSV file that grows line by line, and its use by a data set."""

from __future__ import annotations

import csv
import io
import mmap
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

import numpy as np

from octvideo.data.probe import VideoDecodeError, VideoInfo
from octvideo.files import csv_line, replace_file

__all__ = ["BAD", "STATUSES", "Manifest", "ManifestEntry", "append_entry", "drop_torn_line", "write_manifest"]

STATUSES = ("ok", "damaged", "corrupt", "missing", "timed out", "crashed")
"""What a file can be: all right; of use up to the first frame that does not decode; of no use for a reason."""
BAD = ("corrupt", "missing", "timed out", "crashed")


@dataclass(frozen=True)
class ManifestEntry:
    """What is known of one file.

    Args:
        path: absolute path.
        status: one of :data:`STATUSES`.
        reason: why it is not "ok", or what else is worth knowing.
        num_bytes: size of the file when it was scanned, -1 where it is missing.
        mtime_ns: its time of modification then, -1 where it is missing.
        seconds: what the scan took.
        container: FFmpeg's name of the container.
        header_frames: frames that the header promises, 0 where it says nothing.
        info: what decodes; None for a bad file.
    """

    path: str
    status: str
    reason: str = ""
    num_bytes: int = -1
    mtime_ns: int = -1
    seconds: float = 0.0
    container: str = ""
    header_frames: int = 0
    info: VideoInfo | None = None

    @property
    def is_bad(self) -> bool:
        """True where no frame of the file can be used."""
        return self.status in BAD

    def fits(self) -> bool:
        """Whether the file still has the size and the time that it was scanned with."""
        return file_state(self.path) == (self.num_bytes, self.mtime_ns)


def file_state(path: str) -> tuple[int, int]:
    """Size and time of modification of a file, (-1, -1) where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


OWN = tuple(field.name for field in fields(ManifestEntry) if field.name != "info")
INFO = ("codec", "height", "width", "rotation_degrees", "fps", "num_frames", "seekers", "times", "keyframes")
HEADER = (*OWN, *INFO)
NUMBERS = {"num_bytes": int, "mtime_ns": int, "seconds": float, "header_frames": int}
INFO_NUMBERS = {"height": int, "width": int, "rotation_degrees": int, "fps": float, "num_frames": int}


class Manifest:
    """The entries of a manifest's file, found by path; the file stays on disk and is shared by all loader workers.

    Args:
        path: file that :func:`octvideo.data.scan_videos` wrote. A line that a crash cut short counts as not written; of
            several lines for one video the last one counts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no manifest.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"{self.path}: no such manifest. Write one with: octvideo data scan.")
        with open(self.path, "rb") as file:
            self._lines = (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
            )
        lines = list(_whole_lines(self._lines))
        if not lines or self._line(*lines[0]).encode() != csv_line(HEADER):
            raise _not_a_manifest(self.path)
        self._index(lines[1:])

    def _index(self, places: Sequence[tuple[int, int]]) -> None:
        """Sort the lines by a hash of their paths, to be found without an object for each of a million videos."""
        keys = np.array([_key(_fields(self._line(*place))[0]) for place in places], dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], np.array(places, dtype=np.int64).reshape(-1, 2)[order]

    def _line(self, start: int, end: int) -> str:
        return self._lines[start:end].decode("utf-8", errors="surrogateescape")

    def __reduce__(self) -> tuple[type[Manifest], tuple[str]]:
        """Spawned workers open the file anew."""
        return Manifest, (self.path,)

    def __len__(self) -> int:
        """Number of lines, those of videos that have a later one included."""
        return len(self._keys)

    @property
    def has_superseded_lines(self) -> bool:
        """True where a video has several lines."""
        return len(np.unique(self._keys)) < len(self._keys)

    def entry(self, path: str | os.PathLike[str]) -> ManifestEntry | None:
        """The last entry of a video, whether or not it still fits the file; None where it was not scanned."""
        name = os.path.abspath(path)
        key = np.uint64(_key(name))
        first, last = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        for place in reversed(range(int(first), int(last))):
            entry = _parse(self._line(*self._places[place].tolist()))
            if entry.path == name:
                return entry
        return None

    def entries(self) -> Iterator[ManifestEntry]:
        """The last entry of every video, in the order of their first lines."""
        seen: set[str] = set()
        for place in self._places[np.argsort(self._places[:, 0])].tolist():
            path = _fields(self._line(*place))[0]
            entry = None if path in seen else self.entry(path)
            seen.add(path)
            if entry is not None:
                yield entry

    def video_info(self, path: str | os.PathLike[str]) -> VideoInfo | None:
        """What is known of a video; None where it was not scanned, or has changed since.

        Raises:
            VideoDecodeError: the scan could not read it, and it has not changed since.
        """
        entry = self.entry(path)
        if entry is None or not entry.fits():
            return None
        if entry.info is None:
            raise VideoDecodeError(f"{os.fspath(path)}: {entry.status} ({entry.reason}), says {self.path}.")
        return entry.info


def append_entry(file: io.FileIO, entry: ManifestEntry) -> None:
    """Write an entry's line to the end of an unbuffered file; what a crash leaves of it is one line without an end."""
    left = memoryview(csv_line(_row(entry)))
    while left:
        left = left[file.write(left) :]


def drop_torn_line(path: Path) -> None:
    """Cut off a line that a crash left without its end, and write the header where there is none.

    Raises:
        ValueError: the file is something else.
    """
    content = path.read_bytes() if path.is_file() else b""
    header = csv_line(HEADER)
    if not content.startswith(header[: len(content)]):
        raise _not_a_manifest(path)
    places = list(_whole_lines(content))
    with open(path, "ab") as file:
        file.truncate(places[-1][1] if places else 0)
        if not places:
            file.write(header)


def _not_a_manifest(path: str | os.PathLike[str]) -> ValueError:
    return ValueError(f"{os.fspath(path)}: not a manifest of videos. Give one that octvideo data scan wrote.")


def write_manifest(path: Path, entries: Iterable[ManifestEntry]) -> None:
    """Write a manifest of one line a video; a reader sees the old file or the whole new one."""
    with replace_file(path) as file:
        file.write(csv_line(HEADER))
        for entry in entries:
            file.write(csv_line(_row(entry)))


def _whole_lines(content: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Start and end of each line that has an end. A line break in a name is between quotes."""
    start = end = 0
    while (found := content.find(b"\n", end)) >= 0:
        end = found + 1
        if content[start:end].count(b'"') % 2 == 0:
            yield start, end
            start = end


def _key(path: str) -> int:
    return int.from_bytes(blake2b(os.fsencode(path), digest_size=8).digest(), "little")


def _fields(line: str) -> list[str]:
    return next(csv.reader(io.StringIO(line, newline="")))


def _row(entry: ManifestEntry) -> list[str]:
    own = [str(getattr(entry, name)) for name in OWN]
    info = entry.info
    if info is None:
        return own + [""] * len(INFO)
    values = {name: str(getattr(info, name)) for name in INFO} | {"seekers": " ".join(info.seekers)}
    values |= {"times": _pack(info.times), "keyframes": _pack(info.keyframes)}
    return own + [values[name] for name in INFO]


def _parse(line: str) -> ManifestEntry:
    values: dict[str, str] = dict(zip(HEADER, _fields(line), strict=True))
    own = {name: NUMBERS.get(name, str)(values[name]) for name in OWN}
    if not values["codec"]:
        return ManifestEntry(**own)
    numbers = {name: kind(values[name]) for name, kind in INFO_NUMBERS.items()}
    info = VideoInfo(
        **numbers,
        codec=values["codec"],
        seekers=tuple(values["seekers"].split()),
        times=_unpack(values["times"]),
        keyframes=_unpack(values["keyframes"]),
    )
    return ManifestEntry(**own, info=info)


def _pack(numbers: Sequence[int]) -> str:
    """Increasing numbers as the first one and the steps between them, those that repeat as STEPxTIMES."""
    if len(numbers) < 2:
        return " ".join(map(str, numbers))
    steps = np.diff(np.asarray(numbers, dtype=np.int64))
    starts = np.flatnonzero(np.diff(steps, prepend=steps[0] - 1))
    counts = np.diff(starts, append=len(steps))
    runs = [f"{step}x{count}" for step, count in zip(steps[starts], counts, strict=True)]
    return " ".join([str(numbers[0]), *runs])


def _unpack(text: str) -> Sequence[int]:
    """Steady numbers as a range, others as an array."""
    first, *runs = text.split() or [""]
    if not first:
        return ()
    steps = [(int(step), int(count)) for step, _, count in (run.partition("x") for run in runs)]
    if len(steps) < 2:
        step, count = steps[0] if steps else (1, 0)
        return range(int(first), int(first) + step * (count + 1), step)
    return array("q", accumulate([int(first), *(step for step, count in steps for _ in range(count))]))
