"""Lists of labelled videos: text lists, CSV files and folders become records with a label index."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["VIDEO_EXTENSIONS", "Annotations", "VideoRecord", "read_annotations", "resolve_class_names"]

VIDEO_EXTENSIONS = (
    ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".ts",
)  # fmt: skip

CLASSES_FILE = "classes.txt"
NUM_NAMED_IN_ERROR = 3


@dataclass(frozen=True)
class VideoRecord:
    """One video.

    Args:
        path: file to decode.
        label: index of its class; None where it is not known, as for prediction.
    """

    path: str
    label: int | None


@dataclass(frozen=True)
class Annotations:
    """A data set: its videos and the names of its classes.

    Args:
        records: the videos in the order of their source.
        class_names: name of class ``i`` at position ``i``.
    """

    records: tuple[VideoRecord, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.records)

    @property
    def num_classes(self) -> int:
        """Number of classes, those without a video included."""
        return len(self.class_names)


@dataclass(frozen=True)
class _Entry:
    """One line of a source before its label has a number; where says which line, for errors."""

    path: str
    label: str
    where: str


def read_annotations(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
) -> Annotations:
    """Read a labelled list of videos.

    Args:
        source: one of

            - a text file with one ``path label`` a line; the label is the last word, so paths may hold spaces;
              blank lines and lines that begin with ``#`` are skipped;
            - a ``.csv`` file whose header names the columns ``path`` and ``label``;
            - a folder with one sub-folder of videos per class.
        root: folder that relative paths start from; None is the folder of the list.
        class_names: the names, or a file with one name a line. None takes the sub-folders' names, a ``classes.txt``
            beside the list, the sorted labels, or for whole-number labels ``"0"`` to the largest. Labels are matched
            to the names first; labels that are not names but whole numbers are positions in them.

    Raises:
        FileNotFoundError: the source, the file of class names or a listed video does not exist.
        ValueError: a line without a label, an unknown label or one out of range, an empty list, a repeated class name.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such list or folder of videos. Check the path to the annotations.")
    entries = _read_entries(source)
    names = resolve_class_names(source, entries, class_names)
    folder = Path(root) if root is not None else (source if source.is_dir() else source.parent)
    labels = _label_indices(entries, names)
    records = tuple(
        VideoRecord(os.path.join(folder, entry.path), label) for entry, label in zip(entries, labels, strict=True)
    )
    _check_files(source, records)
    return Annotations(records, names)


def _read_entries(source: Path) -> list[_Entry]:
    if source.is_dir():
        entries = _read_folder(source)
        hint = f"Put videos ({', '.join(VIDEO_EXTENSIONS)}) in one sub-folder per class."
    elif source.suffix.lower() == ".csv":
        entries = _read_csv(source)
        hint = "Add rows under the header path,label."
    else:
        entries = _read_text(source)
        hint = "Add lines of the form: path label."
    if not entries:
        raise ValueError(f"{source}: no videos are listed. {hint}")
    return entries


def _read_lines(path: Path) -> list[str]:
    # utf-8-sig drops a byte-order mark; surrogateescape keeps file names that are not UTF-8 usable as paths.
    return path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()


def _read_text(source: Path) -> list[_Entry]:
    entries = []
    for number, line in enumerate(_read_lines(source), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        words = text.rsplit(maxsplit=1)
        # "my clip.mp4" has two words and still no label.
        if len(words) < 2 or words[1].lower().endswith(VIDEO_EXTENSIONS):
            raise ValueError(f"{source}, line {number}: no label in {text!r}. Write: path label.")
        entries.append(_Entry(words[0], words[1], f"{source}, line {number}"))
    return entries


def _read_csv(source: Path) -> list[_Entry]:
    with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        if "path" not in header or "label" not in header:
            found = ",".join(header)
            raise ValueError(f"{source}, line 1: the header should name the columns path and label, not {found!r}.")
        reader.fieldnames = header
        entries = []
        for row in reader:
            where = f"{source}, line {reader.line_num}"
            path, label = ((row[key] or "").strip() for key in ("path", "label"))
            if not path or not label:
                raise ValueError(f"{where}: no {'path' if not path else 'label'} in this row. Fill both columns.")
            entries.append(_Entry(path, label, where))
    return entries


def _read_folder(source: Path) -> list[_Entry]:
    return [
        _Entry(os.path.join(folder.name, file.name), folder.name, str(folder / file.name))
        for folder in _class_folders(source)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in VIDEO_EXTENSIONS and not file.name.startswith(".")
    ]


def _class_folders(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))


def resolve_class_names(
    source: Path, entries: Sequence[_Entry], class_names: Sequence[str] | str | os.PathLike[str] | None
) -> tuple[str, ...]:
    """The class names that are given, or those that the source tells; arguments as in :func:`read_annotations`."""
    beside = source.parent / CLASSES_FILE
    if class_names is None and source.is_file() and beside.is_file():
        class_names = beside
    if class_names is None:
        return _derive_class_names(source, entries)
    if isinstance(class_names, str | os.PathLike):
        origin, names = str(class_names), _read_class_names(Path(class_names))
    else:
        origin, names = "class_names", tuple(str(name) for name in class_names)
    if not names:
        raise ValueError(f"{origin}: no class names are given. Write one name a line, or leave class_names out.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{origin}: class names should differ, but {', '.join(map(repr, repeated))} appears twice.")
    return names


def _read_class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of class names. Give a file with one name a line, or the names.")
    return tuple(name for name in (line.strip() for line in _read_lines(path)) if name)


def _derive_class_names(source: Path, entries: Sequence[_Entry]) -> tuple[str, ...]:
    if source.is_dir():
        return tuple(folder.name for folder in _class_folders(source))
    numbers = [_whole_number(entry.label) for entry in entries]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return tuple(sorted({entry.label for entry in entries}))
    # A negative label is left for the range check, which can name its line.
    return tuple(str(index) for index in range(max(0, *known) + 1))


def _whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _label_indices(entries: Sequence[_Entry], names: tuple[str, ...]) -> list[int]:
    position = {name: index for index, name in enumerate(names)}
    if all(entry.label in position for entry in entries):
        return [position[entry.label] for entry in entries]
    # Names and numbers are never mixed: with classes "1", "2", "3", a list of 0, 1, 2 holds positions throughout.
    by_number = all(_whole_number(entry.label) is not None for entry in entries)
    return [_position(entry, len(names)) if by_number else _match(entry, position) for entry in entries]


def _position(entry: _Entry, num_classes: int) -> int:
    index = int(entry.label)
    if not 0 <= index < num_classes:
        raise ValueError(
            f"{entry.where}: label {index} is out of range; with {num_classes} class(es), labels go from 0 to "
            f"{num_classes - 1}. Correct the label{', or give class_names that include it' if index > 0 else ''}."
        )
    return index


def _match(entry: _Entry, position: dict[str, int]) -> int:
    if entry.label not in position:
        shown = ", ".join(list(position)[:NUM_NAMED_IN_ERROR]) + (", ..." if len(position) > NUM_NAMED_IN_ERROR else "")
        raise ValueError(
            f"{entry.where}: label {entry.label!r} is not one of the {len(position)} class names ({shown}). "
            "Correct the label, or give class_names that include it."
        )
    return position[entry.label]


def _check_files(source: Path, records: Sequence[VideoRecord]) -> None:
    missing = [record.path for record in records if not os.path.isfile(record.path)]
    if missing:
        shown = ", ".join(missing[:NUM_NAMED_IN_ERROR]) + (", ..." if len(missing) > NUM_NAMED_IN_ERROR else "")
        raise FileNotFoundError(
            f"{source}: {len(missing)} of {len(records)} listed videos do not exist: {shown}. "
            "Relative paths start from root (by default the list's folder)."
        )
