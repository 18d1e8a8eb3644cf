"""Times of what octvideo does, in turns within one process, beside multiply-adds or peers."""

from octvideo.benchmarks.decoding import LOADERS, benchmark_decoding
from octvideo.benchmarks.layers import LAYER_VARIANTS, benchmark_layers
from octvideo.benchmarks.networks import STEPS, VARIANTS, benchmark_networks
from octvideo.benchmarks.packing import benchmark_packing
from octvideo.benchmarks.peers import benchmark_peers
from octvideo.benchmarks.slow_layers import LayerTime, benchmark_slow_layers, slow_names, time_layers

__all__ = [
    "LAYER_VARIANTS",
    "LOADERS",
    "STEPS",
    "VARIANTS",
    "LayerTime",
    "benchmark_decoding",
    "benchmark_layers",
    "benchmark_networks",
    "benchmark_packing",
    "benchmark_peers",
    "benchmark_slow_layers",
    "slow_names",
    "time_layers",
]
