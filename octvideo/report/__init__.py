"""Result rows on disk, and the tables and pictures made from them."""

from octvideo.report.audit import write_audit
from octvideo.report.document import write_report
from octvideo.report.folds import Summary, student_t_95, summarise
from octvideo.report.layer_times import layer_lines, plot_layers, slow_layer_lines
from octvideo.report.network_times import plot_networks, plot_peers
from octvideo.report.plots import pareto_front, plot_accuracy_against_gmacs
from octvideo.report.rows import ResultRow, collect_metadata, package_versions, read_result, write_result
from octvideo.report.tables import csv_table, markdown_table

__all__ = [
    "ResultRow",
    "Summary",
    "collect_metadata",
    "csv_table",
    "layer_lines",
    "markdown_table",
    "package_versions",
    "pareto_front",
    "plot_accuracy_against_gmacs",
    "plot_layers",
    "plot_networks",
    "plot_peers",
    "read_result",
    "slow_layer_lines",
    "student_t_95",
    "summarise",
    "write_audit",
    "write_report",
    "write_result",
]
