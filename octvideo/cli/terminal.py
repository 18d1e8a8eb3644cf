"""Tables and live bars that show texts as they are: rich would take [brackets] for markup and :words: for emoji."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text


def print_table(table: Table, width: int) -> None:
    """Print a table.

    Args:
        table: its title, headers and cells are plain texts.
        width: most characters of a line.
    """
    Console(width=width, markup=False, emoji=False).print(table)


def plain_column(text_format: str, style: str = "none") -> TextColumn:
    """A column of a live bar that shows its text as it is."""
    return TextColumn(text_format, style=style, markup=False)


def live_bars(*columns: ProgressColumn, stderr: bool = False, transient: bool = False) -> Progress:
    """Live bars with a description each.

    Args:
        columns: behind the bar; none is the share done and the time that is left.
        stderr: show them on the standard error stream.
        transient: take them away at the end.
    """
    behind = columns or (TaskProgressColumn(), TimeRemainingColumn())
    description = plain_column("{task.description}", "progress.description")
    console = Console(stderr=stderr, markup=False, emoji=False)
    return Progress(description, BarColumn(), *behind, console=console, transient=transient)


def status(text: str) -> Status:
    """A context that shows a spinner beside a text on the standard error stream."""
    return Console(stderr=True).status(Text(text))
