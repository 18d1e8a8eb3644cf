"""`octvideo report`: tables and a plot from result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from octvideo.cli.options import OneLineParser, new_parser
from octvideo.report import write_report


def run(arguments: Sequence[str]) -> int:
    """Report from command-line arguments."""
    options = build_parser().parse_args(list(arguments))
    write_report(find_results(options.results), options.output)
    print(f"{options.output}/report.md, report.csv, report.png, report.svg")
    return 0


def build_parser() -> OneLineParser:
    """The options of `octvideo report`."""
    parser = new_parser("report", "Write report.md, report.csv, report.png and report.svg from result files.")
    parser.add_argument("results", type=str, nargs="+", help="result.json files, or folders that are searched for them")
    parser.add_argument("--output", type=str, default="runs/report", help="folder for the report")
    return parser


def find_results(paths: Sequence[str]) -> list[Path]:
    """Result files, those below a given folder included.

    Raises:
        FileNotFoundError: a folder holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.rglob("result*.json")) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(f"folder {path} holds no result.json: octvideo train and evaluate write them")
        found += inside
    return found
