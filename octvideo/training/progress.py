"""Progress without a terminal: one line an epoch."""

from __future__ import annotations

import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar


class LineProgress(ProgressBar):
    """Prints "epoch 3/40, train_loss 1.23, ..., 12 s" after each epoch; for logs, and where no terminal is."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def disable(self) -> None:
        """Silent on ranks other than the first."""
        self.is_enabled = False

    def enable(self) -> None:
        """Speak again."""
        self.is_enabled = True

    is_enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics  # in every process: they reduce them together
        if not self.is_enabled or trainer.global_rank:
            return
        names = ("train_loss", "val_loss", "val_top1_percent")
        values = [f"{n} {float(metrics[n]):.3f}" for n in names if n in metrics]
        if "unreadable" in metrics:
            values.append(f"unreadable {int(metrics['unreadable'])}")
        seconds = time.monotonic() - self._start
        print(
            ", ".join([f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *values, f"{seconds:.0f} s"]),
            flush=True,
        )
