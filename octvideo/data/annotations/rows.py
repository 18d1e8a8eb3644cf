"""What every reader of a list hands over: its rows in flat arrays, each with the place that errors name."""

from __future__ import annotations

import itertools
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from octvideo.data.annotations.packed import Packer

__all__ = ["Rows", "lines_of", "named", "read_json", "shown"]

NUM_NAMED_IN_ERROR = 3
LONGEST_SHOWN = 200
LONGEST_LINE = 65_536  # a file of other content may be one line of gigabytes
NO_LINE = 0


class Rows:
    """Rows of a list before their labels have numbers.

    Args:
        source: the list.
        hint: what to add where it has none.
        unit: what its rows are counted in, for errors: "line" or "entry".
        find_by_name: rows hold names of videos without folder and extension, which have to be looked for; false where
            they hold paths.
        class_names: names that the list itself brings along; None where it brings none.
        class_file: file that the list's data set names its classes in; None where there is none.
        class_lists: shipped lists that the data set of this form may have.
    """

    def __init__(
        self,
        source: Path,
        hint: str,
        *,
        unit: str = "line",
        find_by_name: bool = False,
        class_names: tuple[str, ...] | None = None,
        class_file: Path | None = None,
        class_lists: tuple[str, ...] = (),
    ) -> None:
        self.source, self.hint, self.unit, self.find_by_name = source, hint, unit, find_by_name
        self.class_names, self.class_file, self.class_lists = class_names, class_file, class_lists
        self._codes: dict[str | None, int] = {}
        self._names, self._row_codes, self._numbers = Packer(), array("i"), array("i")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._row_codes)

    def add(self, name: str, label: str | None, number: int = NO_LINE) -> None:
        """Append a row: a path or a name, its label if it has one, and its line where rows are lines of the source."""
        self._names.add(name)
        self._row_codes.append(self._codes.setdefault(label, len(self._codes)))
        self._numbers.append(number)

    @property
    def names(self) -> Packer:
        """Path or name of each row."""
        return self._names

    @property
    def labels(self) -> list[str | None]:
        """Labels that occur, each once; None where rows have none."""
        return list(self._codes)

    @property
    def codes(self) -> np.ndarray:
        """Position of each row's label in :attr:`labels`, (number of rows,)."""
        return np.array(self._row_codes, dtype=np.int32)

    def label(self, row: int) -> str | None:
        """Label of a row."""
        return self.labels[self._row_codes[row]]

    def where(self, row: int) -> str:
        """The place of a row, for errors."""
        if self._numbers[row] == NO_LINE:
            name = self._names.get(row)
            return shown(os.path.join(self.source, name) if self.find_by_name else name)
        return f"{self.source}, {self.unit} {self._numbers[row]}"

    def check_all_or_none_labelled(self) -> None:
        """Refuse a list with labels in some rows only.

        Raises:
            ValueError: names the first row without a label.
        """
        if None in self._codes and len(self._codes) > 1:
            row = int(np.argmax(self.codes == self._codes[None]))
            raise ValueError(f"{self.where(row)}: no label, but other rows have one. Label all or none.")


def lines_of(path: Path, *, newline: str | None = None) -> Iterator[tuple[int, str]]:
    """Lines of a text file with their numbers from 1.

    Args:
        path: file.
        newline: as in :func:`open`.

    Raises:
        ValueError: a line holds a NUL character or is longer than any list's, as in files of other content.
    """
    # utf-8-sig drops a byte-order mark; surrogateescape keeps file names that are not UTF-8 usable as paths.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
        for number in itertools.count(1):
            line = file.readline(LONGEST_LINE + 1)
            if not line:
                return
            if "\0" in line:
                raise ValueError(f"{path}, line {number}: holds a NUL character. Save the list as UTF-8 text.")
            if len(line) > LONGEST_LINE:
                raise ValueError(f"{path}, line {number}: longer than {LONGEST_LINE:,} characters. Is it a text list?")
            yield number, line


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Content of a JSON file.

    Args:
        path: file.
        object_hook: makes of each object what is kept of it.

    Raises:
        ValueError: not JSON, or not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            if file.read(LONGEST_LINE).lstrip()[:1] not in ("[", "{"):  # before gigabytes of something else are read
                raise ValueError("it begins with neither [ nor {")
            file.seek(0)
            return json.load(file, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file in UTF-8 ({shown(str(error))}).") from error


def shown(text: str) -> str:
    """Text for a message: on one line, without control characters, its middle left out where it is long."""
    text = text if text.isprintable() else repr(text)[1:-1]
    if len(text) <= LONGEST_SHOWN:
        return text
    return f"{text[: LONGEST_SHOWN // 2]}...{text[-LONGEST_SHOWN // 2 :]}"


def named(texts: Iterable[str]) -> str:
    """The first few of many, for a message."""
    first = list(itertools.islice(texts, NUM_NAMED_IN_ERROR + 1))
    return ", ".join(map(shown, first[:NUM_NAMED_IN_ERROR])) + (", ..." if len(first) > NUM_NAMED_IN_ERROR else "")
