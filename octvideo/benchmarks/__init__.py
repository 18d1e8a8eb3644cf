"""Times of what octvideo does, in turns within one process, beside multiply-adds or peers."""

from octvideo.benchmarks.networks import STEPS, VARIANTS, benchmark_networks

__all__ = ["STEPS", "VARIANTS", "benchmark_networks"]
