"""One training run in one folder: logs, checkpoints, resumption."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from octvideo.data import VideoDataModule
from octvideo.training.checkpoints import read_resumed
from octvideo.training.classifier import VideoClassifier
from octvideo.training.precise_bn import PreciseBatchNorm
from octvideo.training.progress import LineProgress

CHECKPOINTS = "checkpoints"


class EpochSeed(Callback):
    """Seeds dropout and mixing at the start of every epoch by its number, so that a resumed run draws what the straight
    run drew. (Clips are drawn by seed, epoch and index: see `octvideo.data.EpochSampler`.)

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # later than on_train_epoch_start, after which loaders still draw random numbers
            torch.manual_seed((self.seed * 1_000_003 + trainer.current_epoch) * 4096 + trainer.global_rank)


class _Started(Callback):
    """Says whether a checkpoint is read and the trainer at work."""

    has_started = False

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.has_started = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.has_started = True


def build_trainer(
    output: str | Path,
    *,
    seed: int,
    ema_decay: float,
    progress: bool,
    has_validation: bool,
    precise_bn: int = 0,
    **options: Any,
) -> pl.Trainer:
    """Make the Lightning trainer of a run.

    Args:
        output: the run's folder: metrics.csv, TensorBoard events, checkpoints/.
        seed: of the run.
        ema_decay: decay of a moving average of the weights, which is validated, saved and tested; 0 is off.
        progress: a live bar (True), or one line per epoch.
        has_validation: keep the best checkpoint by validation top-1 beside the last.
        precise_bn: training batches over which the statistics of batch norms are taken before validation and at the
            end; 0 is off.
        options: of `pytorch_lightning.Trainer`.

    Raises:
        ValueError: ema_decay or precise_bn out of its range, or both at once.
    """
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must be at least 0 and below 1; got {ema_decay}")
    if precise_bn < 0 or (precise_bn and ema_decay):
        raise ValueError(
            f"precise_bn must be 0 or more, and 0 beside ema_decay, whose average has statistics of its own; got "
            f"{precise_bn}"
        )
    output = Path(output)
    callbacks: list[Callback] = [EpochSeed(seed), LearningRateMonitor("epoch")]
    callbacks.append(RichProgressBar() if progress else LineProgress())
    if ema_decay:
        callbacks.append(EMAWeightAveraging(decay=ema_decay))
    if precise_bn:
        callbacks.append(PreciseBatchNorm(precise_bn))
    if not options.get("fast_dev_run"):
        callbacks += _checkpoints(output, has_validation)
    return pl.Trainer(
        default_root_dir=output,
        logger=[CSVLogger(output, name="", version=""), TensorBoardLogger(output, name="", version="tensorboard")],
        callbacks=callbacks,
        enable_model_summary=False,
        **options,
    )


def _checkpoints(output: Path, has_validation: bool) -> list[Callback]:
    """The newest epoch's checkpoint, and the best one's.

    Each has a callback of its own: one callback for both writes the last only when it is the best, too.
    """
    folder = output / CHECKPOINTS
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    callbacks: list[Callback] = [ModelCheckpoint(filename="last", **common)]
    if has_validation:
        callbacks.append(ModelCheckpoint(filename="best", monitor="val_top1_percent", mode="max", **common))
    return callbacks


def last_checkpoint(output: str | Path) -> Path | None:
    """The checkpoint from which a run goes on, or None where there is none yet."""
    path = Path(output) / CHECKPOINTS / "last.ckpt"
    return path if path.is_file() else None


def best_checkpoint(output: str | Path) -> Path | None:
    """The best checkpoint by validation top-1, or the last where nothing was validated; None where there is none."""
    path = Path(output) / CHECKPOINTS / "best.ckpt"
    return path if path.is_file() else last_checkpoint(output)


def fit(classifier: VideoClassifier, data: VideoDataModule, trainer: pl.Trainer, resume: Path | None) -> None:
    """Train, from the checkpoint `resume` where given.

    Raises:
        ValueError: `resume` cannot be read.
        KeyboardInterrupt: training was interrupted; the last whole epoch's checkpoint is there.
    """
    if resume is not None:
        data.setup("fit")  # a mistake in the lists is no fault of the checkpoint
        data.first_epoch = read_resumed(resume)["epoch"] + 1
    started = _Started()
    trainer.callbacks.insert(0, started)  # type: ignore[attr-defined]
    try:
        trainer.fit(classifier, datamodule=data, ckpt_path=str(resume) if resume else None, weights_only=True)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        if resume is None or started.has_started:
            raise
        reason = textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
        raise ValueError(f"{resume} cannot be resumed with these options, or is damaged: {reason}") from error
    except SystemExit:
        if trainer.interrupted:  # Lightning turns an interrupt into an exit
            raise KeyboardInterrupt from None
        raise
