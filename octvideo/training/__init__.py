"""Training: the Lightning module, its schedule, its runs and its checkpoints."""

from octvideo.training.checkpoints import load_classifier, read_checkpoint
from octvideo.training.classifier import VideoClassifier
from octvideo.training.fit import best_checkpoint, build_trainer, fit, last_checkpoint
from octvideo.training.precise_bn import PreciseBatchNorm, update_statistics
from octvideo.training.recompute import checkpoint_activations
from octvideo.training.schedule import LrSchedule, build_optimizer, epoch_of_step, lr_scale, parameter_groups

__all__ = [
    "LrSchedule",
    "PreciseBatchNorm",
    "VideoClassifier",
    "best_checkpoint",
    "build_optimizer",
    "build_trainer",
    "checkpoint_activations",
    "epoch_of_step",
    "fit",
    "last_checkpoint",
    "load_classifier",
    "lr_scale",
    "parameter_groups",
    "read_checkpoint",
    "update_statistics",
]
