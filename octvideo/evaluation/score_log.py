"""Scores of videos on disk as they come, so that an evaluation that was broken off goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from octvideo.evaluation.scores import VideoResults, check_views, combine_views


class ScoreLog:
    """The scores of whole videos in a folder, each written when the last of its views is there.

    Every process appends to a file of its own, `scores.RANK.jsonl`: a first line that says what the scores belong to,
    then a line per video with its index, label, number of views and mean softmax (float64, exact). A line that a crash
    cut short counts as not written. The next log over the folder takes up what all files hold, whatever the number
    of processes was.

    Args:
        folder: where the files are; made when missing.
        belongs_to: names and values that make scores comparable: checkpoint, list of videos, views.
        num_classes: classes K.
        num_views: views of a video.
        rank: number of this process.

    Raises:
        ValueError: the folder holds scores that belong to something else; names what differs.

    Example:
        >>> import tempfile
        >>> folder, ones = tempfile.mkdtemp(), torch.ones(1, dtype=torch.long)
        >>> with ScoreLog(folder, {"checkpoint": "a"}, num_classes=2, num_views=1) as log:
        ...     log.add(torch.tensor([[0.75, 0.25]]), label=0 * ones, video=4 * ones, view=0 * ones)
        >>> sorted(ScoreLog(folder, {"checkpoint": "a"}, num_classes=2, num_views=1).done)
        [4]
    """

    def __init__(
        self, folder: str | os.PathLike, belongs_to: dict[str, Any], *, num_classes: int, num_views: int, rank: int = 0
    ) -> None:
        self.folder, self.path = Path(folder), Path(folder) / f"scores.{rank}.jsonl"
        self.belongs_to = json.loads(json.dumps(belongs_to))
        self.num_classes, self.num_views = num_classes, num_views
        self.done = {row["video"] for row in self._rows()}
        self._open_videos: dict[int, dict[int, tuple[Tensor, int]]] = {}
        self._left_out: set[int] = set()
        self._file: BinaryIO | None = None

    def add(self, probs: Tensor, label: Tensor, video: Tensor, view: Tensor) -> None:
        """Take the softmax of a batch of views; see `VideoScores.update`.

        Raises:
            ValueError: a shape, a label, an index or a row's sum is wrong.
            OSError: the file cannot be written, as on a full disk.
        """
        check_views(probs, label, video, view, self.num_classes)
        for number, row in enumerate(video.tolist()):
            if row not in self.done and row not in self._left_out:
                views = self._open_videos.setdefault(row, {})
                views.setdefault(int(view[number]), (probs[number].detach().float().cpu(), int(label[number])))
                if len(views) == self.num_views:
                    self._write_video(row)

    def leave_out(self, videos: Iterable[int]) -> None:
        """Leave videos out of the scores, whatever views of them are added: one that cannot be read, for example."""
        for video in videos:
            self._left_out.add(video)
            self._open_videos.pop(video, None)

    def __enter__(self) -> ScoreLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file; at a regular end, videos of which views are missing are written with those that came."""
        if kind is None:
            for video in list(self._open_videos):
                self._write_video(video)
        if self._file is not None:
            self._file.close()
            self._file = None

    def results(self, num_expected: int | None = None) -> VideoResults:
        """Scores of all videos in the folder.

        Args:
            num_expected: videos that the set has, when that is known.

        Raises:
            ValueError: there is none.
        """
        rows = {row["video"]: row for row in self._rows()}
        if not rows:
            raise ValueError(f"{self.folder} holds no scored video: are all videos of the list unreadable?")
        columns = ([rows[video][name] for video in sorted(rows)] for name in ("video", "probs", "label", "num_views"))
        videos, probs, labels, num_views = columns
        exact = torch.tensor(probs, dtype=torch.float64)
        return VideoResults(
            torch.tensor(videos), exact, torch.tensor(labels), torch.tensor(num_views), num_expected=num_expected
        )

    def _write_video(self, video: int) -> None:
        views = self._open_videos.pop(video)
        probs = torch.stack([views[view][0] for view in sorted(views)])
        labels = torch.tensor([label for _, label in views.values()])
        whole = combine_views(probs, labels, torch.full_like(labels, video), torch.tensor(sorted(views)))
        row = {"video": video, "label": int(whole.labels), "num_views": len(views), "probs": whole.probs[0].tolist()}
        self._append(row)
        self.done.add(video)

    def _append(self, row: dict[str, Any]) -> None:
        try:
            if self._file is None:
                self._file = self._open()
            _write_line(self._file, row)
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written: {error.strerror}. The scores before it are kept: make room and give "
                "the same command again"
            ) from error

    def _open(self) -> BinaryIO:
        """This process's file, unbuffered, so that a line outlives the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = sum(len(line) for line in _whole_lines(self.path))
        file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed in __exit__
        file.truncate(kept)  # a line that was cut short must not run into the next one
        if not kept:
            _write_line(file, self.belongs_to)
        return file

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The lines of all files, after a look at what they belong to."""
        for path in sorted(self.folder.glob("scores.*.jsonl")):
            lines = _whole_lines(path)
            first = next(lines, None)
            if first is not None:
                self._check_first(path, _parsed(first))
            for line in lines:
                row = _parsed(line)
                if row is not None and len(row.get("probs", ())) == self.num_classes:
                    yield row

    def _check_first(self, path: Path, found: dict[str, Any] | None) -> None:
        if found is None:
            raise ValueError(f"{path} is no file of scores: give another --output, or delete it")
        for name in self.belongs_to | found:
            if found.get(name) != self.belongs_to.get(name):
                raise ValueError(
                    f"{path} holds scores of another evaluation: {name} was {found.get(name)!r} and is "
                    f"{self.belongs_to.get(name)!r} now. Give what it was, or another --output, or delete the file"
                )


def _write_line(file: BinaryIO, values: dict[str, Any]) -> None:
    left = memoryview(json.dumps(values).encode() + b"\n")
    while left:
        left = left[file.write(left) :]


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file up to one that was cut short; none where there is no file."""
    if path.is_file():
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
