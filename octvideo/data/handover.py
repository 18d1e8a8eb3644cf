"""Batches on their way from a loader's workers: pixels in shared memory that is used again, normalised on arrival."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from octvideo.data.dataset import VideoDataset
from octvideo.data.transforms import normalise
from octvideo.data.unreadable import collate_clips

__all__ = ["ClipLoader", "HandOver"]

PREFETCH_FACTOR = 2  # torch's own
SLOT = "slot"


class HandOver:
    """How batches of pixels get from a loader's workers to the process that asks for them, which normalises them.

    Floats would be four times as many bytes, and fresh shared memory costs more than copying into it: the system clears
    every page, and every page is a fault. So each worker has a few slots of memory. It puts a batch into one that is
    free, and the asking process frees it as soon as it has made floats of the pixels, which are all that anyone sees. A
    worker without a free slot takes fresh memory.

    Args:
        mean: of normalisation, per channel.
        std: of normalisation, per channel.
        num_workers: of the loader; 0 hands nothing over.
        device: where batches are normalised, and stay.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], num_workers: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.mean, self.std, self.num_workers, self.device = mean, std, num_workers, torch.device(device)
        self._is_taken = torch.zeros(0, 0)
        self._memory: dict[int, torch.Tensor] = {}  # of the worker in whose process this is

    @classmethod
    def of(cls, clips: VideoDataset, num_workers: int = 0, device: torch.device | str = "cpu") -> HandOver:
        """Of a data set's clips."""
        return cls(clips.mean, clips.std, num_workers, device)

    def begin(self, new_workers: bool) -> None:
        """Before a loader starts on a pass: all slots are free."""
        if new_workers:
            # Not the former tensor: it may still serve the workers of another pass.
            self._is_taken = torch.zeros(self.num_workers, PREFETCH_FACTOR + 1, dtype=torch.bool).share_memory_()
        else:
            self._is_taken.zero_()

    def collate(self, items: Sequence[Any]) -> dict[str, Any]:
        """In a worker: a batch as of :func:`collate_clips`, its clips in a slot if there is a free one."""
        worker = get_worker_info()
        if worker is None:
            return collate_clips(items)
        is_taken = self._is_taken[worker.id]
        slot = next((slot for slot, taken in enumerate(is_taken.tolist()) if not taken), None)
        if slot is None:
            return collate_clips(items)
        batch = collate_clips(items, lambda clips: self._put(slot, clips))
        if len(batch["clip"]):
            is_taken[slot] = True
            batch[SLOT] = (worker.id, slot)
        return batch

    def _put(self, slot: int, clips: list[torch.Tensor]) -> torch.Tensor:
        """Clips stacked in a slot's memory."""
        size = len(clips) * clips[0].numel()
        if slot not in self._memory or len(self._memory[slot]) < size:
            self._memory[slot] = torch.empty(size, dtype=torch.uint8).share_memory_()
        return torch.stack(clips, out=self._memory[slot][:size].view(len(clips), *clips[0].shape))

    def receive(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """In the asking process: the batches of a pass, normalised."""
        return self._received(batches, self._is_taken)

    def _received(self, batches: Iterator[dict[str, Any]], is_taken: torch.Tensor) -> Iterator[dict[str, Any]]:
        mapped: dict[tuple[int, int], torch.Tensor] = {}  # what is kept is not mapped anew for the next batch in it
        for batch in batches:
            pixels, slot = batch["clip"], batch.pop(SLOT, None)
            if len(pixels):
                batch["clip"] = normalise(pixels.to(self.device, non_blocking=pixels.is_pinned()), self.mean, self.std)
            if slot is not None:
                if pixels.is_shared():
                    mapped[tuple(slot)] = pixels
                is_taken[tuple(slot)] = False
            yield batch

    def __getstate__(self) -> dict[str, Any]:
        """Everything but this process's memory: workers that are spawned take their own."""
        return self.__dict__ | {"_memory": {}}


class ClipLoader(DataLoader[dict[str, Any]]):
    """A loader whose workers hand pixels over, and which gives normalised clips.

    Args:
        dataset: of pixels, as of :meth:`VideoDataset.as_pixels`.
        hand_over: whose `collate` makes the batches; None gives them as they come.
        options: of the loader.
    """

    def __init__(self, dataset: Any, hand_over: HandOver | None = None, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.hand_over = hand_over

    def __iter__(self) -> Any:
        """The batches of a pass."""
        if self.hand_over is None:
            return super().__iter__()
        self.hand_over.begin(new_workers=not self.persistent_workers or self._iterator is None)
        return self.hand_over.receive(super().__iter__())
