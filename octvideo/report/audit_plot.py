"""The audit's picture: counted costs over alpha, and the printed ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from octvideo.report.plots import COLOURS, MARKERS

_PANELS = {
    "images of 224x224": ("resnet26", "resnet50", "resnext50_32x4d", "resnet101", "resnet200"),
    "clips of 8 frames (SlowFast 32), 224x224": ("c2d_r50", "i3d_r50", "i3d_r50_nln", "slowfast_r50_4x16"),
}


def plot_audit(rows: Sequence[dict[str, Any]], path_png: str | os.PathLike) -> None:
    """Draw printed GFLOPs (markers), the counted ones (lines), and the readings that agree (small dots), over alpha.

    Args:
        rows: "networks" of `octvideo.analysis.audit_paper`.
        path_png: file to write; its folder is made when missing.
    """
    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=(13, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (title, models) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
            for number, model in enumerate(models):
                style = {"color": COLOURS[number], "marker": MARKERS[number]}
                _draw_network(axes, model, [row for row in rows if row["model"] == model], style)
            _name_axes(axes, title)
        Path(path_png).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path_png, dpi=110, format="png", metadata={"Software": None})


def _draw_network(axes: Axes, model: str, rows: Sequence[dict[str, Any]], style: dict[str, Any]) -> None:
    if not rows:
        return
    counted = sorted({(row["alpha"], row["counted"]) for row in rows})
    axes.plot(*zip(*counted, strict=True), color=style["color"], linewidth=1.3)
    for hollow in (False, True):
        points = {(r["alpha"], r["published"]) for r in rows if ("unverified" in r.get("note", "")) == hollow}
        if points:
            face = "white" if hollow else style["color"]
            axes.plot(*zip(*sorted(points), strict=True), linestyle="", markerfacecolor=face, markersize=8, **style)
    near = {(r["alpha"], reading["counted"]) for r in rows for reading in r["readings"] if _agrees(reading)}
    if near:
        axes.plot(*zip(*sorted(near), strict=True), linestyle="", marker=".", markersize=5, color="black", zorder=4)
    axes.plot([], [], linewidth=1.3, label=model, **style)


def _agrees(reading: dict[str, Any]) -> bool:
    return min(abs(reading["difference_percent"]), abs(reading["with_pool_difference_percent"])) <= 1


def _name_axes(axes: Axes, title: str) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title)
    axes.set_xlabel("alpha (share of low-frequency channels)")
    axes.set_ylabel("10^9 multiply-adds of one view")
    axes.grid(color="0.92", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False,
        fontsize=9,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=3,
        title="line: counted; marker: printed (hollow: unverified); dot: a reading within 1 %",
    )
