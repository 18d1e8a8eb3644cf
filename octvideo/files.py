"""Files that appear whole or not at all, and lines of CSV files that are appended to."""

import contextlib
import csv
import glob
import io
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

__all__ = ["csv_line", "partials_of", "replace_file"]


@contextlib.contextmanager
def replace_file(path: Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name when it is whole and on the disk.

    Whatever ends the writing, a crash, a kill, a full disk or an error of the one who writes, a reader finds the file
    that stood there before, or none. Several processes may write one path: the last one's file stays. What a killed
    process left is deleted by the next one on its machine that writes the path.

    Args:
        path: of the file; its folder is made when missing.
        previous: new path of the file that stands at `path` now; None gives it up.

    Raises:
        OSError: it cannot be written, as on a full disk; the error names the file, or another one that it is about.
    """
    partial = path.with_name(f"{_beginning(path)}{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_leftovers(path)
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            os.replace(path, previous)
        os.replace(partial, path)
    except OSError as error:
        is_of_another = error.filename is not None and str(error.filename) != str(partial)
        if error.errno is None or is_of_another:  # no number: no word of the system's
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    with contextlib.suppress(OSError):  # some systems cannot open a folder
        _sync_folder(path.parent)


def partials_of(path: Path) -> list[Path]:
    """Files that :func:`replace_file` is making for a path, or was when it was killed."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*.partial"))


def _beginning(path: Path) -> str:
    """Of the names of this machine's partial files: on a shared disk another machine has the same process numbers."""
    return f".{path.name}.{platform.node()}."


def _delete_leftovers(path: Path) -> None:
    for partial in partials_of(path):
        number = partial.name.removeprefix(_beginning(path)).removesuffix(".partial")
        if number.isdecimal() and _has_ended(int(number)):
            with contextlib.suppress(OSError):
                partial.unlink()


def _has_ended(pid: int) -> bool:
    if os.name != "posix":  # on Windows this call would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # somebody else's process, or no process number
        return False
    return False


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
