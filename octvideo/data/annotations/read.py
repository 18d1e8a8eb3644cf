"""One function for every form of list: what is listed, what it is called, and whether it is there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octvideo.data.annotations.classes import label_indices, resolve_class_names
from octvideo.data.annotations.files import VIDEO_EXTENSIONS, find_videos, is_present
from octvideo.data.annotations.lists import read_csv, read_folder, read_text
from octvideo.data.annotations.official import HMDB_FILE, UCF_LIST, find_hmdb_files, read_hmdb, read_sthv2, read_ucf
from octvideo.data.annotations.packed import PackedStrings
from octvideo.data.annotations.records import Annotations, VideoRecords
from octvideo.data.annotations.rows import Rows, named

__all__ = ["read_annotations"]

MISSING = ("error", "skip", "keep")


def read_annotations(
    source: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    missing: str = "error",
) -> Annotations:
    """Read a labelled list of videos.

    A list only names files to be read as video, with absolute paths anywhere on this machine; no content of it is run.

    Args:
        source: one of

            - a text file with one ``path label`` a line; the label is the last word, so paths may hold spaces;
              blank lines and lines that begin with ``#`` are skipped;
            - a ``.csv`` file whose header names the columns ``path`` and ``label``;
            - a folder with one sub-folder of videos per class;
            - Kinetics: an official ``.csv`` file, known by its columns ``youtube_id,time_start,time_end``;
            - Something-Something V2: an official ``.json`` file of ids and templates;
            - UCF101: ``trainlist01.txt`` to ``testlist03.txt``, known by these names;
            - HMDB51: ``FOLDER/train_split1`` to ``FOLDER/test_split3``, where FOLDER holds the official files, one per
              class and split, such as ``wave_test_split1.txt``.

            The official lists' videos are looked for below root by their names (for Kinetics
            ``{youtube_id}_{start:06d}_{end:06d}``), in any folder and with any video extension; of several files of
            one name the one in a folder of the label's name is taken. Test lists without labels give records without.
        root: folder that relative paths start from, and that official lists' videos lie below; None is the folder of
            the list.
        class_names: the names; a file with one name a line, or UCF101's ``classInd.txt`` or Something-Something's
            ``labels.json``; or a list that comes along: kinetics400, kinetics600, kinetics700, ucf101, hmdb51 or sthv2.
            None takes a ``classes.txt`` (``classInd.txt``, ``labels.json``) beside the list, the sub-folders' names,
            the sorted labels, or for whole-number labels ``"0"`` to the largest. An official list that has
            nine tenths of the classes of its data set's list above, and no others, takes that list. Labels are
            matched to the names first, as they are or with underscores for spaces; labels that are not names but
            whole numbers are positions in them.
        missing: what becomes of listed videos that do not exist: "error", "skip" to leave them out, named in
            ``Annotations.missing``, or "keep" to list them all the same.

    Raises:
        FileNotFoundError: the source, the file of class names or a listed video does not exist; under "skip", none of
            the listed videos does.
        ValueError: a line without a label, an unknown label or one out of range, an empty list, a repeated class name,
            or a file that is no such list.
    """
    if missing not in MISSING:
        raise ValueError(f"missing should be one of {', '.join(MISSING)}, but it is {missing!r}.")
    source = Path(source)
    folder = os.fspath(source.parent if root is None else root)
    rows = _read_rows(source, folder)
    if not rows:
        raise ValueError(f"{source}: no videos are listed. Add {rows.hint}.")
    rows.check_all_or_none_labelled()
    names = resolve_class_names(rows, class_names)
    labels = label_indices(rows, names)
    paths, present = find_videos(rows, folder) if rows.find_by_name else _existing(rows.names.packed())
    if missing == "keep":
        return Annotations(VideoRecords(_listed(rows, paths, present, folder), labels), names)
    absent = rows.names.packed().take(np.flatnonzero(~present))
    if absent and (missing == "error" or len(absent) == len(rows)):
        raise FileNotFoundError(_why_missing(rows, absent, folder))
    return Annotations(VideoRecords(paths, labels[present]), names, absent)


def _read_rows(source: Path, folder: str) -> Rows:
    kind = source.suffix.lower()
    if hmdb_files := find_hmdb_files(source):
        return read_hmdb(source, hmdb_files)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such list or folder of videos. Check the path to the annotations.")
    if source.is_dir():
        return read_folder(source)
    if not source.is_file() or kind in VIDEO_EXTENSIONS:
        raise ValueError(f"{source}: not a list of videos. Give a list, or a folder with one sub-folder per class.")
    if match := HMDB_FILE.fullmatch(source.name):
        lists = " or ".join(str(source.parent / f"{part}_split{match['split']}") for part in ("train", "test"))
        raise ValueError(f"{source}: is one class's part of HMDB51's lists. Give {lists}, which stand for all of them.")
    if UCF_LIST.fullmatch(source.name):
        return read_ucf(source)
    if kind == ".json":
        return read_sthv2(source)
    return read_csv(source, folder) if kind == ".csv" else read_text(source, folder)


def _existing(paths: PackedStrings) -> tuple[PackedStrings, np.ndarray]:
    """The paths that are files, and for each path whether it is."""
    present = is_present(paths)
    return (paths if present.all() else paths.take(np.flatnonzero(present))), present


def _listed(rows: Rows, paths: PackedStrings, present: np.ndarray, folder: str) -> PackedStrings:
    """Path of every row; of a video that is looked for by name and not there, its name below the folder."""
    if not rows.find_by_name:
        return rows.names.packed()
    found, names = iter(paths), rows.names.packed()
    return PackedStrings(
        next(found) if there else os.path.join(folder, name) for there, name in zip(present, names, strict=True)
    )


def _why_missing(rows: Rows, absent: PackedStrings, folder: str) -> str:
    counts = f"{len(absent):,} of {len(rows):,} listed videos"
    if rows.find_by_name:
        fault, way_out = f"are not below {folder}", "Give root, the folder that holds the videos"
    else:
        fault, way_out = "do not exist", "Relative paths start from root (by default the list's folder)"
    leave_out = "" if len(absent) == len(rows) else "; missing 'skip' leaves out what does not exist"
    return f"{rows.source}: {counts} {fault}: {named(absent)}. {way_out}{leave_out}."
