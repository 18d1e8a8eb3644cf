"""`octvideo data ACTION`: make the built-in motion set, look through a data set, pack one into shards."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from octvideo.cli.options import OneLineParser, new_parser
from octvideo.cli.terminal import live_bars
from octvideo.data import read_annotations
from octvideo.data.motion import synthesize_motion_set
from octvideo.data.scan import BAD, STATUSES, scan_videos
from octvideo.data.scan.report import write_scan_report
from octvideo.data.shards import pack_videos

MANIFEST = "manifest.csv"
LINES = 20  # of progress where there is no terminal
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def run(arguments: Sequence[str]) -> int:
    """Do one of the actions from command-line arguments."""
    action = arguments[0] if arguments else ""
    if action in ("-h", "--help"):
        print(f"usage: octvideo data ACTION ..., where ACTION is one of {', '.join(ACTIONS)} (ACTION --help for more)")
        return 0
    if action not in ACTIONS:
        raise ValueError(f"octvideo data takes one of the actions {', '.join(ACTIONS)}; got {action!r}")
    return ACTIONS[action](build_parser(action).parse_args(list(arguments[1:])))


def build_parser(action: str) -> OneLineParser:
    """The options of `octvideo data ACTION`."""
    parser = new_parser(f"data {action}", DESCRIPTIONS[action])
    if action == "synthesize":
        parser.add_argument("--output", type=str, default="runs/motion", help="folder for videos and lists")
        parser.add_function_arguments(synthesize_motion_set, skip={"folder", "progress"})
    elif action == "scan":
        _add_scan_options(parser)
    else:
        text = "folder for the shards; the same call goes on there"
        parser.add_argument("source", type=str, help="list, CSV file, or folder per class")
        parser.add_argument("--output", type=str, required=True, help=text)
        parser.add_function_arguments(pack_videos, skip={"source", "folder", "progress"})
    return parser


def _add_scan_options(parser: OneLineParser) -> None:
    parser.add_argument("list", type=str, help="list, CSV file, or folder per class")
    parser.add_argument("--root", type=str | None, default=None, help="folder that relative paths start from")
    parser.add_argument("--class_names", type=str | None, default=None, help="file of class names")
    parser.add_argument("--output", type=str, default="runs/scan", help="folder for manifest, report and bad-file list")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1, help="files at a time")
    parser.add_argument(
        "--timeout_seconds", type=float, default=300.0, help="time limit of a file, which then counts as bad"
    )


@contextmanager
def saying_what_is_full(folder: str | Path) -> Iterator[None]:
    """Say where there is no room, and how to go on: what the system says of a full disk often names no file.

    Raises:
        OSError: in place of another one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(folder).free if os.path.isdir(folder) else 0
        raise OSError(
            f"{error.filename or folder} cannot be written ({error.strerror}): {free / 1e6:.1f} MB are free. What was "
            "written before is whole: make room and give the same command again, which goes on there"
        ) from error


def run_synthesize(options: Any) -> int:
    """`octvideo data synthesize`: the built-in motion set."""
    given = options.as_dict()
    folder = given.pop("output")
    synthesize(folder, **given)
    print(f"{folder}: train.txt, val.txt, test.txt, classes.txt")
    return 0


def synthesize(folder: str, **options: int) -> None:
    """Make the motion set with a live bar; `options` as in `synthesize_motion_set`."""
    with live_bars() as progress:
        bar = progress.add_task(f"videos of 8 motions in {folder}")
        synthesize_motion_set(
            folder, **options, progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )


def run_scan(options: Any) -> int:
    """`octvideo data scan`: decode every file of a list; the exit code is 1 where one of them is of no use."""
    with saying_what_is_full(options.output):
        return _scan(options)


def _scan(options: Any) -> int:
    folder = Path(options.output)
    annotations = read_annotations(options.list, root=options.root, class_names=options.class_names, missing="keep")
    with live_bars(MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(f"videos of {options.list}")

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)
            if not progress.console.is_terminal and done * LINES // total > (done - 1) * LINES // total:
                print(f"{done:,} of {total:,} videos", flush=True)

        paths = (record.path for record in annotations.records)
        manifest = scan_videos(
            paths,
            folder / MANIFEST,
            num_workers=options.num_workers,
            timeout_seconds=options.timeout_seconds,
            progress=show,
        )
    counts = write_scan_report(folder, annotations, manifest)
    described = ", ".join(f"{counts[status]:,} {status}" for status in STATUSES if counts[status])
    print(f"{folder}: {MANIFEST}, report.md, report.png, bad.csv")
    print(f"{len(annotations):,} videos: {described}")
    return 1 if any(counts[status] for status in BAD) else 0


def run_pack(options: Any) -> int:
    """`octvideo data pack`: a list of videos as tar shards of small ones."""
    given = options.as_dict()
    source, folder = given.pop("source"), given.pop("output")
    with saying_what_is_full(folder), live_bars() as progress:
        bar = progress.add_task(f"videos of {source}")
        index = pack_videos(
            source, folder, **given, progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )
    megabytes = sum(shard.num_bytes for shard in index.shards) / 1e6
    print(f"{folder}: {len(index)} videos in {len(index.shards)} shards, {megabytes:.1f} MB")
    if index.packed_with["num_unreadable"]:
        print(f"{index.packed_with['num_unreadable']} videos cannot be read: {Path(folder) / 'unreadable.csv'}")
    return 0


ACTIONS: dict[str, Callable[[Any], int]] = {
    "synthesize": run_synthesize,
    "scan": run_scan,
    "pack": run_pack,
}

DESCRIPTIONS = {
    "synthesize": "Make videos of 8 classes that only motion tells apart.",
    "scan": "Decode every video of a list, and write what was found: manifest.csv for --data.manifest, report.md with "
    "a picture, bad.csv. The same command again goes on where it was broken off, and looks at new and changed files.",
    "pack": "Encode videos small, and write them as tar shards that training reads in order.",
}
