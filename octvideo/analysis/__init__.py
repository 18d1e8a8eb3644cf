"""What a network costs: multiply-adds, parameters, activation bytes, latency; and the audit of the paper's figures."""

from octvideo.analysis.audit import audit_network, audit_paper
from octvideo.analysis.cost_table import activation_bytes, cost_table
from octvideo.analysis.latency import LatencyReport, measure_latency
from octvideo.analysis.macs import MACS_TOOL, CostReport, count_macs
from octvideo.analysis.paper import Published, published_figures, published_networks
from octvideo.analysis.params import count_parameters

__all__ = [
    "MACS_TOOL",
    "CostReport",
    "LatencyReport",
    "Published",
    "activation_bytes",
    "audit_network",
    "audit_paper",
    "cost_table",
    "count_macs",
    "count_parameters",
    "measure_latency",
    "published_figures",
    "published_networks",
]
