"""Markdown tables."""

from collections.abc import Collection, Iterable, Sequence


def pipe_table(header: Sequence[str], lines: Iterable[Sequence[str]], right: Collection[str] = ()) -> str:
    """A table of the cells as they are, with a line's end; the columns named in `right` are set flush right."""
    rule = ["---:" if name in right else "---" for name in header]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [header, rule, *lines])
