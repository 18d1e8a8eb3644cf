"""Which clips a loader draws, in which order and with what randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler

__all__ = ["EpochSampler"]

CHUNK = 4096


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled (index, item seed) pairs that depend on seed and epoch only.

    Neither the number of loader workers nor a resumption changes what an epoch draws.

    Args:
        length: number of items.
        seed: of the run.
        epoch: called at the start of each epoch for its number.
    """

    def __init__(self, length: int, seed: int, epoch: Callable[[], int]) -> None:
        self.length, self.seed, self.epoch = length, seed, epoch

    def __len__(self) -> int:
        """Items of an epoch."""
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every index once."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch())
        order = torch.randperm(self.length, generator=generator)
        seeds = torch.randint(2**62, (self.length,), generator=generator)
        return zip(_numbers(order), _numbers(seeds), strict=True)


def _numbers(values: torch.Tensor) -> Iterator[int]:
    """The values as Python's numbers, which take several times the tensor's memory, a few at a time."""
    for some in values.split(CHUNK):
        yield from some.tolist()
