"""Processes that read and encode videos for shards; a video that kills its process costs only itself."""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import av

from octvideo.data.probe import VideoBytes, VideoDecodeError, probe_video
from octvideo.data.shards.encode import encode_video
from octvideo.data.shards.reader import MAX_VIDEO_BYTES

__all__ = ["PackedVideo", "Recipe", "pack_each"]

VIDEOS_AHEAD = 4  # for each process
KILLED = "the process that read it was killed: FFmpeg failed, or memory ran out"


@dataclass(frozen=True)
class Recipe:
    """What becomes of every video; see :func:`octvideo.data.shards.pack_videos`."""

    short_side: int
    gop: int
    quality: int
    copy: bool


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


def pack_each(paths: Sequence[str], recipe: Recipe, num_workers: int) -> Iterator[tuple[str, PackedVideo | str]]:
    """Pack videos: each path with its video or, where it cannot be read, with the reason, in order.

    Args:
        paths: files.
        recipe: what becomes of each.
        num_workers: processes; 0 works in this one.
    """
    if num_workers == 0:
        yield from ((path, _pack(path, recipe)) for path in paths)
        return
    todo = deque(paths)
    while todo:
        with _processes(num_workers) as executor:
            begun: deque[tuple[str, Future[PackedVideo | str]]] = deque()
            try:
                while todo or begun:
                    while todo and len(begun) < VIDEOS_AHEAD * num_workers:
                        begun.append((todo[0], executor.submit(_pack, todo[0], recipe)))  # which may find it broken
                        todo.popleft()
                    yield begun[0][0], begun[0][1].result()
                    begun.popleft()
            except BrokenProcessPool:
                # One of those that were begun did it: each gets a process of its own.
                yield from ((path, _pack_alone(path, recipe)) for path, _ in begun)
            finally:
                executor.shutdown(cancel_futures=True)


def _processes(number: int) -> ProcessPoolExecutor:
    """Processes that share one server's imports, which take seconds; it has no threads, and so it may fork."""
    if "forkserver" not in get_all_start_methods():  # Windows
        return ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=_begin)
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(number, mp_context=context, initializer=_begin)


def _begin() -> None:
    """An interrupt is the parent's to handle, and its death is this process's end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _pack_alone(path: str, recipe: Recipe) -> PackedVideo | str:
    with _processes(1) as executor:
        try:
            return executor.submit(_pack, path, recipe).result()
        except BrokenProcessPool:
            return KILLED


def _pack(path: str, recipe: Recipe) -> PackedVideo | str:
    try:
        return _copy(path) if recipe.copy else _encode(path, recipe)
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
