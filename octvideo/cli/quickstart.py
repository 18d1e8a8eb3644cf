"""`octvideo quickstart`: the main job on the built-in videos."""

from __future__ import annotations

import os
from collections.abc import Sequence

from octvideo.cli.data import synthesize
from octvideo.cli.options import OneLineParser, new_parser
from octvideo.cli.sweep import plan_runs, report, run_all

MOTION_SET = "runs/motion"  # where configs/quickstart.yaml looks for it


def run(arguments: Sequence[str]) -> int:
    """Run the quickstart; the same command again goes on where it was interrupted."""
    options = build_parser().parse_args(list(arguments))
    runs = plan_runs(options.output, options.config, options.variants, [None], [0])
    synthesize(MOTION_SET)
    run_all(runs, jobs=options.jobs)
    report(options.output, runs)
    return 0


def build_parser() -> OneLineParser:
    """The options of `octvideo quickstart`."""
    parser = new_parser("quickstart", "Make videos, train dense and octave networks, report accuracy against FLOPs.")
    parser.add_argument("--config", type=str, default="configs/quickstart.yaml")
    parser.add_argument("--variants", type=str, nargs="+", default=["0", "0.25", "0.5"])
    parser.add_argument("--output", type=str, default="runs/quickstart", help="folder of the runs and of the report")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="runs at a time")
    return parser
