"""What the times of single layers say: in a few lines, and as a picture of time against multiply-adds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from octvideo.report.plots import COLOURS, MARKERS

Rows = Sequence[dict[str, Any]]


def layer_lines(rows: Rows) -> list[str]:
    """One line for each variant and kernel: at each alpha, how many octave layers are faster than dense ones.

    Args:
        rows: of `octvideo.benchmarks.benchmark_layers`.
    """
    lines = []
    for variant, kernel in _distinct(rows, "variant", "kernel"):
        mine = [row for row in rows if (row["variant"], row["kernel"]) == (variant, kernel)]
        parts = []
        for (alpha,) in _distinct(mine, "alpha"):
            group = [row for row in mine if row["alpha"] == alpha]
            ratio, paying = median(row["time_ratio"] for row in group), sum(row["pays"] for row in group)
            parts.append(f"alpha {alpha:g} {paying} of {len(group)} (median time ratio {ratio:.2f})")
        lines.append(f"{variant} {kernel}, faster than dense: {', '.join(parts)}")
    return lines


def slow_layer_lines(rows: Rows) -> list[str]:
    """For each alpha: what the slow layers lose, the network's time with these dense, and `keep_dense` where it gains.

    A layer kept dense takes its neighbours' gains with it: they read and write dense maps then.

    Args:
        rows: of `octvideo.benchmarks.benchmark_slow_layers`.
    """
    lines = []
    for (alpha,) in _distinct(rows, "alpha"):
        mine = [row for row in rows if row["alpha"] == alpha]
        layers = [row for row in mine if row["names"] != [""]]
        network, *kept = (row for row in mine if row["names"] == [""])
        slow = sorted({name for row in layers for name in row["slow_names"]})
        total = len({name for row in layers for name in row["names"]})
        lost = sum(row["lost_ms"] for row in layers if row["lost_ms"] > 0)
        text = f"alpha {alpha:g}: {len(slow)} of {total} octave convolutions take longer than dense ones"
        whole = f"network {network['octave_ms']:.1f} ms, dense {network['dense_ms']:.1f} ms"
        if not kept:
            lines.append(f"{text}; {whole}")
            continue
        lines.append(f"{text}, in all {lost:.1f} ms; {whole}, with these dense {kept[0]['octave_ms']:.1f} ms")
        if kept[0]["octave_ms"] < network["octave_ms"]:
            lines.append(f"  keep_dense=lambda name, conv: name in {slow}")
        else:
            lines.append("  keeping all of these dense gains nothing")
    return lines


def plot_layers(rows: Rows, path_png: str | os.PathLike) -> None:
    """Draw the time ratio of each layer over its ratio of multiply-adds, one panel per variant.

    Points of one alpha stand side by side, the kernels from left to right; the diagonal is time that falls as
    multiply-adds do, and below the line at 1 the octave layer pays.

    Args:
        rows: of `octvideo.benchmarks.benchmark_layers`.
        path_png: file to write; its folder is made when missing.
    """
    variants = [variant for (variant,) in _distinct(rows, "variant")]
    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=(6.5 * len(variants), 5.8), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(variants), squeeze=False, sharey=True)[0]
        for axes, variant in zip(panels, variants, strict=True):
            _draw_panel(axes, [row for row in rows if row["variant"] == variant])
            axes.set_title(variant)
        panels[0].set_ylabel("time of the octave layer / time of the dense one")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=5)
        Path(path_png).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path_png, dpi=110, format="png", metadata={"Software": None})


def _draw_panel(axes: Axes, rows: Rows) -> None:
    kernels, sizes = ([value for (value,) in _distinct(rows, key)] for key in ("kernel", "size"))
    ratios = [row["macs_ratio"] for row in rows]
    step = 0.015  # kernels beside each other, about a tenth of the way from one alpha to the next
    for number, kernel in enumerate(kernels):
        colour, aside = COLOURS[number % len(COLOURS)], step * (number - (len(kernels) - 1) / 2)
        axes.plot([], [], color=colour, linewidth=4, label=kernel)
        for marker, size in zip(MARKERS * len(sizes), sizes, strict=False):
            mine = [row for row in rows if (row["kernel"], row["size"]) == (kernel, size)]
            places = [(row["macs_ratio"] + aside, row["time_ratio"]) for row in mine]
            axes.plot(*zip(*places, strict=True), color=colour, marker=marker, linestyle="", markersize=5, alpha=0.75)
    for marker, size in zip(MARKERS * len(sizes), sizes, strict=False):
        axes.plot([], [], color="0.4", marker=marker, linestyle="", label=size)
    ends = [min(ratios) - 2 * step, max(ratios) + 2 * step]
    axes.plot(ends, ends, color="0.4", linewidth=1.2, zorder=1, label="time falls as multiply-adds")
    axes.axhline(1, color="0.4", linewidth=1.2, linestyle=(0, (4, 2)), zorder=1, label="as the dense layer")
    for (alpha,) in _distinct(rows, "alpha"):
        place = median(row["macs_ratio"] for row in rows if row["alpha"] == alpha)
        axes.annotate(f"alpha {alpha:g}", (place, 1), xycoords=("data", "axes fraction"), ha="center", va="top")
    _name_axes(axes)


def _name_axes(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("multiply-adds of the octave layer / of the dense one")
    axes.grid(color="0.92", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _distinct(rows: Rows, *keys: str) -> list[tuple[Any, ...]]:
    """The values of some columns, each once, in the order of the rows."""
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))
