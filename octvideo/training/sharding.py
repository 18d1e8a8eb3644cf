"""Networks too large for one device: weights, gradients and optimizer state in shards over all processes (FSDP2)."""

from __future__ import annotations

from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from octvideo.layers import convert_sync_batchnorm
from octvideo.training.classifier import VideoClassifier
from octvideo.training.recompute import blocks

FSDP = "fsdp"


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy around torch's `fully_shard`, with all processes in one group; a checkpoint is one file.

    It stands in for Lightning's "fsdp" strategy, whose older wrapper finds no gradients in the pairs that blocks of
    octave networks hand on, and which runs on GPUs alone.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Put every process into one group, over which data and shards are dealt out."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()


class ShardedClassifier(VideoClassifier):
    """A `VideoClassifier` that trains under `FullySharded`: each block's weights are whole only while it is at work.

    Its checkpoints are a `VideoClassifier`'s.
    """

    sync_batchnorm: bool = False

    def configure_model(self) -> None:
        """Shard the network, block by block (see `octvideo.training.recompute.blocks`)."""
        if self.sync_batchnorm:
            self.network = convert_sync_batchnorm(self.network)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.contiguous()  # shards are rows of weights in torch's ordinary layout
        assert self.device_mesh is not None  # the strategy has set it
        mesh = self.device_mesh["data_parallel"]
        for block in blocks(self.network):
            fully_shard(block, mesh=mesh)
        fully_shard(self.network, mesh=mesh)
