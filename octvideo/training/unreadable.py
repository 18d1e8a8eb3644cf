"""Clips that could not be read and were left out: counted, listed on disk, shown beside the loss."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from octvideo.data import UnreadableLog, VideoDecodeError

UNREADABLE = "unreadable.csv"


class UnreadableClips(Callback):
    """Enters the clips that batches lack into a log, and shows how many there are.

    Args:
        log: where they are entered.

    Raises:
        VideoDecodeError: at the end of a training epoch of which no clip could be read, in any process.
    """

    def __init__(self, log: UnreadableLog) -> None:
        self.unreadable = log
        self.num_read = self.num_left_out = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.unreadable.reload()  # what a manifest leaves out

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.num_read = self.num_left_out = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._enter("train", trainer.current_epoch, batch)
        self.num_read += len(batch["label"])
        self.num_left_out += len(batch.get("unreadable", ()))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._show(pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.unreadable.reload()  # what other processes have entered
        self._show(pl_module, on_step=False)  # with what validation has left out since the last batch
        counts = torch.tensor([self.num_read, self.num_left_out], device=pl_module.device)
        num_read, num_left_out = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        if num_left_out and not num_read:
            path, reason = next(reversed(self.unreadable.videos("train").items()))
            raise VideoDecodeError(
                f"none of the {num_left_out:,} clips of epoch {trainer.current_epoch + 1} could be read, such as "
                f"{path}: {reason.rstrip('.')}. All are listed in {self.unreadable.path}."
            )

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._enter("val", trainer.current_epoch, batch)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._enter("test", None, batch)

    def _show(self, pl_module: pl.LightningModule, on_step: bool) -> None:
        if count := len(self.unreadable):
            pl_module.log(
                "unreadable", float(count), prog_bar=True, on_step=on_step, on_epoch=not on_step, batch_size=1
            )

    def _enter(self, split: str, epoch: int | None, batch: Any) -> None:
        self.unreadable.add(split, epoch, ((clip.path, clip.reason) for clip in batch.get("unreadable", ())))
