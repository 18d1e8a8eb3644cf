"""A run that goes on in the middle of an epoch: where it was, what it draws there, and when a checkpoint is written."""

from __future__ import annotations

import hashlib
import math
import signal
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint


def position(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Epoch in which a checkpoint's run goes on, and how many of that epoch's batches it has seen."""
    progress = checkpoint["loops"]["fit_loop"]
    epochs = progress["epoch_progress"]["current"]
    batches = progress["epoch_loop.batch_progress"]["current"]
    return epochs["processed"], batches["processed"] if epochs["ready"] > epochs["processed"] else 0


class StepSeed(Callback):
    """Seeds dropout and mixing at the start of every step by its place, so that a run that is resumed anywhere draws
    what the straight run drew. (Clips are drawn by seed, epoch and index: see `octvideo.data.EpochSampler`.)

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = f"{self.seed} {trainer.current_epoch} {batch_idx} {trainer.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest(), "big"))


class EpochSoFar(Callback):
    """Keeps what a checkpoint in the middle of an epoch needs beside Lightning's state: the loss so far, and how many
    processes share the epoch's clips."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        def of_each_process(value: torch.Tensor) -> torch.Tensor:
            return trainer.strategy.all_gather(value.detach()).reshape(trainer.world_size, *value.shape).cpu().clone()

        sums = pl_module.train_loss.metric_state  # type: ignore[union-attr]
        loss = {name: of_each_process(value) for name, value in sums.items()}  # type: ignore
        checkpoint["epoch_so_far"] = {"loss": loss, "world_size": trainer.world_size}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the epoch's loss.

        Raises:
            ValueError: another number of processes wrote the checkpoint.
        """
        epoch, batch = position(checkpoint)
        if not batch:
            return
        so_far = checkpoint["epoch_so_far"]
        if so_far["world_size"] != trainer.world_size:
            raise ValueError(
                f"the checkpoint was written in the middle of epoch {epoch + 1} by {so_far['world_size']} process(es), "
                f"and now there are {trainer.world_size}: resume with as many (trainer.devices, trainer.num_nodes)"
            )
        for name, value in so_far["loss"].items():
            # Each process goes on with its own sums: put together now, they would be rounded in another order.
            setattr(pl_module.train_loss, name, value[trainer.global_rank].to(pl_module.device))


class StepCheckpoints(Checkpoint):
    """Writes checkpoints within epochs: every so many optimizer steps, and when the run is told to stop (SIGTERM).

    It waits for a step after which the run can be taken up exactly: one that ends an accumulation of gradients, with
    neither validation nor the epoch's end right behind it (an epoch's end has a checkpoint of its own).

    Args:
        path: the file.
        every_n_steps: optimizer steps from one to the next; 0 writes one only when the run is told to stop.

    Raises:
        SystemExit: from the training, after SIGTERM and the checkpoint that it asks for.
    """

    def __init__(self, path: Path, every_n_steps: int) -> None:
        if every_n_steps < 0:
            raise ValueError(f"checkpoint_every_n_steps must be 0 or more; got {every_n_steps}")
        self.path, self.every_n_steps = path, every_n_steps
        self._step = self._saved = 0
        self._told_to_stop = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = self._saved = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            # In place of Lightning's handler, which ends the run without a checkpoint and then puts the old one back.
            signal.signal(signal.SIGTERM, self._stop)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = trainer.global_step > self._step
        self._step = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self._told_to_stop, all=False)
        is_due = self.every_n_steps and self._step - self._saved >= self.every_n_steps
        if not (stop or is_due) or not stepped or trainer.is_last_batch or _validates_next(trainer, batch_idx):
            return
        trainer.save_checkpoint(self.path)
        self._saved = self._step
        if stop:
            raise SystemExit

    def _stop(self, *_: Any) -> None:
        self._told_to_stop = True


def _validates_next(trainer: pl.Trainer, batch_idx: int) -> bool:
    every = getattr(trainer, "val_check_batch", None)
    if not trainer.enable_validation or every is None or math.isinf(every):
        return False
    total = trainer.check_val_every_n_epoch is None
    return ((trainer.fit_loop.total_batch_idx if total else batch_idx) + 1) % every == 0
