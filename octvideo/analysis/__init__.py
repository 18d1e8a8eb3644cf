"""What a network costs: multiply-adds, parameters, activation bytes, latency."""

from octvideo.analysis.cost_table import activation_bytes, cost_table
from octvideo.analysis.latency import LatencyReport, measure_latency
from octvideo.analysis.macs import MACS_TOOL, CostReport, count_macs
from octvideo.analysis.params import count_parameters

__all__ = [
    "MACS_TOOL",
    "CostReport",
    "LatencyReport",
    "activation_bytes",
    "cost_table",
    "count_macs",
    "count_parameters",
    "measure_latency",
]
