"""The whole report: table, picture and where the numbers come from, in one folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from octvideo.report.markdown import pipe_table
from octvideo.report.plots import plot_accuracy_against_gmacs
from octvideo.report.rows import ResultRow, read_result
from octvideo.report.tables import csv_table, markdown_table

_NOTE = (
    "Top-1 is the mean over folds and seeds; ± is half the 95 % interval (Student's t) over them. GMACs are 10^9 "
    "multiply-adds of convolutions and matrix products. Alpha is the share of low-frequency channels, 0 the dense "
    "network."
)


def write_report(paths: Sequence[str | os.PathLike], out_dir: str | os.PathLike) -> None:
    """Read result files and write report.md, report.csv, report.png and report.svg.

    Args:
        paths: files that `octvideo.report.write_result` wrote.
        out_dir: folder for the four files, made when missing.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: paths is empty, a file is no result, or two results contradict each other.
    """
    if not paths:
        raise ValueError("paths should name at least one result file, got none. Evaluate a network first.")
    rows = [read_result(path) for path in paths]
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown_table(rows)
    plot_accuracy_against_gmacs(rows, folder / "report.png", folder / "report.svg")
    (folder / "report.csv").write_text(csv_table(rows), encoding="utf-8")
    sources = _sources_table([Path(os.path.relpath(path, folder)).as_posix() for path in paths], rows)
    picture = "![top-1 of whole videos against GMACs per view](report.png)"
    text = "\n".join(["# Report", "", _NOTE, "", picture, "", table, "### Sources", "", sources])
    (folder / "report.md").write_text(text, encoding="utf-8")


def _sources_table(names: Sequence[str], rows: Sequence[ResultRow]) -> str:
    header = ["file", "fold", "seed", "epochs", "top-1 %", "device", "threads", "torch", "commit", "date"]
    keys = ("device", "cpu_threads", "torch_version", "git_commit", "date_utc")
    lines = []
    for name, row in zip(names, rows, strict=True):
        run = [name, row.fold or "", row.seed, "" if row.epochs is None else row.epochs, f"{row.top1_percent:.2f}"]
        lines.append([str(cell) for cell in run] + [_short(row.metadata.get(key)) for key in keys])
    return pipe_table(header, lines)


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    commit, plus, rest = text.partition("+changes")
    return commit[:10] + plus + rest if len(commit) == 40 else text
