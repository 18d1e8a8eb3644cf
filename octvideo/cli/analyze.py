"""`octvideo analyze`: what a network costs at several alphas, without data; and the paper's costs, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from octvideo.analysis import MACS_TOOL, audit_paper, cost_table
from octvideo.cli.options import OneLineParser, new_parser
from octvideo.cli.terminal import print_table
from octvideo.models.build import IMAGE_BUILDERS, chosen_size, default_num_classes, find_builder
from octvideo.report import write_audit


def run(arguments: Sequence[str]) -> int:
    """Analyze from command-line arguments."""
    options = build_parser().parse_args(list(arguments))
    if options.output is not None and not options.paper:
        raise ValueError(f"output is {options.output!r}, but one network's table is only printed: add --paper")
    return audit(options.output) if options.paper else analyze(options)


def build_parser() -> OneLineParser:
    """The options of `octvideo analyze`."""
    parser = new_parser("analyze", "Print multiply-adds, parameters and activations of a network at several alphas.")
    parser.add_argument(
        "--model", type=str, default="i3d_r50", help="a builder's name, or package.module:function with its arguments"
    )
    parser.add_argument("--alpha", type=float, nargs="+", default=[0, 0.125, 0.25, 0.5], help="one row each")
    parser.add_argument("--octave", type=str, default="spatial", help="spatial, temporal or spatiotemporal")
    parser.add_argument("--num_classes", type=int | None, default=None, help="None is 400, of an image network 1000")
    parser.add_argument("--num_frames", type=int | None, default=None, help="None is the network's own number")
    parser.add_argument(
        "--crop", type=int, nargs="+", default=[], help="height and width in pixels, or one for both; or the network's"
    )
    parser.add_argument("--paper", action="store_true", help="in place of one network: all costs that the paper prints")
    parser.add_argument("--output", type=str | None, default=None, help="with --paper, folder for its page and numbers")
    return parser


def analyze(options: Any) -> int:
    """Print the cost table of one network."""
    builder = find_builder(options.model)
    size = chosen_size(options.model, options.num_frames, options.crop)
    num_classes = options.num_classes or default_num_classes(options.model)
    rows = cost_table(
        lambda alpha: builder(num_classes=num_classes, alpha=alpha, octave=options.octave), options.alpha, (3, *size)
    )
    view = "image" if options.model in IMAGE_BUILDERS else f"view of {size[0]} frames"
    title = f"{options.model}, {options.octave} octave, one {view}, crop {size[-2]}x{size[-1]}"
    print_table(cost_rows(rows, title), width=120)
    print(f"GMACs: 10^9 multiply-adds of convolutions and matrix products; counted by {MACS_TOOL}")
    octaves = [f"{alpha:g}" for alpha in options.alpha if alpha > 0]
    if octaves:
        command = f"octvideo benchmark slow_layers --model {options.model} --octave {options.octave} --alpha"
        print(f"which layers save no time: {command} {' '.join(octaves)}")
    return 0


def audit(output: str | None) -> int:
    """Print every cost that the paper prints beside the counted one; write page, numbers and picture to a folder."""
    print("counting the networks of Chen et al. 2019: about a minute", flush=True)
    found = audit_paper()
    print_table(paper_rows(found), width=160)
    print(f"multiply-adds of convolutions and matrix products, counted by {MACS_TOOL}; params in 10^6")
    if output is not None:
        write_audit(found, output)
        print(f"{output}/report.md, report.png, audit.json")
    return 0


def paper_rows(found: dict[str, Any]) -> Table:
    """The audit for the terminal."""
    table = Table(title="costs printed in Chen et al. 2019 and counted")
    for name in ("source", "network", "alpha", "printed", "counted", "diff %", "params", "counted", "reason"):
        table.add_column(name, justify="left" if name in ("source", "network", "reason") else "right")
    for row in found["layer"]:
        for kind in ("flops", "memory"):
            printed, counted = row[f"{kind}_published_percent"], row[f"{kind}_counted_percent"]
            cells = (f"{printed:g} %", f"{counted:.1f} %", f"{100 * (counted / printed - 1):+.1f}")
            table.add_row("table 1", f"one layer, {kind}", f"{row['alpha']:g}", *cells, "", "", row[f"{kind}_reason"])
    for row in found["networks"]:
        digits = 1 if row["unit"] == "MFLOPs" else 2
        table.add_row(
            *(row["source"], row["network"], f"{row['alpha']:g}", f"{row['published']:g} {row['unit'][0]}"),
            *(f"{row['counted']:.{digits}f} {row['unit'][0]}", f"{row['difference_percent']:+.1f}"),
            *(f"{row['params_m']:g}" if "params_m" in row else "", f"{row['params_counted_m']:.2f}"),
            row["reason"] or row.get("note", ""),
        )
    return table


def cost_rows(rows: list[dict[str, float]], title: str) -> Table:
    """The cost table for the terminal."""
    table = Table(title=title)
    for name in ("alpha", "GMACs", "% of dense", "pooling GMACs", "parameters M", "activations MB"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['alpha']:g}",
            f"{row['gmacs']:.3f}",
            f"{row['relative_percent']:.1f}",
            f"{row['pool_gmacs']:.4f}",
            f"{row['params_m']:.3f}",
            f"{row['activation_mb']:.1f}",
        )
    return table
