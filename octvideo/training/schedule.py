"""Learning-rate schedule and parameter groups."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from octvideo.data import VideoDataModule

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class LrSchedule:
    """Factor on the learning rate: a linear warm-up, then half a cosine to 0, or steps.

    PySlowFast's schedules, by epochs and their fractions: with cosine_after_warmup false the cosine runs from epoch 0
    and the warm-up ends on it (Feichtenhofer et al. 2019, section 4), which is PySlowFast's own setting.

    Args:
        max_epochs: of the whole run.
        warmup_epochs: of these, how many warm up (also a fraction).
        warmup_start: factor at epoch 0, in [0, 1].
        cosine_after_warmup: start the cosine at the end of the warm-up.
        steps: epochs from which the factor is gamma times what it was before; where given, there is no cosine.
        gamma: of the steps.

    Raises:
        ValueError: steps that do not grow.

    Example:
        >>> schedule = LrSchedule(max_epochs=10, warmup_epochs=2, warmup_start=0.1)
        >>> [round(schedule(epoch), 3) for epoch in (0, 1, 2, 6, 10)]
        [0.1, 0.55, 1.0, 0.5, 0.0]
    """

    max_epochs: float
    warmup_epochs: float = 0.0
    warmup_start: float = 0.1
    cosine_after_warmup: bool = True
    steps: Sequence[float] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if any(a >= b for a, b in itertools.pairwise((0, *self.steps))):
            raise ValueError(f"lr_steps must be epochs that grow from above 0; got {list(self.steps)}")

    def __call__(self, epoch: float) -> float:
        """The factor at an epoch, counted from 0."""
        warmup = min(self.warmup_epochs, self.max_epochs)
        if epoch < warmup:
            return self.warmup_start + (self._peak(warmup) - self.warmup_start) * epoch / warmup
        return self._peak(epoch)

    def _peak(self, epoch: float) -> float:
        if self.steps:
            return self.gamma ** sum(step <= epoch for step in self.steps)
        start = min(self.warmup_epochs, self.max_epochs) if self.cosine_after_warmup else 0
        progress = (epoch - start) / max(self.max_epochs - start, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def epoch_of_step(step: int, epoch_steps: Sequence[float]) -> float:
    """Epochs, and the fraction of the next one, that a number of optimizer steps makes.

    Args:
        step: optimizer steps taken.
        epoch_steps: optimizer steps of each epoch.

    Example:
        >>> [epoch_of_step(step, [2, 4]) for step in range(7)]
        [0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0]
    """
    ends = list(itertools.accumulate(epoch_steps))
    epoch = bisect.bisect_right(ends, step)
    if epoch == len(ends):
        return float(epoch)
    return epoch + (step - ends[epoch] + epoch_steps[epoch]) / epoch_steps[epoch]


def steps_per_epoch(trainer: pl.Trainer) -> list[float]:
    """Optimizer steps of each of a trainer's epochs; with multigrid stages they differ."""
    total, epochs = int(trainer.estimated_stepping_batches), max(trainer.max_epochs or 1, 1)
    data = _video_data(trainer)
    if data is None or not data.hparams["multigrid"]:
        return [total // epochs if total % epochs == 0 else total / epochs] * epochs
    batches = [data.num_train_batches(epoch, trainer.world_size) for epoch in range(epochs)]
    limit = trainer.limit_train_batches
    kept = [min(n, limit) if isinstance(limit, int) else int(n * limit) for n in batches]
    return [math.ceil(n / trainer.accumulate_grad_batches) for n in kept]


def lr_scale(trainer: pl.Trainer, lr_batch_size: int | None) -> float:
    """Factor of the linear scaling rule (Goyal et al. 2017): the run's clips per optimizer step over lr_batch_size.

    Args:
        trainer: its processes and accumulated batches count.
        lr_batch_size: clips per step that the learning rate is meant for; None scales nothing.

    Raises:
        ValueError: the trainer has no `VideoDataModule`, which says how many clips a batch has.
    """
    if lr_batch_size is None:
        return 1.0
    data = _video_data(trainer)
    if data is None:
        raise ValueError("lr_batch_size needs the batch size of a VideoDataModule: train with datamodule=, or leave it")
    return data.hparams["batch_size"] * trainer.world_size * trainer.accumulate_grad_batches / lr_batch_size


def step_schedule(optimizer: torch.optim.Optimizer, trainer: pl.Trainer, schedule: LrSchedule) -> LambdaLR:
    """A schedule by epochs as a scheduler that advances by optimizer steps; larger batches of a multigrid stage get a
    learning rate that is larger by as much."""
    epoch_steps, data = steps_per_epoch(trainer), _video_data(trainer)

    def factor(step: int) -> float:
        epoch = epoch_of_step(step, epoch_steps)
        return schedule(epoch) * (1 if data is None else data.batch_factor(int(epoch)))

    return LambdaLR(optimizer, factor)


def _video_data(trainer: pl.Trainer) -> VideoDataModule | None:
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, VideoDataModule) else None


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: weights of convolutions and linear layers with weight decay; norms and biases without."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def build_optimizer(
    name: str, groups: Iterable[dict], lr: float, momentum: float
) -> torch.optim.SGD | torch.optim.AdamW:
    """SGD with Nesterov momentum, or AdamW.

    Raises:
        ValueError: for another name.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999))
    raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}")
