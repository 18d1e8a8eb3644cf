"""`octvideo benchmark`: times of networks, layers and decoding, all of a table in one run."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
from rich.progress import Progress
from rich.table import Table

from octvideo.analysis import MACS_TOOL
from octvideo.cli.benchmark_tables import BENCHMARKS, Benchmark, Row
from octvideo.cli.options import OneLineParser, new_parser
from octvideo.cli.terminal import live_bars, print_table
from octvideo.files import replace_file
from octvideo.report import collect_metadata, package_versions


def run(arguments: Sequence[str]) -> int:
    """Benchmark from command-line arguments."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name = arguments[0]
    if name not in BENCHMARKS:
        raise ValueError(f"octvideo benchmark takes one of {', '.join(BENCHMARKS)}; got {name!r}")
    benchmark = BENCHMARKS[name]
    options = build_parser(name).parse_args(list(arguments[1:])).as_dict()
    output = options.pop("output")
    if output:
        _check_output(Path(output))
    with live_bars(stderr=True, transient=True) as progress:
        rows = benchmark.measure(**options, progress=_bars(progress))
    # A table is made to be shown: it names files, and not the folders of this machine.
    options |= {key: [Path(video).name for video in options[key]] for key in ("videos",) if key in options}
    _print(name, benchmark, rows, options)
    if output:
        _write(Path(output), name, benchmark, options, rows)
        if benchmark.plot:
            benchmark.plot(rows, Path(output).with_suffix(".png"))
            print(f"drawn: {Path(output).with_suffix('.png')}")
    return 0


def _usage() -> str:
    width = max(map(len, BENCHMARKS))
    lines = [f"  {name:{width}}  {benchmark.description}" for name, benchmark in BENCHMARKS.items()]
    usage = "usage: octvideo benchmark WHAT ... (octvideo benchmark WHAT --help for its options)"
    return "\n".join([usage, "", *lines])


def build_parser(name: str) -> OneLineParser:
    """The options of a benchmark, from its function's signature and docstring; sequences are words in a row."""
    benchmark = BENCHMARKS[name]
    parser = new_parser(f"benchmark {name}", f"Time {benchmark.description}.")
    hints = get_type_hints(benchmark.measure)
    many = {key: get_args(hint)[0] for key, hint in hints.items() if get_origin(hint) is Sequence and key != "return"}
    texts = {p.arg_name: p.description for p in docstring_parser.parse(benchmark.measure.__doc__ or "").params}
    for key, kind in many.items():
        default = list(inspect.signature(benchmark.measure).parameters[key].default)
        parser.add_argument(f"--{key}", type=kind, nargs="+", default=default, help=texts[key])
    parser.add_function_arguments(benchmark.measure, skip={"progress", *many})
    picture = ", and the picture of it beside, with the ending .png" if benchmark.plot else ""
    parser.add_argument("--output", type=str | None, default=None, help=f"JSON file for the result{picture}")
    return parser


def _bars(progress: Progress) -> Callable[[str, int, int], None]:
    """A live bar for each thing that is being done."""
    bars: dict[str, Any] = {}

    def update(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = progress.add_task(what)
        progress.update(bars[what], completed=done, total=total)

    return update


def _print(name: str, benchmark: Benchmark, rows: Sequence[Row], options: Row) -> None:
    settings = ", ".join(f"{key} {value}" for key, value in options.items() if value not in (None, [], ()))
    table = Table(title=f"{name}: {settings}")
    columns = {header: [cell(row) for row in rows] for header, cell in benchmark.columns.items()}
    columns = {header: cells for header, cells in columns.items() if any(cells)}
    for header in columns:
        table.add_column(header, justify="right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    print_table(table, width=132)
    print(f"times are medians of {options['rounds']} rounds, all in turn; {benchmark.note}".removesuffix("; "))
    if benchmark.packages:
        versions = package_versions(benchmark.packages).items()
        print(", ".join(f"{key.removesuffix('_version')} {version}" for key, version in versions if version))
    if benchmark.summary:
        print("\n".join(benchmark.summary(list(rows))))


def _check_output(path: Path) -> None:
    """Make the folder of a result's file; a result is not lost to a wrong name after its measurement."""
    if path.suffix != ".json" or path.is_dir():
        raise ValueError(f"output must be a file with the ending .json; got {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output {path} cannot be written, for its folder cannot be made: {error.strerror}") from error


def _write(path: Path, name: str, benchmark: Benchmark, options: Row, rows: list[Row]) -> None:
    metadata = collect_metadata(options.get("device")) | package_versions(benchmark.packages)
    content = {"benchmark": name, "settings": options, "macs_tool": MACS_TOOL, "metadata": metadata, "rows": rows}
    with replace_file(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
    print(f"written: {path}")
