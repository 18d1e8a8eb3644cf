"""Loops in C over channels-last maps in a CPU's memory, compiled on first use."""

from octvideo.kernels.maps import LAYOUTS, empty_map, row_step, takes
from octvideo.kernels.passes import add_upsampled, pool

__all__ = ["LAYOUTS", "add_upsampled", "empty_map", "pool", "row_step", "takes"]
