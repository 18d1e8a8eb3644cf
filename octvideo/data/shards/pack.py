"""A list of videos becomes tar shards of small ones, a whole shard at a time, so that a broken-off call can go on."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO, Any

import torch

from octvideo.data.annotations import Annotations, read_annotations
from octvideo.data.shards.address import require_webdataset
from octvideo.data.shards.encode import check_encoder
from octvideo.data.shards.index import INDEX_FILE, Shard, ShardIndex, parse_index
from octvideo.data.shards.journal import Journal, Part, check_settings
from octvideo.data.shards.workers import ListedVideo, PackedVideo, Recipe, pack_each
from octvideo.files import replace_file

__all__ = ["UNREADABLE_FILE", "pack_videos"]

UNREADABLE_FILE = "unreadable.csv"
LEAST = {"short_side": 16, "gop": 1, "quality": 0, "shard_size": 1, "num_workers": 0}
MOST_QUALITY = 51


class _Hashed:
    """A file to write, of which a checksum is taken."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Write, and add to the checksum."""
        self.sha256.update(content)
        return self.file.write(content)


_Result = tuple[ListedVideo, PackedVideo | str]


def pack_videos(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    root: str | None = None,
    class_names: Sequence[str] | str | None = None,
    short_side: int = 256,
    gop: int = 16,
    quality: int = 23,
    copy: bool = False,
    shard_size: int = 256,
    num_workers: int | None = None,
    timeout_seconds: float = 1800.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ShardIndex:
    """Pack videos into tar shards; the same call again goes on where it was broken off.

    The videos come in a shuffled order, always the same one, so that each shard holds many classes. Those that cannot
    be read are left out and listed, with the reason, in ``unreadable.csv``.

    Args:
        source: list or folder of videos, see :func:`read_annotations`.
        folder: for the shards ``SOURCE-000000.tar``, ... and ``index.json``.
        root: folder that relative paths start from; None is the list's own folder.
        class_names: names, or a file of names; None takes them from the list.
        short_side: pixels that a larger frame's short side is scaled down to.
        gop: most frames from one keyframe to the next.
        quality: x264's constant rate factor, 0 (no loss) to 51; lower is better and larger.
        copy: take the files as they are; short_side, gop and quality play no role then.
        shard_size: videos of a shard.
        num_workers: processes that encode; 0 encodes in the main one, None takes one for each core.
        timeout_seconds: a video that takes longer is one that cannot be read; the main process has no such limit.
        progress: called with the number of videos that are done and of all.

    Returns:
        The index; its ``packed_with["num_unreadable"]`` counts the videos that could not be read.

    Raises:
        ValueError: an argument out of its range, or no video can be read.
        ImportError: webdataset is not installed.
        FileExistsError: the folder holds shards of another list or other settings.
    """
    num_workers = (os.cpu_count() or 1) if num_workers is None else num_workers
    recipe = Recipe(short_side, gop, quality, copy)
    if timeout_seconds <= 0:
        raise ValueError(f"timeout_seconds should be positive, but it is {timeout_seconds:g}.")
    _check_arguments(**asdict(recipe), shard_size=shard_size, num_workers=num_workers)
    require_webdataset()
    if not copy:
        check_encoder()
    annotations = read_annotations(source, root=root, class_names=class_names)
    videos = _shuffled(annotations, Path(source if root is None else root))
    made = asdict(recipe) | {"shard_size": shard_size, "videos": _digest(videos, annotations.class_names)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / INDEX_FILE).is_file():
        index = parse_index((folder / INDEX_FILE).read_bytes(), str(folder / INDEX_FILE))
        check_settings(folder, index.packed_with, made)
        return index
    journal = Journal(folder, made)
    packed = pack_each(videos[journal.num_done :], recipe, num_workers, timeout_seconds)
    results = _counted(packed, journal.num_done, len(videos), progress)
    prefix = re.sub("[^A-Za-z0-9_]+", "_", Path(source).resolve().stem) or "videos"
    while part := _write_part(folder / f"{prefix}-{len(journal.shards):06d}.tar", results, shard_size):
        journal.add(part)
    return _finish(folder, annotations.class_names, made, journal)


def _check_arguments(**values: int) -> None:
    for name, least in LEAST.items():
        if values[name] < least:
            raise ValueError(f"{name} should be at least {least}, but it is {values[name]}.")
    if values["quality"] > MOST_QUALITY:
        raise ValueError(f"quality should be at most {MOST_QUALITY}, but it is {values['quality']}.")


def _shuffled(annotations: Annotations, base: Path) -> list[ListedVideo]:
    order = torch.randperm(len(annotations), generator=torch.Generator().manual_seed(0)).tolist()
    videos = []
    for index in order:
        record = annotations.records[index]
        path = Path(os.path.relpath(record.path, base if base.is_dir() else base.parent))
        shown = record.path if ".." in path.parts else path.as_posix()
        videos.append(ListedVideo(f"{index:08d}", record.path, shown, record.label))
    return videos


def _digest(videos: Sequence[ListedVideo], class_names: Sequence[str]) -> str:
    """What tells this list from others, wherever it lies."""
    text = json.dumps([[(video.key, video.path, video.label) for video in videos], list(class_names)])
    return hashlib.sha256(text.encode()).hexdigest()


def _counted(
    results: Iterable[_Result], done: int, total: int, progress: Callable[[int, int], None]
) -> Iterator[_Result]:
    progress(done, total)
    for number, result in enumerate(results, start=done + 1):
        progress(number, total)
        yield result


def _write_part(path: Path, results: Iterator[_Result], size: int) -> Part | None:
    """Write the next shard of so many videos; None where no video is left."""
    from webdataset import TarWriter

    first = next(results, None)
    if first is None:
        return None
    good: list[ListedVideo] = []
    bad: list[tuple[str, str]] = []
    with replace_file(path) as file:
        hashed = _Hashed(file)
        with TarWriter(hashed, user="", group="", mode=0o644, mtime=0, encoder=False) as archive:
            for video, packed in chain([first], results):
                if isinstance(packed, str):
                    bad.append((video.path, packed))
                    continue
                good.append(video)
                archive.write(_members(video, packed))
                if len(good) == size:
                    break
        num_bytes = file.tell()
    keys, labels, paths = ([getattr(video, name) for video in good] for name in ("key", "label", "path"))
    if not good:
        path.unlink()
    shard = Shard(path.name, num_bytes, keys, labels, paths, hashed.sha256.hexdigest()) if good else None
    return Part(shard, len(good) + len(bad), bad)


def _members(video: ListedVideo, packed: PackedVideo) -> dict[str, Any]:
    facts = json.dumps({"path": video.path} | packed.facts).encode()
    return {"__key__": video.key, packed.ending: packed.content, "cls": b"%d" % video.label, "json": facts}


def _finish(folder: Path, class_names: Sequence[str], made: dict[str, Any], journal: Journal) -> ShardIndex:
    """Write the list of unreadable videos and, last, the index."""
    unreadable = journal.unreadable
    if unreadable:
        with open(folder / UNREADABLE_FILE, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file).writerows([("path", "reason"), *unreadable])
    if not journal.shards:
        raise ValueError(f"none of the {len(unreadable)} videos can be read; the first: {unreadable[0][1]}")
    index = ShardIndex(tuple(class_names), tuple(journal.shards), made | {"num_unreadable": len(unreadable)})
    with replace_file(folder / INDEX_FILE) as file:
        file.write(index.to_json().encode())
    journal.path.unlink()
    return index
