"""`octvideo analyze`: what a network costs at several alphas, without data."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from octvideo.analysis import MACS_TOOL, cost_table
from octvideo.cli.options import chosen_size, new_parser
from octvideo.models.build import IMAGE_BUILDERS, find_builder


def run(arguments: Sequence[str]) -> int:
    """Analyze from command-line arguments."""
    parser = new_parser("analyze", "Print multiply-adds, parameters and activations of a network at several alphas.")
    parser.add_argument("--model", type=str, default="i3d_r50", help="a builder's name, or package.module:function")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0, 0.125, 0.25, 0.5], help="one row each")
    parser.add_argument("--octave", type=str, default="spatial", help="spatial, temporal or spatiotemporal")
    parser.add_argument("--num_classes", type=int | None, default=None, help="None is 400, of an image network 1000")
    parser.add_argument("--num_frames", type=int | None, default=None, help="None is the network's own number")
    parser.add_argument(
        "--crop", type=int, nargs="+", default=[], help="height and width in pixels, or one for both; or the network's"
    )
    options = parser.parse_args(list(arguments))
    builder = find_builder(options.model)
    size = chosen_size(options.model, options.num_frames, options.crop)
    num_classes = options.num_classes or (1000 if options.model in IMAGE_BUILDERS else 400)
    rows = cost_table(
        lambda alpha: builder(num_classes=num_classes, alpha=alpha, octave=options.octave), options.alpha, (3, *size)
    )
    view = "image" if options.model in IMAGE_BUILDERS else f"view of {size[0]} frames"
    title = f"{options.model}, {options.octave} octave, one {view}, crop {size[-2]}x{size[-1]}"
    Console(width=120).print(cost_rows(rows, title))
    print(f"GMACs: 10^9 multiply-adds of convolutions and matrix products; counted by {MACS_TOOL}")
    return 0


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
