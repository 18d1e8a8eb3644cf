"""Plain lists: text files, folders of classes, and CSV files, Kinetics' own among them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from octvideo.data.annotations.files import VIDEO_EXTENSIONS
from octvideo.data.annotations.rows import Rows, lines_of, shown

__all__ = ["read_csv", "read_folder", "read_text"]

PATH_COLUMNS = ("path", "label")
KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
KINETICS_LISTS = ("kinetics400", "kinetics600", "kinetics700")
SECONDS = re.compile(r"([0-9]{1,9})(?:\.0*)?")


def read_text(source: Path, folder: str) -> Rows:
    """Lines of the form ``path label``; relative paths start from folder."""
    rows = Rows(source, "lines of the form: path label")
    for number, line in lines_of(source):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        words = text.rsplit(maxsplit=1)
        # "my clip.mp4" has two words and still no label.
        if len(words) < 2 or words[1].lower().endswith(VIDEO_EXTENSIONS):
            raise ValueError(f"{source}, line {number}: no label in '{shown(text)}'. Write: path label.")
        rows.add(os.path.join(folder, words[0]), words[1], number)
    return rows


def read_csv(source: Path, folder: str) -> Rows:
    """A table under a header that names the columns ``path,label``, or the columns of Kinetics' files."""
    table = _csv_rows(source)
    _, header = next(table, (1, []))
    columns = {name.strip().lower(): place for place, name in enumerate(header)}
    if all(name in columns for name in PATH_COLUMNS):
        return _read_paths(source, folder, table, columns)
    if all(name in columns for name in KINETICS_COLUMNS):
        return _read_kinetics(source, table, columns)
    raise ValueError(
        f"{source}, line 1: the header should name the columns path and label, not '{shown(','.join(header))}' "
        f"(or be that of Kinetics: label,{','.join(KINETICS_COLUMNS)}). A list of 'path label' lines is a .txt file."
    )


def read_folder(source: Path) -> Rows:
    """Videos in one sub-folder per class."""
    classes = sorted(entry.name for entry in _visible(source) if entry.is_dir())
    rows = Rows(
        source, f"videos ({', '.join(VIDEO_EXTENSIONS)}) in one sub-folder per class", class_names=tuple(classes)
    )
    for name in classes:
        files = (entry.name for entry in _visible(source / name) if entry.name.lower().endswith(VIDEO_EXTENSIONS))
        for file in sorted(files):
            rows.add(os.path.join(source, name, file), name)
    return rows


def _csv_rows(source: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the number of their last line."""
    # strict: a quote that is never closed would swallow the rows after it.
    reader = csv.reader((line for _, line in lines_of(source, newline="")), skipinitialspace=True, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{source}, line {reader.line_num}: not a row of a CSV file ({error}).") from error
        if row is None:
            return
        if row:
            yield reader.line_num, row


def _cells(row: Sequence[str], columns: dict[str, int], names: Sequence[str], where: str) -> list[str]:
    """Cells of the named columns, none of them empty."""
    cells = [row[columns[name]].strip() if columns[name] < len(row) else "" for name in names]
    if not all(cells):
        raise ValueError(f"{where}: no {names[cells.index('')]} in this row. Fill the columns {', '.join(names)}.")
    return cells


def _read_paths(source: Path, folder: str, table: Iterator[tuple[int, list[str]]], columns: dict[str, int]) -> Rows:
    rows = Rows(source, "rows under its header")
    for number, row in table:
        path, label = _cells(row, columns, PATH_COLUMNS, f"{source}, line {number}")
        rows.add(os.path.join(folder, path), label, number)
    return rows


def _read_kinetics(source: Path, table: Iterator[tuple[int, list[str]]], columns: dict[str, int]) -> Rows:
    """Kinetics' own form; a file is named by the video's id and the seconds where the clip starts and ends."""
    rows = Rows(source, "rows under its header", find_by_name=True, class_lists=KINETICS_LISTS)
    is_labelled = "label" in columns  # test lists are not
    names = (*KINETICS_COLUMNS, "label") if is_labelled else KINETICS_COLUMNS
    for number, row in table:
        where = f"{source}, line {number}"
        cells = _cells(row, columns, names, where)
        start, end = (_seconds(text, where) for text in cells[1:3])
        rows.add(f"{cells[0]}_{start:06d}_{end:06d}", cells[3] if is_labelled else None, number)
    return rows


def _seconds(text: str, where: str) -> int:
    match = SECONDS.fullmatch(text)
    if match is None:
        raise ValueError(f"{where}: times should be whole seconds, not '{shown(text)}'.")
    return int(match[1])


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))
