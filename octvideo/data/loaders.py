"""Loaders of clips, from files of their own or from shards, by the settings of a data module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from octvideo.data.batches import TrainBatches, ViewBatches
from octvideo.data.dataset import VideoDataset
from octvideo.data.draws import EpochSampler
from octvideo.data.guard import GuardedDataset
from octvideo.data.handover import ClipLoader, HandOver
from octvideo.data.shards import ShardDataset, ShardLoader, ShardSet

__all__ = ["Loaders"]


@dataclass(frozen=True)
class Loaders:
    """Makes the loaders of one split for one process of several.

    Args:
        dataset: what is made of each video.
        shards: where the videos lie; None where they are files of their own.
        settings: batch_size, num_workers, seed, unreadable, timeout_seconds and shuffle_buffer of the data module.
        rank: number of the process.
        world_size: number of processes.
        device: where batches are normalised, and stay.
    """

    dataset: VideoDataset
    shards: ShardSet | None
    settings: Mapping[str, Any]
    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"

    def train(self, size: int, epoch: Callable[[], int], first: Callable[[], int]) -> DataLoader[Any]:
        """Batches of `size` videos as an epoch draws them, from the epoch's batch `first` on."""
        if self.shards is not None:
            return self._drawn_from_shards(size, lambda: (epoch(), first()))
        return self._of_files(self._drawn(size, epoch, first))

    def few(self, num_batches: int, size: int, epoch: int) -> Iterable[dict[str, Any]]:
        """The first batches that an epoch draws, once."""
        if self.shards is not None:
            return islice(self._drawn_from_shards(size, lambda: (epoch, 0), persistent=False), num_batches)
        batches = list(islice(self._drawn(size, lambda: epoch, lambda: 0), num_batches))
        return self._of_files(batches, persistent=False)

    def views(self, done: Collection[int], equal: bool) -> DataLoader[Any]:
        """All views of the videos that are not done; if equal, as many batches as in every other process."""
        if self.shards is not None:
            return self._of_shards(self.settings["batch_size"], lambda: (0, 0), done=done, equal=equal)
        batches = ViewBatches(
            len(self.dataset.annotations),
            self.dataset.num_views,
            self.settings["batch_size"],
            num_workers=self.settings["num_workers"],
            rank=self.rank,
            world_size=self.world_size,
            done=done,
            equal=equal,
        )
        return self._of_files(batches)

    def _drawn(self, size: int, epoch: Callable[[], int], first: Callable[[], int]) -> TrainBatches:
        order = EpochSampler(len(self.dataset), self.settings["seed"], epoch)
        return TrainBatches(order, size, rank=self.rank, world_size=self.world_size, first=first)

    def _of_files(self, batches: TrainBatches | ViewBatches | list[Any], *, persistent: bool = True) -> DataLoader[Any]:
        guards = {name: self.settings[name] for name in ("timeout_seconds", "unreadable")}
        guarded = GuardedDataset(self.dataset.as_pixels(), **guards)
        if self.settings["num_workers"] > 0:
            # Filled before the workers start, the cache is one copy that all of them read.
            guarded.fill_cache()
        hand_over = self._hand_over()
        return ClipLoader(
            guarded, hand_over, collate_fn=hand_over.collate, batch_sampler=batches, **self._workers(persistent)
        )

    def _drawn_from_shards(
        self, size: int, start: Callable[[], tuple[int, int]], *, persistent: bool = True
    ) -> ShardLoader:
        draws = {"seed": self.settings["seed"], "buffer": self.settings["shuffle_buffer"]}
        return self._of_shards(size, start, persistent=persistent, **draws)

    def _of_shards(
        self, size: int, start: Callable[[], tuple[int, int]], *, persistent: bool = True, **settings: Any
    ) -> ShardLoader:
        assert self.shards is not None
        hand_over = self._hand_over()
        batches = ShardDataset(
            self.shards,
            self.dataset.as_pixels(),
            batch_size=size,
            num_workers=self.settings["num_workers"],
            unreadable=self.settings["unreadable"],
            timeout_seconds=self.settings["timeout_seconds"],
            rank=self.rank,
            world_size=self.world_size,
            collate=hand_over.collate,
            **settings,
        )
        return ShardLoader(batches, start, hand_over, **self._workers(persistent))

    def _hand_over(self) -> HandOver:
        return HandOver.of(self.dataset, self.settings["num_workers"], self.device)

    def _workers(self, persistent: bool) -> dict[str, Any]:
        """A loader's options that say who makes its batches."""
        num_workers = self.settings["num_workers"]
        return {
            "num_workers": num_workers,
            "persistent_workers": persistent and num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }
