"""Precise batch norm: statistics over many training batches, taken before a network is validated or kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from octvideo.data import VideoDataModule
from octvideo.layers import OctPair
from octvideo.layers.calls import evaluating
from octvideo.layers.channels import join

BatchNorm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def update_statistics(network: nn.Module, clips: Iterable[Tensor]) -> None:
    """Set the running mean and variance of every batch norm to those over all the batches, for each channel the moments
    over every element that reached it (Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3).

    Each norm normalises by its batch's own statistics meanwhile, as in training; all else runs as in evaluation. Only
    the statistics change. Where a process group runs, they are taken over the batches of all its processes.

    Args:
        network: octave or dense.
        clips: batches (N, C, T, H, W), in distributed training as many in each process.

    Raises:
        ValueError: there is no batch.
    """
    norms = [m for m in network.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    moments = {norm: _Moments() for norm in norms}
    num_batches = 0
    with _taking_statistics(network, norms, moments):
        for batch in clips:
            network(batch)
            num_batches += 1
    if not num_batches:
        raise ValueError("precise batch norm needs at least one batch of clips")
    for norm, found in moments.items():
        if found.sums is not None and norm.running_mean is not None and norm.running_var is not None:
            mean, var = found.mean_and_variance()
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)


class _Moments:
    """Counts, sums and sums of squares of a norm's channels, (3, C) in float64."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def __call__(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Hook before a norm: add what goes into it."""
        (x,) = inputs
        sums = join(_sums(x.high), _sums(x.low), x.segments) if isinstance(x, OctPair) else _sums(x)
        self.sums = sums if self.sums is None else self.sums + sums

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Over the batches of all processes; the variance is the unbiased one, as in the norms' own statistics."""
        assert self.sums is not None
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.sums)
        count, total, squares = self.sums
        mean = total / count
        return mean, (squares / count - mean.square()).clamp_min(0) * count / (count - 1).clamp_min(1)


def _sums(x: Tensor) -> Tensor:
    """(N, C, ...) -> (3, C): elements, sum and sum of squares of each channel."""
    axes = [0, *range(2, x.dim())]
    count = x.numel() // max(x.shape[1], 1)
    if not x.shape[1]:
        return x.new_zeros(3, 0, dtype=torch.float64)
    var, mean = torch.var_mean(x.float(), axes, correction=0)
    var, mean = var.double(), mean.double()
    return torch.stack([torch.full_like(mean, count), mean * count, (var + mean.square()) * count])


@contextmanager
def _taking_statistics(
    network: nn.Module, norms: Iterable[BatchNorm], moments: dict[BatchNorm, _Moments]
) -> Iterator[None]:
    """Norms in training and all else in evaluation; afterwards everything as it was, running statistics too."""
    buffers = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    hooks = [norm.register_forward_pre_hook(moments[norm]) for norm in norms]
    try:
        with evaluating(network):
            for norm in norms:
                norm.training = True
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for buffer, before in buffers:
            buffer.copy_(before)


class PreciseBatchNorm(Callback):
    """Takes the statistics of batch norms over training batches, before every validation and at the end of training.

    The batches are the same every time and draw nothing from the random state, so that a resumed run stays the straight
    one. What is saved and validated is the network with these statistics; training itself never reads them.

    Args:
        num_batches: of each process's training batches; PySlowFast takes 200.
    """

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self._done_at = -1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._update(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps:
            self._update(trainer, pl_module)

    def _update(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._done_at == trainer.global_step:
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, VideoDataModule):
            raise ValueError("precise batch norm takes its batches from a VideoDataModule: train with datamodule=")
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed for its workers
            num_batches = 1 if getattr(trainer, "fast_dev_run", False) else self.num_batches
            loader = data.precise_loader(num_batches, trainer.global_rank, trainer.world_size, pl_module.device)
            with trainer.strategy.precision_plugin.forward_context():
                update_statistics(pl_module, (b["clip"].to(pl_module.device) for b in loader if len(b["clip"])))
        self._done_at = trainer.global_step
