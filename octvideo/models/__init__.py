"""Builders by the papers' names, each at any alpha."""

from octvideo.models.build import BUILDERS, IMAGE_BUILDERS, build_model
from octvideo.models.energy import GridHead, MotionEnergy, energy_resnet3d
from octvideo.models.factorized import csn_r101, r2plus1d_r50, s3d
from octvideo.models.files import save_weights
from octvideo.models.image import (
    SEBottleneck,
    densenet121,
    resnet18,
    resnet26,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnet200,
    resnext50_32x4d,
    resnext101_32x4d,
    se_resnet50,
    se_resnet152,
)
from octvideo.models.inflate import inflate
from octvideo.models.mobilenet import MobileNetV1, mobilenet_v1, mobilenet_v2
from octvideo.models.non_local import NonLocalStage, c2d_r50_nln, i3d_r50_nln
from octvideo.models.resnet import c2d_r50, i3d_r50, i3d_r101, slow_r50
from octvideo.models.slowfast import SlowFast, slowfast_r50_4x16, slowfast_r50_8x8, slowfast_r101_8x8
from octvideo.models.small import resnet3d_small, resnet3d_tiny
from octvideo.models.video_resnet18 import mc3_18, r2plus1d_18, r3d_18
from octvideo.models.weights import load_weights
from octvideo.models.x3d import x3d_l, x3d_m, x3d_s, x3d_xs

__all__ = [
    "BUILDERS",
    "IMAGE_BUILDERS",
    "GridHead",
    "MobileNetV1",
    "MotionEnergy",
    "NonLocalStage",
    "SEBottleneck",
    "SlowFast",
    "build_model",
    "c2d_r50",
    "c2d_r50_nln",
    "csn_r101",
    "densenet121",
    "energy_resnet3d",
    "i3d_r50",
    "i3d_r50_nln",
    "i3d_r101",
    "inflate",
    "load_weights",
    "mc3_18",
    "mobilenet_v1",
    "mobilenet_v2",
    "r2plus1d_18",
    "r2plus1d_r50",
    "r3d_18",
    "resnet3d_small",
    "resnet3d_tiny",
    "resnet18",
    "resnet26",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet200",
    "resnext50_32x4d",
    "resnext101_32x4d",
    "s3d",
    "save_weights",
    "se_resnet50",
    "se_resnet152",
    "slow_r50",
    "slowfast_r50_4x16",
    "slowfast_r50_8x8",
    "slowfast_r101_8x8",
    "x3d_l",
    "x3d_m",
    "x3d_s",
    "x3d_xs",
]
