"""Builders by the papers' names, each at any alpha."""

from octvideo.models.build import BUILDERS, build_model
from octvideo.models.energy import GridHead, MotionEnergy, energy_resnet3d
from octvideo.models.files import save_weights
from octvideo.models.inflate import inflate
from octvideo.models.resnet import c2d_r50, i3d_r50, i3d_r101, slow_r50
from octvideo.models.slowfast import SlowFast, slowfast_r50_4x16, slowfast_r50_8x8, slowfast_r101_8x8
from octvideo.models.small import resnet3d_small, resnet3d_tiny
from octvideo.models.weights import load_weights

__all__ = [
    "BUILDERS",
    "GridHead",
    "MotionEnergy",
    "SlowFast",
    "build_model",
    "c2d_r50",
    "energy_resnet3d",
    "i3d_r50",
    "i3d_r101",
    "inflate",
    "load_weights",
    "resnet3d_small",
    "resnet3d_tiny",
    "save_weights",
    "slow_r50",
    "slowfast_r50_4x16",
    "slowfast_r50_8x8",
    "slowfast_r101_8x8",
]
