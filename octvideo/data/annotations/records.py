"""Videos of a data set in a few flat arrays.

A forked worker that reads a Python object counts a reference in it, and the operating system then copies its page: a
million records would in time lie in memory once per worker. Arrays are read without being written to, and stay shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from octvideo.data.annotations.packed import PackedStrings, each, equal

__all__ = ["NO_LABEL", "Annotations", "VideoRecord", "VideoRecords"]

NO_LABEL = -1


@dataclass(frozen=True)
class VideoRecord:
    """One video.

    Args:
        path: file to decode.
        label: index of its class; None where it is not known, as for prediction.
    """

    path: str
    label: int | None


class VideoRecords(Sequence[VideoRecord]):
    """Videos in flat arrays; a :class:`VideoRecord` is made when it is asked for.

    Args:
        paths: files.
        labels: index of each one's class, -1 where it is not known.

    Shape:
        labels: (len(paths),).
    """

    def __init__(self, paths: PackedStrings, labels: np.ndarray) -> None:
        self.paths, self.labels = paths, labels.astype(np.int32, copy=False)

    @classmethod
    def of(cls, records: Sequence[VideoRecord]) -> VideoRecords:
        """The records in arrays; those in arrays as they are."""
        if isinstance(records, VideoRecords):
            return records
        labels = [NO_LABEL if record.label is None else record.label for record in records]
        return cls(PackedStrings(record.path for record in records), np.array(labels, dtype=np.int32))

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> VideoRecord: ...

    @overload
    def __getitem__(self, index: slice) -> VideoRecords: ...

    def __getitem__(self, index: int | slice) -> VideoRecord | VideoRecords:
        """One video, or a slice of them."""
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        return _record(self.paths[index], int(self.labels[index]))

    def __iter__(self) -> Iterator[VideoRecord]:
        """Every video in order."""
        return map(_record, self.paths, each(self.labels))

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same videos."""
        if isinstance(other, VideoRecords):
            return np.array_equal(self.labels, other.labels) and self.paths == other.paths
        return equal(self, other)

    def __repr__(self) -> str:
        return f"VideoRecords of {len(self):,}"

    def take(self, places: np.ndarray) -> VideoRecords:
        """The videos at these places, in their order."""
        return VideoRecords(self.paths.take(places), self.labels[places])


@dataclass(frozen=True)
class Annotations:
    """A data set: its videos and the names of its classes.

    Args:
        records: the videos in the order of their source; any sequence is turned into flat arrays.
        class_names: name of class ``i`` at position ``i``.
        missing: listed videos that do not exist and were left out.
    """

    records: Sequence[VideoRecord]
    class_names: tuple[str, ...]
    missing: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", VideoRecords.of(self.records))
        object.__setattr__(self, "missing", PackedStrings.of(self.missing))

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.records)

    @property
    def num_classes(self) -> int:
        """Number of classes, those without a video included."""
        return len(self.class_names)

    @property
    def num_missing(self) -> int:
        """Number of listed videos that were left out."""
        return len(self.missing)

    @property
    def is_labelled(self) -> bool:
        """True where the class of every video is known."""
        return not (self.labels == NO_LABEL).any()

    @property
    def labels(self) -> np.ndarray:
        """Index of each video's class, -1 where it is not known; int32, (number of videos,)."""
        return VideoRecords.of(self.records).labels

    def take(self, places: np.ndarray) -> Annotations:
        """The data set of the videos at these places."""
        return Annotations(VideoRecords.of(self.records).take(places), self.class_names)


def _record(path: str, label: int) -> VideoRecord:
    return VideoRecord(path, None if label == NO_LABEL else label)
