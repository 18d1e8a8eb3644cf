"""Open and decode every file of a list, in parallel, so that training meets no file for the first time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av

from octvideo.data.decode import seeks_exactly
from octvideo.data.probe import (
    VideoDecodeError,
    VideoInfo,
    forget_videos,
    numbered_frames,
    open_video,
    probe_video,
    short_reason,
    video_stream,
)
from octvideo.data.scan.lock import only_scan
from octvideo.data.scan.manifest import (
    Manifest,
    ManifestEntry,
    append_entry,
    drop_torn_line,
    file_state,
    write_manifest,
)
from octvideo.data.timed_pool import answer_each
from octvideo.data.watchdog import ProcessDiedError, TimedOutError

__all__ = ["scan_file", "scan_videos"]

Progress = Callable[[int, int], None]
"""Called at the start and after each file with the number of files that are done, and that of all."""


def scan_videos(
    paths: Iterable[str],
    manifest: str | os.PathLike[str],
    *,
    num_workers: int = 2,
    timeout_seconds: float = 300.0,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Scan videos into a manifest, each in a process that is killed when it takes too long.

    Files that the manifest has with their present size and time are left out, unless an earlier scan of them crashed or
    had less time. Each file's line is written when it is done: a scan that was broken off, or killed, goes on there.

    Args:
        paths: video files, which may be missing.
        manifest: CSV file to make or to complete.
        num_workers: processes.
        timeout_seconds: time limit of a file.
        progress: called as work goes on.

    Raises:
        ValueError: num_workers or timeout_seconds is not positive, the file is no manifest, or another scan writes it.
    """
    if num_workers < 1 or timeout_seconds <= 0:
        raise ValueError(
            f"num_workers and timeout_seconds should be positive, but are {num_workers} and {timeout_seconds:g}."
        )
    target = Path(manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(map(os.path.abspath, paths)))
    with only_scan(target):
        return _complete(target, names, num_workers, timeout_seconds, progress)


def _complete(
    target: Path, names: Sequence[str], num_workers: int, timeout_seconds: float, progress: Progress
) -> Manifest:
    """Scan what a manifest does not know."""
    drop_torn_line(target)
    known = Manifest(target)
    entries = ((name, known.entry(name)) for name in names)
    waiting = [name for name, entry in entries if entry is None or _is_stale(entry, timeout_seconds)]
    done = len(names) - len(waiting)
    progress(done, len(names))
    with open(target, "ab", buffering=0) as file:
        for path, answer in answer_each(waiting, scan_file, num_workers, timeout_seconds):
            append_entry(file, _entry(path, answer, timeout_seconds))
            done += 1
            progress(done, len(names))
    result = Manifest(target)
    if result.has_superseded_lines:
        write_manifest(target, result.entries())
        result = Manifest(target)
    return result


def _is_stale(entry: ManifestEntry, timeout_seconds: float) -> bool:
    had_less_time = entry.status == "timed out" and entry.seconds < timeout_seconds
    return entry.status == "crashed" or had_less_time or not entry.fits()


def _entry(path: str, answer: ManifestEntry | Exception, timeout_seconds: float) -> ManifestEntry:
    """What the manifest says of a file for which its process gave an entry, or an error came."""
    if isinstance(answer, ManifestEntry):
        return answer
    if isinstance(answer, TimedOutError):
        return ManifestEntry(path, "timed out", str(answer), *file_state(path), seconds=timeout_seconds)
    died = isinstance(answer, ProcessDiedError)
    reason = f"the process that decoded it {answer}" if died else f"{type(answer).__name__}: {answer}"
    return ManifestEntry(path, "crashed", reason, *file_state(path))


def scan_file(path: str) -> ManifestEntry:
    """Decode one file from its first frame to its last, and compare frames that are reached by seeking.

    The entry's num_frames are those before the first one that does not decode. Where a seek gives another frame than
    reading in sequence does, the entry says that the file has to be read in sequence.
    """
    start = time.monotonic()
    if not os.path.isfile(path):
        return ManifestEntry(path, "missing", "there is no such file")
    entry = ManifestEntry(path, "ok", "", *file_state(path))
    forget_videos()
    with _ffmpeg_errors() as errors:
        try:
            entry = _read_through(entry, probe_video(path))
        except (VideoDecodeError, OSError) as error:
            entry = replace(entry, status="corrupt", reason=short_reason(error, path))
    if errors and entry.status != "corrupt":
        entry = replace(entry, status="damaged", reason=_and(entry.reason, f"FFmpeg says: {errors[0][2].strip()}"))
    return replace(entry, seconds=round(time.monotonic() - start, 3))


@contextmanager
def _ffmpeg_errors() -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg complains about: it patches over much of what is broken, and says so only here."""
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as errors:
            yield errors
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)


def _read_through(entry: ManifestEntry, info: VideoInfo) -> ManifestEntry:
    """The entry with what decodes of a file that probe_video has looked at."""
    with open_video(entry.path) as container:
        header = {"container": container.format.name, "header_frames": video_stream(entry.path, container).frames}
    entry = replace(entry, **header)
    in_sequence: dict[int, av.VideoFrame] = {}
    num_good = 0
    for number, frame in numbered_frames(entry.path, info):
        if number != num_good:
            break
        if info.seekers and number in (info.num_frames // 2, info.num_frames - 1):
            in_sequence[number] = frame
        num_good += 1
    if num_good == 0:
        return replace(entry, status="corrupt", reason="no frame of it decodes")
    if num_good < info.num_frames:
        entry = replace(entry, status="damaged", reason=f"frame {num_good} of {info.num_frames} does not decode")
        info = replace(
            info,
            num_frames=num_good,
            times=info.times[:num_good],
            keyframes=[keyframe for keyframe in info.keyframes if keyframe < num_good],
        )
    if not seeks_exactly(entry.path, info, in_sequence):
        info = replace(info, seekers=(), times=(), keyframes=())
        entry = replace(entry, reason=_and(entry.reason, "seeking in it gives wrong frames"))
    return replace(entry, info=info)


def _and(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))
