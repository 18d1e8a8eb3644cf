"""The picture of accuracy against GMACs, with the Pareto front."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from octvideo.report.folds import Summary, summarise
from octvideo.report.labels import Point, place_labels
from octvideo.report.rows import ResultRow
from octvideo.report.tables import view_protocol, views_protocol

# Okabe and Ito's colours, told apart with any colour vision; the markers tell series apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_MARKER_STYLE: dict[str, Any] = {"markersize": 8, "markeredgecolor": "white", "markeredgewidth": 0.8}
_LOG_ABOVE = 8.0  # ratio of the dearest to the cheapest point from which the axis is logarithmic


class _Labels(NamedTuple):
    """Points in data coordinates, what is written beside each in which colour, and the lines that texts keep off."""

    positions: list[Point]
    texts: list[str]
    colours: list[str]
    lines: list[list[Point]]


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
    with matplotlib.rc_context({"svg.hashsalt": "octvideo", "font.size": 10, "text.parse_math": False}):
        # The legends below the panels take their height from the longest one.
        legend_lines = max(len(_series(group)) for group in panels.values())
        figure = Figure(figsize=(8.0 * len(panels), 5.6 + 0.2 * legend_lines), layout="constrained")
        FigureCanvasAgg(figure)
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        labels = [_draw_panel(axes, key, group) for axes, (key, group) in zip(all_axes, panels.items(), strict=True)]
        figure.canvas.draw()  # labels are placed in pixels, which the layout fixes
        for axes, panel in zip(all_axes, labels, strict=True):
            place_labels(axes, *panel)
        for path in (path_png, path_svg):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path_png, dpi=150, format="png")
        figure.savefig(path_svg, format="svg", metadata={"Date": None})


def _draw_panel(axes: Axes, key: tuple[str, str], group: Sequence[Summary]) -> _Labels:
    """Draw all but the labels, and give back what places them."""
    labels = _Labels([], [], [], [])
    all_series = _series(group)
    for number, (name, series) in enumerate(all_series.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        line = [(s.row.gmacs_per_view, s.top1_percent) for s in _with_dense(series, group)]
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.3, zorder=3)
        points = [(s.row.gmacs_per_view, s.top1_percent) for s in series]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, **_MARKER_STYLE, linestyle="", zorder=4)
        axes.plot([], [], color=colour, marker=marker, **_MARKER_STYLE, linewidth=1.3, label=name)
        labels.positions.extend(points)
        labels.texts.extend("dense" if s.row.alpha == 0 else f"{s.row.alpha:g}" for s in series)
        labels.colours.extend([colour] * len(series))
        # Series that share a cost would draw their bars on top of each other.
        aside_points = 2.5 * (number - (len(all_series) - 1) / 2) * (len(all_series) <= 6)
        labels.lines.extend([line, *_draw_bars(axes, series, colour, aside_points)])
    _set_scale(axes, [x for x, _ in labels.positions])
    labels.lines.append(_draw_front(axes, labels.positions))
    _name_axes(axes, key, group)
    return labels


def _draw_bars(axes: Axes, series: Sequence[Summary], colour: str, aside_points: float) -> list[list[Point]]:
    """Draw the 95 % intervals a few points beside their marker, and give back where they stand."""
    aside = ScaledTranslation(aside_points / 72, 0, axes.figure.dpi_scale_trans)
    drawn = []
    for summary in series:
        half, x, y = summary.top1_half_width_percent, summary.row.gmacs_per_view, summary.top1_percent
        if half is None:
            continue
        lower, upper = max(y - half, 0.0), min(y + half, 100.0)
        style: dict[str, Any] = {
            "color": colour,
            "linewidth": 1,
            "alpha": 0.55,
            "zorder": 2,
            "transform": axes.transData + aside,
        }
        axes.plot([x, x], [lower, upper], marker="_", markersize=6, **style)
        axes.update_datalim([(x, lower), (x, upper)])
        drawn.append([(x, lower), (x, upper)])
    return drawn


def _series(group: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Points to be joined, by their name in the legend.

    One series is one (model, octave) under one protocol; where an alpha comes twice, one experiment's.
    """
    parts = _varying_protocol(group)
    series: dict[str, list[Summary]] = {}
    for summary in group:
        protocol = "; ".join(part(summary.row) for part in parts)
        name = f"{summary.row.model}, {summary.row.octave} octave"
        series.setdefault(f"{name} ({protocol})" if protocol else name, []).append(summary)
    split: dict[str, list[Summary]] = {}
    for name, members in series.items():
        repeats = len({s.row.alpha for s in members}) < len(members)
        for summary in members:
            split.setdefault(f"{name}: {summary.row.name}" if repeats else name, []).append(summary)
    return {name: sorted(members, key=lambda s: s.row.gmacs_per_view) for name, members in split.items()}


def _varying_protocol(group: Sequence[Summary]) -> list[Callable[[ResultRow], str]]:
    """Those parts of the protocol in which the panel's points differ."""
    return [part for part in (view_protocol, views_protocol) if len({part(s.row) for s in group}) > 1]


def _with_dense(series: Sequence[Summary], group: Sequence[Summary]) -> list[Summary]:
    """The series, joined to its dense network where that stands in another series: at alpha 0 all octaves are one."""
    if any(s.row.alpha == 0 for s in series):
        return list(series)
    key = (series[0].row.model, view_protocol(series[0].row), views_protocol(series[0].row))
    dense = [s for s in group if s.row.alpha == 0 and (s.row.model, view_protocol(s.row), views_protocol(s.row)) == key]
    return sorted([*series, *dense], key=lambda s: s.row.gmacs_per_view) if len(dense) == 1 else list(series)


def _set_scale(axes: Axes, costs: Sequence[float]) -> None:
    if min(costs) > 0 and max(costs) / min(costs) > _LOG_ABOVE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1, y=0.1)
    if np.ptp(costs) == 0:
        # One cost alone has no range of its own, and a log-like fraction of a per cent would be drawn.
        axes.set_xlim(costs[0] * 0.8, costs[0] * 1.2 or 1.0)
    axes.autoscale_view()


def _draw_front(axes: Axes, positions: Sequence[tuple[float, float]]) -> list[Point]:
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


def _name_axes(axes: Axes, key: tuple[str, str], group: Sequence[Summary]) -> None:
    row, varying = group[0].row, _varying_protocol(group)
    view = "crop and frames in the legend" if view_protocol in varying else view_protocol(row)
    views = "views in the legend" if views_protocol in varying else views_protocol(row)
    overs = sorted({s.interval_over for s in group if s.interval_over})
    bars = f"\nbars: 95 % interval over {' or '.join(overs)}" if overs else ""
    axes.set_title(f"{key[0]}, {key[1]}")
    axes.set_xlabel(f"GMACs per view ({' or '.join(sorted({s.row.macs_unit for s in group}))}; {view})")
    axes.set_ylabel(f"top-1 of whole videos (%)\n{views}{bars}")
    axes.grid(color="0.92", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 1 if varying else 2
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False, title="points labelled by alpha"
    )
