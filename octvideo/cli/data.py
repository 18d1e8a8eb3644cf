"""`octvideo data synthesize`: the built-in motion set."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import Progress

from octvideo.cli.options import new_parser
from octvideo.data.motion import synthesize_motion_set


def run(arguments: Sequence[str]) -> int:
    """Make data from command-line arguments."""
    if not arguments or arguments[0] != "synthesize":
        given = arguments[0] if arguments else ""
        raise ValueError(f"octvideo data takes the action synthesize; got {given!r}")
    parser = new_parser("data synthesize", "Make videos of 8 classes that only motion tells apart.")
    parser.add_argument("--output", type=str, default="runs/motion", help="folder for videos and lists")
    parser.add_function_arguments(synthesize_motion_set, skip={"folder", "progress"})
    options = parser.parse_args(list(arguments[1:])).as_dict()
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
