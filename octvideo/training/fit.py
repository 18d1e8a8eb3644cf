"""One training run in one folder: logs, checkpoints, resumption."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger

from octvideo.data import UnreadableLog, VideoDataModule
from octvideo.training.checkpoint_files import BEST, CHECKPOINTS, LAST, WholeFiles
from octvideo.training.checkpoints import read_resumed
from octvideo.training.classifier import VideoClassifier
from octvideo.training.metrics_file import MetricsFile
from octvideo.training.precise_bn import PreciseBatchNorm
from octvideo.training.processes import ended_together
from octvideo.training.progress import LineProgress
from octvideo.training.resume import EpochSoFar, StepCheckpoints, StepSeed, position
from octvideo.training.sharding import FSDP, FullySharded
from octvideo.training.sync_norm import PairSyncBatchNorm
from octvideo.training.unreadable import UNREADABLE, UnreadableClips

UNFIT = (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError)
"""What a checkpoint raises that is damaged, or another run's."""


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
    checkpoint_every_n_steps: int = 0,
    sync_batchnorm: bool = False,
    precise_bn: int = 0,
    **options: Any,
) -> pl.Trainer:
    """Make the Lightning trainer of a run.

    Args:
        output: the run's folder: metrics.csv, TensorBoard events, checkpoints/, and unreadable.csv for clips that are
            left out.
        seed: of the run.
        ema_decay: decay of a moving average of the weights, which is validated, saved and tested; 0 is off.
        progress: a live bar (True), or one line per epoch.
        has_validation: keep the best checkpoint by validation top-1 beside the last.
        checkpoint_every_n_steps: also write the last checkpoint within epochs, after so many optimizer steps; 0 is off.
        sync_batchnorm: batch norms, of octave networks too, over the batches of all processes.
        precise_bn: training batches over which the statistics of batch norms are taken before validation and at the
            end; 0 is off.
        options: of `pytorch_lightning.Trainer`; strategy "fsdp" is `octvideo.training.sharding.FullySharded`.

    Raises:
        ValueError: ema_decay or precise_bn out of its range, both at once, or one of them beside shards.
    """
    is_sharded = options.get("strategy") == FSDP
    _check_final_weights(ema_decay, precise_bn, is_sharded)
    if is_sharded:
        options["strategy"] = FullySharded()
    output = Path(output)
    callbacks: list[Callback] = [StepSeed(seed), EpochSoFar(), UnreadableClips(UnreadableLog(output / UNREADABLE))]
    callbacks += [LearningRateMonitor("epoch"), RichProgressBar() if progress else LineProgress()]
    if ema_decay:
        callbacks.append(EMAWeightAveraging(decay=ema_decay))
    if precise_bn:
        callbacks.append(PreciseBatchNorm(precise_bn))
    if not options.get("fast_dev_run"):
        callbacks.append(MetricsFile(output / "metrics.csv"))
        callbacks += _checkpoints(output / CHECKPOINTS, has_validation, checkpoint_every_n_steps)
    plugins: list[Any] = [WholeFiles(), *([PairSyncBatchNorm()] if sync_batchnorm else []), *_environment()]
    return pl.Trainer(
        default_root_dir=output,
        logger=TensorBoardLogger(output, name="", version="tensorboard"),
        callbacks=callbacks,
        plugins=plugins + options.pop("plugins", []),
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module deals the clips out, and evaluates none twice
        **options,
    )


def _check_final_weights(ema_decay: float, precise_bn: int, is_sharded: bool) -> None:
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must be at least 0 and below 1; got {ema_decay}")
    if precise_bn < 0 or (precise_bn and ema_decay):
        raise ValueError(
            f"precise_bn must be 0 or more, and 0 beside ema_decay, whose average has statistics of its own; got "
            f"{precise_bn}"
        )
    if is_sharded and ema_decay:
        raise ValueError(f"ema_decay is {ema_decay}, but shards have no moving average: set it 0, or strategy ddp")
    if is_sharded and precise_bn:
        raise ValueError(f"precise_bn is {precise_bn}, but shards cannot take it: set it 0, or strategy ddp")


def _checkpoints(folder: Path, has_validation: bool, every_n_steps: int) -> list[Callback]:
    """The best epoch's checkpoint, the newest one's, and those within epochs, which take the newest one's place.

    Each has a callback of its own: one callback for both writes the last only when it is the best, too. The best comes
    first, so that the last knows of it: a run that goes on from the last then keeps or beats the best there was.
    """
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    last = ModelCheckpoint(filename=Path(LAST).stem, **common)
    best = ModelCheckpoint(filename=Path(BEST).stem, monitor="val_top1_percent", mode="max", **common)
    return [*([best] if has_validation else []), last, StepCheckpoints(folder / LAST, every_n_steps)]


def _environment() -> list[SLURMEnvironment]:
    """SLURM's, without Lightning's own way to requeue a job, whose checkpoints no one reads here."""
    is_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if is_slurm else []


def fit(classifier: VideoClassifier, data: VideoDataModule, trainer: pl.Trainer, resume: Path | None) -> None:
    """Train, from the checkpoint `resume` where given, exactly as the run that wrote it would have gone on.

    Raises:
        ValueError: `resume` cannot be read, was written within an epoch by another number of processes, or over other
            shards.
        OSError: a checkpoint cannot be written, as on a full disk; the one before it is whole.
        ChildProcessError: a loader's process died.
        KeyboardInterrupt: training was interrupted; the last checkpoint is there.
    """
    if resume is not None:
        _take_up(data, resume)
    started = _Started()
    trainer.callbacks.insert(0, started)  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(), ended_together(trainer):
            # Neither holds here: the batch sampler leaves out what was seen, and nobody writes into the logits.
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            trainer.fit(classifier, datamodule=data, ckpt_path=str(resume) if resume else None, weights_only=True)
    except UNFIT as error:
        if resume is None or started.has_started or str(resume) in str(error):
            raise
        raise _unfit(resume, error) from error


def _take_up(data: VideoDataModule, resume: Path) -> None:
    """Let the data go on at a checkpoint's place."""
    data.setup("fit")  # a mistake in the lists, or other shards, are no fault of the checkpoint
    checkpoint = read_resumed(resume)
    state = checkpoint.get(type(data).__qualname__)
    data.load_state_dict(state if isinstance(state, dict) else {})
    try:
        data.first_epoch, data.first_batch = position(checkpoint)
    except UNFIT as error:
        raise _unfit(resume, error) from error


def _unfit(resume: Path, error: Exception) -> ValueError:
    reason = textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
    return ValueError(f"{resume} cannot be resumed with these options, or is damaged: {reason}")
