"""Loops in C over channels-last maps in a CPU's memory, compiled on first use."""

from octvideo.kernels.maps import LAYOUTS, empty_map, knows, row_step, takes, takes_rows
from octvideo.kernels.passes import add_upsampled, join, pool

__all__ = ["LAYOUTS", "add_upsampled", "empty_map", "join", "knows", "pool", "row_step", "takes", "takes_rows"]
