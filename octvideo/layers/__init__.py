"""Octave layers: tensors and pairs in, tensors and pairs out."""

from octvideo.layers.conv import OctConv2d, OctConv3d, octave_from_dense
from octvideo.layers.functional import Geometry, octave_conv
from octvideo.layers.modules import MergeInputs, OctBatchNorm2d, OctBatchNorm3d, PairPool, Pairwise, pair_layer
from octvideo.layers.pair import OctPair, avg_pool, concat, low_channels, merge, octave_factors, split, upsample

__all__ = [
    "Geometry",
    "MergeInputs",
    "OctBatchNorm2d",
    "OctBatchNorm3d",
    "OctConv2d",
    "OctConv3d",
    "OctPair",
    "PairPool",
    "Pairwise",
    "avg_pool",
    "concat",
    "low_channels",
    "merge",
    "octave_conv",
    "octave_factors",
    "octave_from_dense",
    "pair_layer",
    "split",
    "upsample",
]
