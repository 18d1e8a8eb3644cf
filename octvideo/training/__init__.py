"""Training: the Lightning module, its schedule, its runs and its checkpoints."""

from octvideo.training.checkpoint_files import best_checkpoint, last_checkpoint, resumable_checkpoint
from octvideo.training.checkpoints import load_classifier, read_checkpoint
from octvideo.training.classifier import VideoClassifier
from octvideo.training.fit import build_trainer, fit
from octvideo.training.precise_bn import PreciseBatchNorm, update_statistics
from octvideo.training.recompute import checkpoint_activations
from octvideo.training.schedule import LrSchedule, build_optimizer, epoch_of_step, lr_scale, parameter_groups
from octvideo.training.scoring import score_videos
from octvideo.training.unreadable import UNREADABLE, UnreadableClips

__all__ = [
    "UNREADABLE",
    "LrSchedule",
    "PreciseBatchNorm",
    "UnreadableClips",
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
    "resumable_checkpoint",
    "score_videos",
    "update_statistics",
]
