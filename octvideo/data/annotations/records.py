"""Videos of a data set in a few flat arrays.

A forked worker that reads a Python object counts a reference in it, and the operating system then copies its page: a
million records would in time lie in memory once per worker. Arrays are read without being written to, and stay shared.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

__all__ = ["Annotations", "PackedStrings", "VideoRecord", "VideoRecords"]

NO_LABEL = -1
CHUNK = 4096  # elements that become Python objects at a time


@dataclass(frozen=True)
class VideoRecord:
    """One video.

    Args:
        path: file to decode.
        label: index of its class; None where it is not known, as for prediction.
    """

    path: str
    label: int | None


class PackedStrings(Sequence[str]):
    """Strings that never change, end to end in one buffer.

    Args:
        strings: any, names that are not UTF-8 (surrogates) included.
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        packer = Packer()
        for string in strings:
            packer.add(string)
        self._bytes, self._ends = packer.contents()

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        """The strings packed; packed ones as they are."""
        return strings if isinstance(strings, PackedStrings) else cls(strings)

    def __len__(self) -> int:
        """Number of strings."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> PackedStrings: ...

    def __getitem__(self, index: int | slice) -> str | PackedStrings:
        """One string, or a slice of them."""
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        place = _checked(index, len(self))
        return _decode(self._bytes[self._ends[place] : self._ends[place + 1]])

    def __iter__(self) -> Iterator[str]:
        """Every string in order."""
        for start in range(0, len(self), CHUNK):
            ends = self._ends[start : start + CHUNK + 1].tolist()
            yield from (_decode(self._bytes[a:b]) for a, b in itertools.pairwise(ends))

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same strings."""
        if isinstance(other, PackedStrings):
            return self._bytes == other._bytes and np.array_equal(self._ends, other._ends)
        return _equal(self, other)

    def __repr__(self) -> str:
        return f"PackedStrings of {len(self):,}"

    def take(self, places: np.ndarray) -> PackedStrings:
        """The strings at these places, in their order."""
        packer = Packer()
        for place in each(places):
            packer.add_encoded(self._bytes[self._ends[place] : self._ends[place + 1]])
        return packer.packed()


class Packer:
    """Collects strings for a :class:`PackedStrings`."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])

    def __len__(self) -> int:
        """Number of strings so far."""
        return len(self._ends) - 1

    def add(self, string: str) -> None:
        """Append a string."""
        self.add_encoded(string.encode("utf-8", "surrogatepass"))

    def add_encoded(self, encoded: bytes) -> None:
        """Append a string that is already in bytes."""
        self._bytes += encoded
        self._ends.append(len(self._bytes))

    def get(self, place: int) -> str:
        """String that was added as the place-th."""
        return _decode(self._bytes[self._ends[place] : self._ends[place + 1]])

    def contents(self) -> tuple[bytes, np.ndarray]:
        """All strings end to end, and where each ends, after a 0."""
        return bytes(self._bytes), np.array(self._ends, dtype=np.int64)

    def packed(self) -> PackedStrings:
        """The strings so far."""
        result = PackedStrings.__new__(PackedStrings)
        result._bytes, result._ends = self.contents()
        return result


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
        return _equal(self, other)

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


def each(numbers: np.ndarray) -> Iterator[int]:
    """The numbers as Python's, never all at once."""
    for start in range(0, len(numbers), CHUNK):
        yield from numbers[start : start + CHUNK].tolist()


def _record(path: str, label: int) -> VideoRecord:
    return VideoRecord(path, None if label == NO_LABEL else label)


def _decode(encoded: bytes | bytearray) -> str:
    return encoded.decode("utf-8", "surrogatepass")


def _checked(index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"index should be {-length} to {length - 1}, but it is {index}.")
    return index % length


def _equal(one: Sequence[Any], other: object) -> bool:
    if not isinstance(other, Sequence):
        return False
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))
