"""Strings and numbers in flat buffers, which become Python objects only when they are asked for."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

__all__ = ["PackedStrings", "Packer", "each", "equal"]

CHUNK = 4096  # elements that become Python objects at a time


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
        return equal(self, other)

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


def each(numbers: np.ndarray) -> Iterator[int]:
    """The numbers as Python's, never all at once."""
    for start in range(0, len(numbers), CHUNK):
        yield from numbers[start : start + CHUNK].tolist()


def equal(one: Sequence[Any], other: object) -> bool:
    """Whether the other is a sequence of the same elements."""
    if not isinstance(other, Sequence):
        return False
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))


def _decode(encoded: bytes | bytearray) -> str:
    return encoded.decode("utf-8", "surrogatepass")


def _checked(index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"index should be {-length} to {length - 1}, but it is {index}.")
    return index % length
