"""The audit of the octave paper's costs: every printed figure, counted, and why it differs where it does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from octvideo.analysis.cost_table import activation_bytes
from octvideo.analysis.macs import CostReport, count_macs
from octvideo.analysis.nonlocal_options import OPTIONS, nonlocal_cost
from octvideo.analysis.paper import Published, published_figures, published_networks
from octvideo.analysis.params import count_parameters
from octvideo.analysis.readings import READINGS, build, count, report_on, unpadded
from octvideo.layers import OctConv2d, OctPair, low_channels

AGREES_PERCENT = 1.0
"""Up to this difference a count agrees with the printed figure."""

_NONLOCAL_ALPHA = 0.1


class _Cost(NamedTuple):
    report: CostReport
    params: int
    activation_bytes: int


def audit_paper(rows: Iterable[Published] | None = None) -> dict[str, Any]:
    """Count every cost that the paper prints; on the meta device, without data.

    Args:
        rows: networks to count; None is all of `published_networks`.

    Returns:
        layer: table 1, one row per alpha with printed and counted percentages.
        networks: one row per printed cost, see `audit_network`.
        nonlocal_options: the places where a non-local block may meet a pair, see `audit_nonlocal`.
    """
    costs: dict[Any, _Cost] = {}
    networks = [audit_network(row, costs) for row in (published_networks() if rows is None else rows)]
    return {"layer": audit_layer(), "networks": networks, "nonlocal_options": audit_nonlocal()}


def audit_layer(channels: int = 64, size: int = 56) -> list[dict[str, Any]]:
    """Table 1: a 3x3 octave convolution from pair to pair, relative to the dense one, beside the printed per cent.

    Args:
        channels: in and out; a multiple of 8 splits at every printed alpha.
        size: height and width; even.
    """
    layer = published_figures()["layer"]
    dense = _layer_cost(channels, size, 0)
    rows = []
    for alpha, flops, memory in zip(layer["alpha"], layer["flops_percent"], layer["memory_percent"], strict=True):
        counted = [100 * part / whole for part, whole in zip(_layer_cost(channels, size, alpha), dense, strict=True)]
        row = {"source": "table 1", "alpha": alpha}
        for name, published, value in zip(("flops", "memory"), (flops, memory), counted, strict=True):
            row |= {
                f"{name}_published_percent": published,
                f"{name}_counted_percent": value,
                f"{name}_reason": _layer_reason(published, value),
            }
        rows.append(row)
    return rows


def _layer_cost(channels: int, size: int, alpha: float) -> tuple[int, int]:
    """Multiply-adds, and bytes of the output."""
    conv = OctConv2d(channels, channels, 3, padding=1, bias=False, alpha_in=alpha, alpha_out=alpha, device="meta")
    low = low_channels(channels, alpha)
    high = torch.empty((1, channels - low, size, size), device="meta")
    x = OctPair(high, torch.empty((1, low, size // 2, size // 2), device="meta")) if low else high
    return count_macs(conv, (x,)).conv_macs, activation_bytes(conv, (x,))


def _layer_reason(published: float, counted: float) -> str:
    if abs(counted / published - 1) <= AGREES_PERCENT / 100:
        return ""
    if abs(published - counted) <= 0.5:
        return "printed as whole per cent"
    return f"the paper's own formula gives {counted:.1f}, which rounds to {counted:.0f}: rounded up, or a misprint"


def audit_network(row: Published, costs: dict[Any, _Cost] | None = None) -> dict[str, Any]:
    """Count one printed cost: the network as octvideo builds it, and every other reading of it.

    Args:
        row: the printed cost.
        costs: what has been counted already, by network; filled.

    Returns:
        The printed row; counted (convolutions and matrix products, in the row's unit), difference_percent, pool
        (average pooling, in the unit), upsample_elements, params_counted_m, activation_percent (bytes of the layers'
        outputs relative to alpha 0), readings, status ("agrees", "explained" or "open") and reason.
    """
    costs = {} if costs is None else costs
    cost, dense = (_cost(row, alpha, costs) for alpha in (row.alpha, 0.0))
    readings = [_reading_row(row, r.text, r.cost(row)) for r in READINGS if r.fits(row)]
    status, reason = _judge(row, cost.report, readings)
    return {
        **{key: value for key, value in vars(row).items() if value not in ({}, "", None)},
        "counted": row.in_unit(cost.report.macs),
        "difference_percent": row.difference_percent(cost.report.macs),
        "pool": row.in_unit(cost.report.pool_macs),
        "upsample_elements": cost.report.upsample_elements,
        "params_counted_m": cost.params / 1e6,
        "activation_percent": 100 * cost.activation_bytes / dense.activation_bytes,
        "readings": readings,
        "status": status,
        "reason": reason,
    }


def _cost(row: Published, alpha: float, costs: dict[Any, _Cost]) -> _Cost:
    key = (row.model, alpha, row.size, *row.options.items())
    if key not in costs:
        net = build(row, alpha)
        view = torch.empty((1, 3, *row.size), device="meta")
        costs[key] = _Cost(report_on(net, row), count_parameters(net), activation_bytes(net, view))
    return costs[key]


def _reading_row(row: Published, text: str, counted: Any) -> dict[str, Any]:
    return {
        "text": text,
        "counted": row.in_unit(counted.macs),
        "difference_percent": row.difference_percent(counted.macs),
        "with_pool_difference_percent": row.difference_percent(counted.macs + counted.pool_macs),
        "pool": row.in_unit(counted.pool_macs),
        "params_counted_m": counted.params / 1e6,
    }


def _judge(row: Published, report: CostReport, readings: list[dict[str, Any]]) -> tuple[str, str]:
    """Say whether a count agrees, and if not, which reading does."""
    if abs(row.difference_percent(report.macs)) <= AGREES_PERCENT:
        return "agrees", ""
    if abs(row.in_unit(report.macs) - row.published) <= row.tolerance:
        read_off = row.source.startswith("figure")
        return "explained", "read off the figure, to 0.1 GFLOPs" if read_off else "printed with one decimal"
    found = [text for r in readings if (text := _agreement(row, r))]
    note = f"{row.note}; " if row.note else ""
    if found:
        return "explained", f"{note}{'; or: '.join(found)}"
    tried = "; ".join(f"{r['text']}: {r['counted']:.2f}" for r in readings)
    return (
        "open",
        f"{note}no reading comes within {AGREES_PERCENT:g} % ({tried})" if tried else f"{note}no reading known",
    )


def _agreement(row: Published, reading: dict[str, Any]) -> str:
    """The reading with its count, where that agrees, with or without pooling (which the authors' tool counts)."""
    alone, pooled = reading["difference_percent"], reading["with_pool_difference_percent"]
    if min(abs(alone), abs(pooled)) > AGREES_PERCENT:
        return ""
    digits = 2 if row.unit == "GFLOPs" else 1
    count, with_pool = (f"{value:.{digits}f}" for value in (reading["counted"], reading["counted"] + reading["pool"]))
    text = f"{reading['text']}: {count}"
    return f"{text}, with average pooling {with_pool}" if abs(pooled) < abs(alone) and with_pool != count else text


def audit_nonlocal() -> list[dict[str, Any]]:
    """The five non-local blocks of Oct-I3D at alpha .1, for every option, beside the printed total.

    Returns:
        Rows with option, text, blocks_gmacs, printed_gmacs, total_gmacs (with the Oct-I3D around them, first pooling
        without padding), difference_percent (from the printed total) and params_percent (of the dense blocks').
    """
    rows = published_networks()
    around = next(r for r in rows if r.model == "i3d_r50" and r.alpha == _NONLOCAL_ALPHA)
    printed = next(r for r in rows if r.model == "i3d_r50_nln" and r.alpha == _NONLOCAL_ALPHA)
    outside = count(unpadded(build(around)), around).macs
    dense_params = nonlocal_cost(OPTIONS[0], 0)[1]
    table = []
    for option in OPTIONS:
        macs, params = nonlocal_cost(option, _NONLOCAL_ALPHA)
        table.append(
            {
                "option": option.key,
                "text": option.text,
                "blocks_gmacs": macs / 1e9,
                "printed_gmacs": printed.published,
                "total_gmacs": (macs + outside) / 1e9,
                "difference_percent": printed.difference_percent(macs + outside),
                "params_percent": 100 * params / dense_params,
            }
        )
    return table
