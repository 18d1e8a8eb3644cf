"""`octvideo data`: the built-in motion set; data sets as shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import Progress

from octvideo.cli.options import new_parser
from octvideo.data.motion import synthesize_motion_set
from octvideo.data.shards import pack_videos


def run(arguments: Sequence[str]) -> int:
    """Make data from command-line arguments."""
    if not arguments or arguments[0] not in ACTIONS:
        given = arguments[0] if arguments else ""
        raise ValueError(f"octvideo data takes one of {', '.join(ACTIONS)}; got {given!r}")
    return ACTIONS[arguments[0]](arguments[1:])


def run_synthesize(arguments: Sequence[str]) -> int:
    """`octvideo data synthesize`: the built-in motion set."""
    parser = new_parser("data synthesize", "Make videos of 8 classes that only motion tells apart.")
    parser.add_argument("--output", type=str, default="runs/motion", help="folder for videos and lists")
    parser.add_function_arguments(synthesize_motion_set, skip={"folder", "progress"})
    options = parser.parse_args(list(arguments)).as_dict()
    folder = options.pop("output")
    synthesize(folder, **options)
    print(f"{folder}: train.txt, val.txt, test.txt, classes.txt")
    return 0


def synthesize(folder: str, **options: int) -> None:
    """Make the motion set with a live bar; `options` as in `synthesize_motion_set`."""
    with Progress() as progress:
        bar = progress.add_task(f"videos of 8 motions in {folder}")
        synthesize_motion_set(
            folder, **options, progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )


def run_pack(arguments: Sequence[str]) -> int:
    """`octvideo data pack`: a list of videos as tar shards of small ones."""
    parser = new_parser("data pack", "Encode videos small, and write them as tar shards that training reads in order.")
    parser.add_argument("source", type=str, help="list, CSV file, or folder per class")
    parser.add_argument("--output", type=str, required=True, help="folder for the shards; the same call goes on there")
    parser.add_function_arguments(pack_videos, skip={"source", "folder", "progress"})
    options = parser.parse_args(list(arguments)).as_dict()
    source, folder = options.pop("source"), options.pop("output")
    with Progress() as progress:
        bar = progress.add_task(f"videos of {source}")
        index = pack_videos(
            source, folder, **options, progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )
    megabytes = sum(shard.num_bytes for shard in index.shards) / 1e6
    print(f"{folder}: {len(index)} videos in {len(index.shards)} shards, {megabytes:.1f} MB")
    if index.packed_with["num_unreadable"]:
        print(f"{index.packed_with['num_unreadable']} videos cannot be read: {Path(folder) / 'unreadable.csv'}")
    return 0


ACTIONS: dict[str, Callable[[Sequence[str]], int]] = {"synthesize": run_synthesize, "pack": run_pack}
