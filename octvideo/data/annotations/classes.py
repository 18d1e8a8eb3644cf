"""Names of classes, and which number a label has among them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octvideo.data.annotations.records import NO_LABEL
from octvideo.data.annotations.rows import Rows, lines_of, named, read_json, shown

__all__ = ["CLASS_LISTS", "STHV2_CLASSES", "UCF_CLASSES", "label_indices", "read_class_names", "resolve_class_names"]

CLASS_LISTS = ("kinetics400", "kinetics600", "kinetics700", "ucf101", "hmdb51", "sthv2")
CLASS_FOLDER = Path(__file__).parent / "class_names"
CLASSES_FILE = "classes.txt"
UCF_CLASSES = "classInd.txt"
STHV2_CLASSES = ("labels.json", "something-something-v2-labels.json")
MOST_NUMBERED_CLASSES = 100_000  # a number above is a mistake, and would make as many names
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
# What would break lines and terminals, and bytes that are not UTF-8, which results could not be written with.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def resolve_class_names(rows: Rows, class_names: Sequence[str] | str | os.PathLike[str] | None) -> tuple[str, ...]:
    """Names of a list's classes in their order, see :func:`read_annotations`.

    Raises:
        FileNotFoundError: the file of class names does not exist.
        ValueError: no name or a repeated one, more than 100,000 numbered classes, or no labels to take names from.
    """
    beside = rows.source.parent / CLASSES_FILE
    if class_names is None and not rows.source.is_dir() and beside.is_file():
        class_names = beside
    if class_names is None:
        class_names = rows.class_file
    if class_names is not None:
        return read_class_names(class_names)
    names = rows.class_names or _derive(rows)
    _check(str(rows.source), names)
    return names


def read_class_names(class_names: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Names that are given: as they are, in a file, or as the name of a list that comes along.

    Raises:
        FileNotFoundError: the file of class names does not exist.
        ValueError: no name or a repeated one.
    """
    if isinstance(class_names, str) and class_names in CLASS_LISTS:
        origin, names = class_names, _shipped(class_names)
    elif isinstance(class_names, str | os.PathLike):
        origin, names = str(class_names), _read_file(Path(class_names))
    else:
        origin, names = "class_names", tuple(str(name) for name in class_names)
    _check(origin, names)
    return names


def label_indices(rows: Rows, names: tuple[str, ...]) -> np.ndarray:
    """Number of each row's class, -1 without a label; int32, (number of rows,).

    Labels are names, as they are or with underscores for spaces; if none of that fits all of them, and all are whole
    numbers, they are positions. Names and numbers are never mixed: with classes "1", "2", "3", a list of 0, 1, 2
    holds positions throughout.

    Raises:
        ValueError: a label fits no class; the message names its row.
    """
    position: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    for index, name in enumerate(names):
        position.setdefault(name.replace(" ", "_"), index)
    position[None] = NO_LABEL
    labels = rows.labels
    numbers = [position.get(label) for label in labels]
    by_number = None in numbers and all(label is not None and WHOLE_NUMBER.fullmatch(label) for label in labels)
    if by_number:
        numbers = [index if 0 <= (index := int(label or "")) < len(names) else None for label in labels]
    if None in numbers:
        unknown = [code for code, number in enumerate(numbers) if number is None]
        row = int(np.argmax(np.isin(rows.codes, unknown)))
        raise ValueError(f"{rows.where(row)}: {_why_unknown(rows.label(row) or '', names, by_number)}")
    return np.array(numbers, dtype=np.int32)[rows.codes]


def _why_unknown(label: str, names: tuple[str, ...], by_number: bool) -> str:
    if not by_number:
        return (
            f"label '{shown(label)}' is not one of the {len(names)} class names ({named(list(names))}). "
            "Correct the label, or give class_names that include it."
        )
    way_out = ", or give class_names that include it" if int(label) > 0 else ""
    return (
        f"label {int(label)} is out of range; with {len(names)} class(es), labels go from 0 to {len(names) - 1}. "
        f"Correct the label{way_out}."
    )


def _check(origin: str, names: tuple[str, ...]) -> None:
    if not names:
        raise ValueError(f"{origin}: no class names are given. Write one name a line, or leave class_names out.")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"{origin}: class names should differ, but '{shown(repeated[0])}' appears twice.")
    broken = next((name for name in names if UNPRINTABLE.search(name)), None)
    if broken is not None:
        fault = f"class name '{shown(broken)}' holds control characters or bytes that are not UTF-8"
        raise ValueError(f"{origin}: {fault}. Correct it.")


def _shipped(name: str) -> tuple[str, ...]:
    return _read_file(CLASS_FOLDER / f"{name}.txt")


def _read_file(path: Path) -> tuple[str, ...]:
    """Names, one a line; also UCF101's classInd.txt and Something-Something's labels.json."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file of class names. Give a file with one name a line, the names, or one of "
            f"{', '.join(CLASS_LISTS)}."
        )
    if path.suffix.lower() == ".json":
        return _in_order(path, _json_numbers(path))
    lines = [text for _, line in lines_of(path) if (text := line.strip())]
    if path.name == UCF_CLASSES:
        pairs = [line.partition(" ")[::2] for line in lines]
        return _in_order(path, {name.strip(): _number(number, first=1) for number, name in pairs})
    return tuple(lines)


def _json_numbers(path: Path) -> dict[str, int]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: should hold an object of names and numbers, as Something-Something's labels.json.")
    return {name: _number(number, first=0) for name, number in content.items()}


def _number(number: object, *, first: int) -> int:
    """Position that a number written in a file stands for; -1 where it is none."""
    text = str(number)
    return int(text) - first if WHOLE_NUMBER.fullmatch(text) else -1


def _in_order(path: Path, position: dict[str, int]) -> tuple[str, ...]:
    if sorted(position.values()) != list(range(len(position))):
        raise ValueError(f"{path}: classes should be numbered one after the other, each with a number of its own.")
    return tuple(sorted(position, key=position.__getitem__))


def _derive(rows: Rows) -> tuple[str, ...]:
    """Names from the labels."""
    labels = [label for label in rows.labels if label is not None]
    if not labels:
        raise ValueError(
            f"{rows.source}: has no labels, so its classes are not known. Give class_names, a file or one of "
            f"{', '.join(CLASS_LISTS)}."
        )
    known = _known(set(labels), rows.class_lists)
    if known is not None:
        return known
    if not all(map(WHOLE_NUMBER.fullmatch, labels)):
        return tuple(sorted(labels))
    # A negative label is left for the range check, which can name its line.
    largest = max(0, *map(int, labels))
    if largest >= MOST_NUMBERED_CLASSES:
        raise ValueError(
            f"{rows.source}: label {largest} stands for {largest + 1:,} classes, more than {MOST_NUMBERED_CLASSES:,}. "
            "Correct it, or give class_names."
        )
    return tuple(str(index) for index in range(largest + 1))


def _known(labels: set[str], candidates: Sequence[str]) -> tuple[str, ...] | None:
    """The shipped list that has all the labels, and of whose classes nine tenths occur; never more than one does."""
    for candidate in candidates:
        names = _shipped(candidate)
        if labels <= set(names) and 10 * len(labels) >= 9 * len(names):
            return names
    return None
