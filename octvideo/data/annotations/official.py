"""Official lists that are no CSV files: those of Something-Something V2, UCF101 and HMDB51."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from octvideo.data.annotations.classes import STHV2_CLASSES, UCF_CLASSES
from octvideo.data.annotations.rows import Rows, lines_of, read_json, shown

__all__ = ["HMDB_FILE", "UCF_LIST", "find_hmdb_files", "read_hmdb", "read_sthv2", "read_ucf"]

UCF_LIST = re.compile(r"(train|test)list0[1-3]\.txt")
UCF_LINE = re.compile(r"(?P<label>[^/]+)/(?P<name>[^/]+)\.\w+(?:\s+(?P<number>[0-9]{1,9}))?")
HMDB_FILE = re.compile(r"(?P<label>.+)_test_split(?P<split>[1-3])\.txt")
HMDB_LIST = re.compile(r"(?P<part>train|test)_split(?P<split>[1-3])")
HMDB_FLAGS = {"train": "1", "test": "2"}  # a video of flag 0 is in neither part
HMDB_LINE = re.compile(r"(?P<name>.+)\.\w+\s+(?P<flag>[012])")


class _Entry(NamedTuple):
    """What is kept of an object in Something-Something's lists."""

    id: Any
    template: Any
    has_label: bool


def read_sthv2(source: Path) -> Rows:
    """Something-Something V2: a JSON list of objects with an id, the file's name, and a template, but in test lists.

    The templates' brackets, as in "Closing [something]", are left out, as they are in the classes' names.
    """
    class_file = next((path for name in STHV2_CLASSES if (path := source.parent / name).is_file()), None)
    rows = Rows(
        source,
        "objects with id and template",
        unit="entry",
        find_by_name=True,
        class_file=class_file,
        class_lists=("sthv2",),
    )
    # Objects become small tuples while they are read: placeholders and sentences are never all in memory.
    entries = read_json(source, lambda o: _Entry(o.get("id"), o.get("template"), "label" in o))
    if not isinstance(entries, list):
        raise ValueError(f"{source}: should hold a list of objects with id and template (Something-Something V2).")
    for number, entry in enumerate(entries, start=1):
        where = f"{source}, entry {number}"
        if not isinstance(entry, _Entry) or type(entry.id) not in (str, int):
            raise ValueError(f"{where}: should be an object with an id (Something-Something V2).")
        if not isinstance(entry.template, str | None) or (entry.template is None and entry.has_label):
            raise ValueError(f"{where}: no template. Something-Something V2 has one in each object with a label.")
        label = None if entry.template is None else entry.template.replace("[", "").replace("]", "").strip()
        rows.add(str(entry.id), label, number)
    return rows


def read_ucf(source: Path) -> Rows:
    """UCF101: ``Class/v_Class_g01_c01.avi 1`` a line; test lists leave out the class's number, which starts from 1."""
    class_file = path if (path := source.parent / UCF_CLASSES).is_file() else None
    hint = "lines of the form: Class/video.avi 1"
    rows = Rows(source, hint, find_by_name=True, class_file=class_file, class_lists=("ucf101",))
    number_of: dict[str, str] = {}
    label_of: dict[str, str] = {}
    for number, line in lines_of(source):
        text = line.strip()
        match = UCF_LINE.fullmatch(text)
        if match is None and text:
            raise ValueError(
                f"{source}, line {number}: '{shown(text)}' is not of UCF101's form, Class/video.avi and a number. "
                "Give a list of your own another name."
            )
        if match is None:
            continue
        label, class_number = match["label"], match["number"]
        if class_number is not None:
            same = number_of.setdefault(label, class_number) == class_number
            if not same or label_of.setdefault(class_number, label) != label or int(class_number) < 1:
                raise ValueError(
                    f"{source}, line {number}: number {class_number} does not fit class '{shown(label)}': in UCF101's "
                    "lists each class has one number, from 1. Give a list of your own another name."
                )
        rows.add(match["name"], label, number)
    return rows


def find_hmdb_files(source: Path) -> dict[str, Path]:
    """HMDB51's files, by class, that a list such as SPLITS/train_split1 stands for; empty where it is no such list."""
    list_name = HMDB_LIST.fullmatch(source.name)
    if list_name is None or source.exists() or not source.parent.is_dir():
        return {}
    matches = map(HMDB_FILE.fullmatch, sorted(os.listdir(source.parent)))
    return {m["label"]: source.parent / m[0] for m in matches if m and m["split"] == list_name["split"]}


def read_hmdb(source: Path, files: dict[str, Path]) -> Rows:
    """HMDB51: a file per class, with ``video.avi 1`` for training, 2 for test and 0 for neither in its lines."""
    flag = HMDB_FLAGS[source.name.partition("_")[0]]
    rows = Rows(source, f"lines of the form: video.avi {flag}", find_by_name=True, class_names=tuple(files))
    for label, path in files.items():
        for number, line in lines_of(path):
            text = line.strip()
            match = HMDB_LINE.fullmatch(text)
            if match is None and text:
                raise ValueError(
                    f"{path}, line {number}: '{shown(text)}' is not of HMDB51's form, video.avi and 0, 1 or 2."
                )
            if match is not None and match["flag"] == flag:
                rows.add(match["name"], label)
    return rows
