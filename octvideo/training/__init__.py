"""Training: the Lightning module, its schedule, its runs and its checkpoints."""

from octvideo.training.checkpoint_files import best_checkpoint, last_checkpoint, resumable_checkpoint
from octvideo.training.checkpoints import load_classifier, read_checkpoint
from octvideo.training.classifier import VideoClassifier
from octvideo.training.fit import build_trainer, fit
from octvideo.training.recompute import checkpoint_activations
from octvideo.training.schedule import build_optimizer, parameter_groups, warmup_cosine
from octvideo.training.scoring import score_videos
from octvideo.training.unreadable import UNREADABLE, UnreadableClips

__all__ = [
    "UNREADABLE",
    "UnreadableClips",
    "VideoClassifier",
    "best_checkpoint",
    "build_optimizer",
    "build_trainer",
    "checkpoint_activations",
    "fit",
    "last_checkpoint",
    "load_classifier",
    "parameter_groups",
    "read_checkpoint",
    "resumable_checkpoint",
    "score_videos",
    "warmup_cosine",
]
