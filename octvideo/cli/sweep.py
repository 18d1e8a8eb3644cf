"""`octvideo sweep`: one config over alphas, octaves, folds and seeds, several runs at a time, and a report."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import torch
from rich.progress import Progress, TaskID, TimeElapsedColumn

from octvideo.cli.options import OneLineParser, new_parser, training_parser
from octvideo.cli.report import find_results
from octvideo.cli.results import view_latency
from octvideo.cli.terminal import live_bars, plain_column
from octvideo.cli.train import check_same_options
from octvideo.layers.resize import check_alpha, octave_factors
from octvideo.report import ResultRow, markdown_table, read_result, write_report, write_result
from octvideo.training import best_checkpoint, load_classifier

LOG = "log.txt"
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Run:
    """One training run of a sweep: its folder, the options that set it apart, and those that all runs are given."""

    folder: Path
    options: tuple[str, ...]
    passed_on: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        return (self.folder / "result.json").is_file()

    def arguments(self, *more: str) -> list[str]:
        """Of `octvideo train`; what is passed on comes last and so overrides the others, as it does in any command."""
        return [*self.options, *more, *self.passed_on]


def run(arguments: Sequence[str]) -> int:
    """Sweep from command-line arguments; those behind "--" go to every `octvideo train`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    given, passed_on = list(arguments[:at]), arguments[at + 1 :]
    options = build_parser().parse_args(given)
    passed_on = [*passed_on, *(["--own_builders"] if options.own_builders else [])]
    runs = plan_runs(
        options.output, options.config, options.variants, options.folds or [None], options.seeds, passed_on
    )
    run_all(runs, jobs=options.jobs)
    report(options.output, runs, own_builders=options.own_builders)
    return 0


def build_parser() -> OneLineParser:
    """The options of `octvideo sweep`."""
    parser = new_parser("sweep", "Train and test a config over alphas, folds and seeds; finished runs are kept.")
    parser.add_argument("--config", type=str, required=True, help="YAML file of octvideo train")
    parser.add_argument("--variants", type=str, nargs="+", default=["0", "0.25", "0.5"], help="ALPHA or ALPHA:OCTAVE")
    parser.add_argument("--folds", type=str, nargs="+", default=[], help="what {fold} in the config's lists becomes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=str, default="runs/sweep", help="folder of the runs and of the report")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, the CPU's cores shared")
    parser.add_argument("--own_builders", action="store_true", help="import a builder of yours, module:function")
    return parser


def plan_runs(
    output: str | Path,
    config: str | Path,
    variants: Sequence[str],
    folds: Sequence[str | None],
    seeds: Sequence[int],
    passed_on: Sequence[str] = (),
) -> list[Run]:
    """List the runs: every variant on every fold with every seed.

    Raises:
        FileNotFoundError: the config is missing.
        ValueError: a variant is not ALPHA or ALPHA:OCTAVE, or a finished run had other options.
    """
    if not Path(config).is_file():
        raise FileNotFoundError(f"config {config} not found: give --config, a YAML file of octvideo train")
    runs = []
    for fold in folds:
        for seed in seeds:
            for alpha, octave in map(parse_variant, variants):
                place = "-".join([*([f"fold{fold}"] if fold is not None else []), f"seed{seed}"])
                folder = Path(output) / f"alpha{alpha:g}-{octave}" / place
                options = ["--config", str(config), "--output", str(folder), "--resume", "--seed", str(seed)]
                options += ["--model.alpha", f"{alpha:g}", "--model.octave", octave]
                options += ["--fold", fold] if fold is not None else []
                runs.append(Run(folder, tuple(options), tuple(passed_on)))
                check_finished(runs[-1])
    return runs


def check_finished(one: Run) -> None:
    """Raise a ValueError where a finished run's options were others than it would have now."""
    if one.is_finished:
        check_same_options(training_parser().parse_args(one.arguments()).as_dict(), one.folder)


def parse_variant(text: str) -> tuple[float, str]:
    """Read "0.25" or "0.25:temporal".

    Raises:
        ValueError: the alpha is no number in [0, 1], or the octave unknown.
    """
    alpha_text, _, octave = text.partition(":")
    octave = octave or "spatial"
    try:
        alpha = float(alpha_text)
    except ValueError:
        raise ValueError(f"variant {text!r} must be ALPHA or ALPHA:OCTAVE, such as 0.25 or 0.25:temporal") from None
    check_alpha(alpha, f"alpha of variant {text!r}")
    octave_factors(octave)
    return alpha, octave


def run_all(runs: Iterable[Run], *, jobs: int) -> None:
    """Run what is not finished, `jobs` at a time, with a live bar per run; an interrupt stops all of them.

    Raises:
        RuntimeError: runs failed; names each one's log and last line.
    """
    runs = list(runs)
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more; got {jobs}")
    waiting = [r for r in runs if not r.is_finished]
    active: dict[Run, tuple[subprocess.Popen, IO[bytes]]] = {}
    threads = max((os.cpu_count() or 1) // jobs, 1)
    with _progress() as progress:
        board = _Board(progress, len(runs), len(runs) - len(waiting))
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    active[waiting[0]] = _start(waiting[0], threads, jobs)
                    waiting.pop(0)
                time.sleep(POLL_SECONDS)
                for one in list(active):
                    board.update(one)
                    if active[one][0].poll() is not None:
                        active.pop(one)[1].close()
                        board.finish(one)
        finally:
            _stop(active.values())
    failed = [r for r in runs if not r.is_finished]
    if failed:
        details = "; ".join(f"{r.folder / LOG}: {_last_line(r.folder / LOG)}" for r in failed[:3])
        raise RuntimeError(f"{len(failed)} of {len(runs)} runs failed: {details}")


def _start(one: Run, threads: int, jobs: int) -> tuple[subprocess.Popen, IO[bytes]]:
    one.folder.mkdir(parents=True, exist_ok=True)
    log = open(one.folder / LOG, "ab")  # noqa: SIM115 - closed when the run ends
    quiet = "true" if jobs == 1 else "false"
    arguments = one.arguments("--threads", str(threads), "--measure_latency", quiet)
    command = [sys.executable, "-m", "octvideo", "train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment), log


def _stop(active: Iterable[tuple[subprocess.Popen, IO[bytes]]]) -> None:
    """End what still runs: an interrupted run has its last epoch's checkpoint."""
    for process, log in active:
        process.terminate()
        process.wait()
        log.close()


def _progress() -> Progress:
    count, note = plain_column("{task.completed:.0f}/{task.total:.0f}"), plain_column("{task.fields[note]}")
    return live_bars(count, note, TimeElapsedColumn())


class _Board:
    """The live display: runs finished, and each active run's epochs."""

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        self.progress = progress
        self.all = progress.add_task("runs", total=total, completed=done, note="")
        self.tasks: dict[Run, TaskID] = {}
        self.printed: dict[Run, str] = {}

    def update(self, one: Run) -> None:
        line = _last_line(one.folder / LOG, start="epoch ")
        if one not in self.tasks:
            name = "/".join(one.folder.parts[-2:])
            self.tasks[one] = self.progress.add_task(name, total=1, note="starts")
        if line:
            done, total = line.split()[1].rstrip(",").split("/")
            note = ", ".join(line.split(", ")[1:])
            self._print_once(one, line)
            self.progress.update(self.tasks[one], completed=int(done), total=int(total), note=note)

    def _print_once(self, one: Run, line: str) -> None:
        """Without a terminal there is no bar: print each epoch's line."""
        if not self.progress.console.is_terminal and self.printed.get(one) != line:
            self.printed[one] = line
            print(f"{'/'.join(one.folder.parts[-2:])}: {line}", flush=True)

    def finish(self, one: Run) -> None:
        task = self.tasks.pop(one, None)
        if task is not None:
            self.progress.remove_task(task)
        if one.is_finished:
            row = read_result(one.folder / "result.json")
            name = "/".join(one.folder.parts[-2:])
            self.progress.console.print(
                f"{name}: top-1 {row.top1_percent:.2f} %, {row.gmacs_per_view:.3f} GMACs per view"
            )
            self.progress.advance(self.all)


def _last_line(path: Path, start: str = "") -> str:
    """The last line of a log with this start, empty where there is none."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 2000, 0))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith(start)), "")


def fill_latency(runs: Sequence[Run], own_builders: bool = False) -> None:
    """Time a view of each variant's network once, when all runs are over, and enter it into the variant's rows.

    While several runs train side by side none measures it.

    Args:
        runs: finished ones.
        own_builders: import a builder that a checkpoint names.
    """
    variants: dict[tuple[float, str], list[tuple[Run, ResultRow]]] = {}
    for one in runs:
        row = read_result(one.folder / "result.json")
        variants.setdefault((row.alpha, row.octave), []).append((one, row))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for members in variants.values():
        if any(row.latency_ms is not None for _, row in members):
            continue
        checkpoint = best_checkpoint(members[0][0].folder)
        if checkpoint is None:
            continue
        latency = view_latency(load_classifier(checkpoint, own_builders=own_builders).to(device))
        for one, row in members:
            timed = replace(row, latency_ms=latency.median_ms, latency_threads=latency.threads)
            write_result(one.folder / "result.json", timed)


def report(output: str | Path, runs: Sequence[Run], own_builders: bool = False) -> None:
    """Write the report of the runs and print its table."""
    fill_latency(runs, own_builders)
    paths = find_results([str(r.folder / "result.json") for r in runs])
    write_report(paths, output)
    print(markdown_table([read_result(path) for path in paths]))
    print(f"{Path(output) / 'report.md'}, report.csv, report.png, report.svg")
