"""Data sets as tar files of videos with an index: packing them, and reading them from start to end."""

from octvideo.data.shards.address import ShardSet, are_shards, open_shards
from octvideo.data.shards.dataset import ShardDataset, ShardLoader
from octvideo.data.shards.encode import encode_video
from octvideo.data.shards.index import Shard, ShardError, ShardIndex
from octvideo.data.shards.pack import pack_videos

__all__ = [
    "Shard",
    "ShardDataset",
    "ShardError",
    "ShardIndex",
    "ShardLoader",
    "ShardSet",
    "are_shards",
    "encode_video",
    "open_shards",
    "pack_videos",
]
