"""Processes that read and encode videos for shards; a video that hangs or kills its process costs only itself."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

import av

from octvideo.data.probe import VideoBytes, VideoDecodeError, probe_video
from octvideo.data.shards.encode import encode_video
from octvideo.data.shards.reader import MAX_VIDEO_BYTES
from octvideo.data.timed_pool import answer_each
from octvideo.data.watchdog import ProcessDiedError, TimedOutError

__all__ = ["ListedVideo", "PackedVideo", "Recipe", "pack_each"]


@dataclass(frozen=True)
class Recipe:
    """What becomes of every video; see :func:`octvideo.data.shards.pack_videos`."""

    short_side: int
    gop: int
    quality: int
    copy: bool


class ListedVideo(NamedTuple):
    """One line of the list.

    Args:
        key: of its members in the shard.
        file: to read.
        path: as the index tells it.
        label: its class.
    """

    key: str
    file: str
    path: str
    label: int


@dataclass(frozen=True)
class PackedVideo:
    """A video as it goes into a shard.

    Args:
        ending: of its file's name.
        content: of its file.
        facts: what its ``json`` member says.
    """

    ending: str
    content: bytes
    facts: dict[str, Any]


def pack_each(
    videos: Sequence[ListedVideo], recipe: Recipe, num_workers: int, seconds: float
) -> Iterator[tuple[ListedVideo, PackedVideo | str]]:
    """Pack videos, in order: each with what goes into the shard or, where it cannot be read, with the reason.

    Args:
        videos: what to pack.
        recipe: what becomes of each.
        num_workers: processes; 0 works in this one, which nothing ends when a file hangs.
        seconds: time limit of a video.
    """
    pack = partial(_pack, recipe)
    if num_workers == 0:
        yield from ((video, pack(video)) for video in videos)
        return
    for video, packed in answer_each(videos, pack, num_workers, seconds, in_order=True, context=_context()):
        if isinstance(packed, TimedOutError):
            yield video, f"it {packed}. Pack into another folder with more time (timeout_seconds)"
        elif isinstance(packed, ProcessDiedError):
            yield video, f"the process that read it {packed}"
        elif isinstance(packed, Exception):
            raise packed
        else:
            yield video, packed


def _context() -> BaseContext:
    """Processes that share one server's imports, which take seconds; it has no threads, and so it may fork."""
    if "forkserver" not in get_all_start_methods():  # Windows
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _pack(recipe: Recipe, video: ListedVideo) -> PackedVideo | str:
    try:
        return _copy(video.file) if recipe.copy else _encode(video.file, recipe)
    except (VideoDecodeError, av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def _copy(path: str) -> PackedVideo:
    size = os.path.getsize(path)
    if size > MAX_VIDEO_BYTES:
        raise ValueError(f"{path}: is {size} bytes; {MAX_VIDEO_BYTES} is the most for a shard. Cut it into clips.")
    probe_video(path)  # says what a broken file lacks
    return _with_facts(Path(path).suffix.lower().removeprefix("."), path, Path(path).read_bytes())


def _encode(path: str, recipe: Recipe) -> PackedVideo:
    content = encode_video(path, short_side=recipe.short_side, gop=recipe.gop, quality=recipe.quality)
    return _with_facts("mp4", path, content)


def _with_facts(ending: str, path: str, content: bytes) -> PackedVideo:
    info = probe_video(VideoBytes(path, content))
    names = ("num_frames", "fps", "height", "width", "codec", "rotation_degrees")
    return PackedVideo(ending, content, {name: getattr(info, name) for name in names})
