"""The picture of accuracy against GMACs, with the Pareto front."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from octvideo.report.folds import Summary, summarise
from octvideo.report.labels import place_labels
from octvideo.report.rows import ResultRow
from octvideo.report.tables import view_protocol, views_protocol

# Okabe and Ito's colours, told apart with any colour vision; the markers tell series apart without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LOG_ABOVE = 8.0  # ratio of the dearest to the cheapest point from which the axis is logarithmic


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats, cheapest first.

    A point (cost, accuracy) is beaten by one that costs no more and is at least as accurate, and is better in one of
    the two. Of equal points the first stands for all.

    Args:
        points: (cost, accuracy) pairs.

    Example:
        >>> pareto_front([(20.0, 74.0), (10.0, 75.0), (30.0, 76.0)])
        [1, 2]
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def plot_accuracy_against_gmacs(
    rows: Iterable[ResultRow], path_png: str | os.PathLike, path_svg: str | os.PathLike
) -> None:
    """Draw top-1 of whole videos over the GMACs of one view, one panel per data set and split.

    Points are labelled by alpha, joined within each (model, octave), and carry a 95 % interval where there are
    several folds or seeds.

    Args:
        rows: results; folds and seeds are averaged by `octvideo.report.summarise`.
        path_png, path_svg: files to write; their folders are made when missing.

    Raises:
        ValueError: rows is empty.
    """
    panels: dict[tuple[str, str], list[Summary]] = {}
    for summary in summarise(rows):
        panels.setdefault((summary.row.dataset, summary.row.split), []).append(summary)
    if not panels:
        raise ValueError("rows should hold at least one result, got none. Evaluate a network first.")
    # A fixed salt and no date: the same rows give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "octvideo", "font.size": 10}):
        figure = Figure(figsize=(8.0 * len(panels), 6.0), layout="constrained")
        FigureCanvasAgg(figure)
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        points = [_draw_panel(axes, key, group) for axes, (key, group) in zip(all_axes, panels.items(), strict=True)]
        figure.canvas.draw()  # labels are placed in pixels, which the layout fixes
        for axes, (positions, texts, colours, lines) in zip(all_axes, points, strict=True):
            place_labels(axes, positions, texts, colours, lines)
        for path in (path_png, path_svg):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path_png, dpi=150, format="png")
        figure.savefig(path_svg, format="svg", metadata={"Date": None})


def _draw_panel(axes: Axes, key: tuple[str, str], group: Sequence[Summary]) -> tuple[list, list, list, list]:
    """Draw all but the labels; give back the points, their texts and colours, and the lines that labels keep off."""
    positions, texts, colours, lines = [], [], [], []
    several_protocols = _protocols(group)
    for number, (name, series) in enumerate(_series(group, several_protocols).items()):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        x = [s.row.gmacs_per_view for s in series]
        y = [s.top1_percent for s in series]
        axes.plot(x, y, color=colour, marker=marker, markersize=7, linewidth=1.3, label=name, zorder=3)
        lines.append(list(zip(x, y, strict=True)))
        for summary in series:
            half = summary.top1_half_width_percent
            point = (summary.row.gmacs_per_view, summary.top1_percent)
            positions.append(point)
            texts.append("dense" if summary.row.alpha == 0 else f"{summary.row.alpha:g}")
            colours.append(colour)
            if half is not None:
                lower, upper = max(point[1] - half, 0.0), min(point[1] + half, 100.0)
                bounds = [[point[1] - lower], [upper - point[1]]]
                axes.errorbar(*point, yerr=bounds, color=colour, capsize=3, linewidth=1, alpha=0.6, zorder=2)
                lines.append([(point[0], lower), (point[0], upper)])
    _set_scale(axes, [x for x, _ in positions])
    lines.append(_draw_front(axes, positions))
    _name_axes(axes, key, group, several_protocols)
    return positions, texts, colours, lines


def _protocols(group: Sequence[Summary]) -> bool:
    return len({(view_protocol(s.row), views_protocol(s.row)) for s in group}) > 1


def _series(group: Sequence[Summary], several_protocols: bool) -> dict[str, list[Summary]]:
    """Points to be joined, by the name in the legend: one (model, octave), split by protocol, and where one alpha
    comes twice by experiment."""
    series: dict[str, list[Summary]] = {}
    for summary in group:
        row = summary.row
        name = f"{row.model}, {row.octave} octave"
        if several_protocols:
            name += f" ({view_protocol(row)}, {views_protocol(row)})"
        series.setdefault(name, []).append(summary)
    split: dict[str, list[Summary]] = {}
    for name, members in series.items():
        repeats = len({s.row.alpha for s in members}) < len(members)
        for summary in members:
            split.setdefault(f"{name}: {summary.row.name}" if repeats else name, []).append(summary)
    return {name: sorted(members, key=lambda s: s.row.gmacs_per_view) for name, members in split.items()}


def _set_scale(axes: Axes, costs: Sequence[float]) -> None:
    if min(costs) > 0 and max(costs) / min(costs) > _LOG_ABOVE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1, y=0.1)
    if np.ptp(costs) == 0:
        # One cost alone has no range of its own, and a log-like fraction of a per cent would be drawn.
        axes.set_xlim(costs[0] * 0.8, costs[0] * 1.2 or 1.0)
    axes.autoscale_view()


def _draw_front(axes: Axes, positions: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Draw the front as steps, the best top-1 to be had for at most so many GMACs, and give back its corners."""
    right = axes.get_xlim()[1]
    front = [positions[i] for i in pareto_front(positions)]
    corners = [front[0]]
    for x, y in front[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    corners.append((right, corners[-1][1]))
    axes.plot(
        *zip(*corners, strict=True), color="0.45", linestyle=(0, (4, 2)), linewidth=1.2, label="Pareto front", zorder=1
    )
    axes.set_xlim(right=right)
    return corners


def _name_axes(axes: Axes, key: tuple[str, str], group: Sequence[Summary], several_protocols: bool) -> None:
    row = group[0].row
    view = "crop and frames in the legend" if several_protocols else view_protocol(row)
    views = "views in the legend" if several_protocols else views_protocol(row)
    overs = sorted({s.interval_over for s in group if s.interval_over})
    bars = f"; bars: 95 % interval over {' or '.join(overs)}" if overs else ""
    axes.set_title(f"{key[0]}, {key[1]}")
    axes.set_xlabel(f"GMACs per view ({' or '.join(sorted({s.row.macs_unit for s in group}))}; {view})")
    axes.set_ylabel(f"top-1 of whole videos (%)\n{views}{bars}")
    axes.grid(color="0.92", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 1 if several_protocols else 2
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False, title="points labelled by alpha"
    )
