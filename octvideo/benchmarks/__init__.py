"""Times of what octvideo does, in turns within one process, beside multiply-adds or peers."""

from octvideo.benchmarks.decoding import LOADERS, benchmark_decoding
from octvideo.benchmarks.networks import STEPS, VARIANTS, benchmark_networks

__all__ = ["LOADERS", "STEPS", "VARIANTS", "benchmark_decoding", "benchmark_networks"]
