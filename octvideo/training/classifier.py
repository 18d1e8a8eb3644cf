"""The Lightning module: a network by name, its loss, optimizer and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric

from octvideo import layers
from octvideo.data.mix import CutMix, MixUp
from octvideo.evaluation import VideoScores
from octvideo.models import BUILDERS, IMAGE_BUILDERS, build_model
from octvideo.training import recompute
from octvideo.training.schedule import (
    OPTIMIZERS,
    LrSchedule,
    build_optimizer,
    lr_scale,
    parameter_groups,
    step_schedule,
)


class VideoClassifier(pl.LightningModule):
    """Trains and tests a video network; all arguments are plain values, so that a checkpoint rebuilds the module.

    Args:
        model: name of a builder in `octvideo.models`, or "package.module:function" of your own.
        alpha: low-frequency share of the channels, in [0, 1]; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.
        optimizer: "sgd" (Nesterov) or "adamw".
        lr: learning rate after the warm-up.
        lr_batch_size: clips per optimizer step that lr is meant for: lr is multiplied by batch size x processes x
            accumulated batches over this number (linear scaling). None takes lr as it is.
        momentum: of SGD; beta 1 of AdamW.
        weight_decay: on weights; norms and biases have none.
        warmup_epochs: epochs (also a fraction) of linear warm-up before the cosine.
        warmup_start: learning rate at the first step, as a share of lr.
        cosine_after_warmup: start the cosine where the warm-up ends; else it runs over all epochs, as in PySlowFast.
        lr_steps: epochs from which the learning rate is lr_gamma times what it was, in place of the cosine.
        lr_gamma: of lr_steps.
        label_smoothing: share of the target that is spread over all classes.
        mixup: MixUp's alpha; 0 is off.
        cutmix: CutMix's alpha; 0 is off. With both on, each batch draws one of them.
        channels_last: weights and clips in channels-last memory, with 3-D convolutions through 2-D views: the same
            results (but for rounding) in less time.
        checkpoint_activations: keep less for the gradients and compute it again, block by block: the same results in
            less memory and more time.
        recompute_pooled: keep no pooled maps of octave convolutions for the gradients but pool again: the same
            results in memory that falls with alpha, and a little more time.
        class_names: name of class i at position i (filled in from the data).
        preprocessing: how test clips are made (filled in from the data).

    Shape:
        batches as `octvideo.data.ClipItem`s, clips (N, C, T, H, W).

    Raises:
        ValueError: for a value out of its range, or an unknown name.
    """

    def __init__(
        self,
        model: str = "i3d_r50",
        alpha: float = 0.0,
        octave: str = "spatial",
        dropout: float = 0.5,
        optimizer: str = "sgd",
        lr: float = 0.1,
        lr_batch_size: int | None = None,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 0.0,
        warmup_start: float = 0.1,
        cosine_after_warmup: bool = True,
        lr_steps: Sequence[float] = (),
        lr_gamma: float = 0.1,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        channels_last: bool = True,
        checkpoint_activations: bool = False,
        recompute_pooled: bool = False,
        class_names: Sequence[str] = (),
        preprocessing: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not class_names:
            raise ValueError("class_names is empty: give the names of the data set's classes")
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {optimizer!r}")
        if model in IMAGE_BUILDERS:
            raise ValueError(f"model {model!r} takes images: clips of video need one of {', '.join(BUILDERS)}")
        _check_at_least_zero(lr=lr, weight_decay=weight_decay, warmup_epochs=warmup_epochs, mixup=mixup, cutmix=cutmix)
        _check_share(dropout=dropout, momentum=momentum, warmup_start=warmup_start, label_smoothing=label_smoothing)
        _check_share(lr_gamma=lr_gamma)
        if lr_batch_size is not None and lr_batch_size < 1:
            raise ValueError(f"lr_batch_size must be 1 or more; got {lr_batch_size}")
        LrSchedule(1, steps=lr_steps)  # raises an error now, not when training starts
        class_names, preprocessing = list(class_names), dict(preprocessing or {})
        self.save_hyperparameters(logger=False)
        self.network = build_model(model, num_classes=len(class_names), alpha=alpha, octave=octave, dropout=dropout)
        self.takes_channels_last = False
        self.mixers = [
            kind(strength, len(class_names)) for kind, strength in ((MixUp, mixup), (CutMix, cutmix)) if strength
        ]
        self.train_loss = MeanMetric()
        self.val_scores = VideoScores(len(class_names))

    def setup(self, stage: str) -> None:
        """Lay the network out for a trainer; one that a checkpoint rebuilds stays plain, as exports need it.

        What saves memory for gradients is for "fit" alone: the network that others score may be on the fast path.
        """
        if self.hparams["channels_last"]:
            self.network = layers.to_channels_last(self.network)
            self.takes_channels_last = True
        else:
            self.network = layers.own_convolutions(self.network)
        if stage != "fit":
            return
        if self.hparams["checkpoint_activations"]:
            recompute.checkpoint_activations(self.network)
        if self.hparams["recompute_pooled"]:
            layers.recompute_pooled(self.network)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, K) logits."""
        if self.takes_channels_last:
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        return self.network(clips)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        clips, labels = batch["clip"], batch["label"]
        if self.mixers and len(clips):
            mixer = self.mixers[int(torch.randint(len(self.mixers), ()))]
            clips, labels = mixer(clips, labels)
        loss = self._loss(clips, labels) if len(clips) else self._no_loss()
        self.train_loss.update(loss.detach(), len(clips))
        self.log("train_loss", self.train_loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def _loss(self, clips: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(clips).float(), labels, label_smoothing=self.hparams["label_smoothing"])

    def _no_loss(self) -> Tensor:
        """0 as the loss of a batch of which no clip could be read.

        Every parameter gets a gradient of zeros: the ranks of data-parallel training wait for each other's gradients.
        """
        return torch.stack([(p * 0).sum() for p in self.parameters() if p.requires_grad]).sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.val_scores.leave_out(clip.video for clip in batch.get("unreadable", ()))
        if len(batch["clip"]):
            self.val_scores.update(self._probs(batch), batch["label"], batch["video"], batch["view"])

    def on_validation_epoch_end(self) -> None:
        results = self.val_scores.compute()  # equal in all processes, each video counted once
        self.val_scores.reset()
        tiny = torch.finfo(torch.float32).tiny
        self.log("val_loss", F.nll_loss(results.probs.clamp_min(tiny).log(), results.labels))
        self.log("val_top1_percent", results.top1_percent, prog_bar=True)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """(N, K) softmax of a batch; `octvideo.training.score_videos` collects them."""
        return self._probs(batch)

    def configure_optimizers(self) -> Any:
        hparams = self.hparams
        groups = parameter_groups(self.network, hparams["weight_decay"])
        lr = hparams["lr"] * lr_scale(self.trainer, hparams["lr_batch_size"])
        optimizer = build_optimizer(hparams["optimizer"], groups, lr, hparams["momentum"])
        by_epoch = LrSchedule(
            max(self.trainer.max_epochs or 1, 1),
            hparams["warmup_epochs"],
            hparams["warmup_start"],
            hparams["cosine_after_warmup"],
            hparams["lr_steps"],
            hparams["lr_gamma"],
        )
        schedule = step_schedule(optimizer, self.trainer, by_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint.get("current_model_state", checkpoint.get("state_dict", {}))  # shards are read before
        if any(value.dtype == torch.float64 for value in weights.values()):
            self.double()  # Lightning makes it so only after it has read the weights, which then are rounded

    def _probs(self, batch: dict[str, Any]) -> Tensor:
        if not len(batch["clip"]):
            return batch["clip"].new_empty(0, len(self.hparams["class_names"]))
        return self(batch["clip"]).float().softmax(dim=-1)


def _check_at_least_zero(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more; got {value}")


def _check_share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1]; got {value}")
