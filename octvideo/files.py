"""Files that appear whole or not at all, and lines of CSV files that are appended to."""

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

__all__ = ["csv_line", "replace_file"]


@contextlib.contextmanager
def replace_file(path: Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name when it is whole and on the disk.

    Whatever ends the writing, a crash, a kill, a full disk or an error of the one who writes, a reader finds the file
    that stood there before, or none.

    Args:
        path: of the file; its folder is made when missing.
        previous: new path of the file that stands at `path` now; None gives it up.

    Raises:
        OSError: it cannot be written, as on a full disk; the error names the file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            os.replace(path, previous)
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None:  # no word of the system's
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    with contextlib.suppress(OSError):  # some systems cannot open a folder
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force the folder's list of names to the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def csv_line(row: Sequence[str]) -> bytes:
    """One line, for a file that several processes append to; any name of a file can be in it."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(row)  # which puts names with either character between quotes
    return (text.getvalue()[:-2] + "\n").encode("utf-8", errors="surrogateescape")
