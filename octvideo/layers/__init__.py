"""Octave layers: tensors and pairs in, tensors and pairs out."""

from octvideo.layers.channels import Segments, even_segments
from octvideo.layers.conv import OctConv1d, OctConv2d, OctConv3d, dense_from_octave, octave_from_dense
from octvideo.layers.functional import Geometry, octave_conv
from octvideo.layers.layout import lay_channels_last, own_convolutions, recompute_pooled, to_channels_last
from octvideo.layers.modules import MergeInputs, MergeOutputs, PairDropPath, Pairwise
from octvideo.layers.nonlocal_block import OctNonLocal
from octvideo.layers.norm import (
    OctBatchNorm1d,
    OctBatchNorm2d,
    OctBatchNorm3d,
    OctGroupNorm,
    OctLayerNorm,
    OctSyncBatchNorm,
    convert_sync_batchnorm,
)
from octvideo.layers.pair import OctPair, concat, merge, split
from octvideo.layers.pool import PairPool
from octvideo.layers.resize import avg_pool, low_channels, octave_factors, upsample
from octvideo.layers.swap import dense_layer, pair_layer
from octvideo.layers.transpose import OctConvTranspose1d, OctConvTranspose2d, OctConvTranspose3d

__all__ = [
    "Geometry",
    "MergeInputs",
    "MergeOutputs",
    "OctBatchNorm1d",
    "OctBatchNorm2d",
    "OctBatchNorm3d",
    "OctConv1d",
    "OctConv2d",
    "OctConv3d",
    "OctConvTranspose1d",
    "OctConvTranspose2d",
    "OctConvTranspose3d",
    "OctGroupNorm",
    "OctLayerNorm",
    "OctNonLocal",
    "OctPair",
    "OctSyncBatchNorm",
    "PairDropPath",
    "PairPool",
    "Pairwise",
    "Segments",
    "avg_pool",
    "concat",
    "convert_sync_batchnorm",
    "dense_from_octave",
    "dense_layer",
    "even_segments",
    "lay_channels_last",
    "low_channels",
    "merge",
    "octave_conv",
    "octave_factors",
    "octave_from_dense",
    "own_convolutions",
    "pair_layer",
    "recompute_pooled",
    "split",
    "to_channels_last",
    "upsample",
]
