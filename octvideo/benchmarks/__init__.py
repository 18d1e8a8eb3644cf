"""Times of what octvideo does, in turns within one process, beside multiply-adds or peers."""

from octvideo.benchmarks.networks import STEPS, VARIANTS, benchmark_networks
from octvideo.benchmarks.peers import benchmark_peers

__all__ = ["STEPS", "VARIANTS", "benchmark_networks", "benchmark_peers"]
