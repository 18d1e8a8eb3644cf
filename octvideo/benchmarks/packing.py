"""Clips per second from videos as they are, from packed ones, and from shards, through the data module's loaders."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from octvideo.analysis.timing import Progress, silent, time_in_turns
from octvideo.benchmarks.checks import check_at_least, check_timing, check_videos, check_views
from octvideo.benchmarks.decoding import HD, write_texture_video
from octvideo.data import VideoDataModule
from octvideo.data.probe import forget_videos
from octvideo.data.shards import encode_video, pack_videos

__all__ = ["benchmark_packing"]

FILES = "files"
FIRST_LOOK = "files, first look"
LEAST_CLIPS = 32  # of a pass, for each worker
SHARD_SIZE = 8


def benchmark_packing(
    videos: Sequence[str] = (),
    clips: Sequence[int] = (1, 10),
    crops: Sequence[int] = (1, 3),
    workers: Sequence[int] = (0, 2),
    short_sides: Sequence[int] = (256, 720),
    gop: int = 16,
    quality: int = 23,
    num_frames: int = 32,
    frame_stride: int = 2,
    short_side: int = 256,
    crop: int = 224,
    hd: bool = True,
    rounds: int = 5,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time loaders of the same clips from several forms of the same videos, in turns.

    Args:
        videos: files of one kind, such as clips of one data set.
        clips: clips of each video; 1 is a random one as in training, more are spread as in a test.
        crops: crops of a clip, one number for each of clips.
        workers: loader processes; 0 loads in the main one, where "first look" shows what octvideo learns of a file.
        short_sides: pixels of the short side that videos are packed at, each as files and as shards.
        gop: most frames from one keyframe to the next in packed videos.
        quality: x264's constant rate factor of packed videos.
        num_frames: frames of a clip.
        frame_stride: distance between them.
        short_side: pixels that the short side of a frame is scaled to for the network.
        crop: pixels of the square crop.
        hd: also time on a 720p video that is made here: H.264, 10 seconds, 30 frames per second, moving texture.
        rounds: passes of each that are timed.
        progress: called as work goes on.

    Returns:
        One row for each kind of video, views, workers and form: clips (tensors) per second, the ratio to the files as
        they are, and the mean bytes of a video.

    Raises:
        ValueError: no video, a number that is too small, or clips and crops that do not pair.
    """
    check_videos(videos, hd)
    sizes = {"num_frames": num_frames, "frame_stride": frame_stride, "short_side": short_side, "crop": crop}
    check_views(clips, crops, gop=gop, short_sides=short_sides, **sizes)
    check_at_least(0, workers=workers)
    check_timing(rounds)
    torch.set_num_threads(1)
    settings: dict[str, Any] = {"num_frames": num_frames, "frame_stride": frame_stride, "crop_size": crop}
    settings |= {"short_side": short_side, "test_short_side": short_side}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"given": list(videos)} if videos else {}
        if hd:
            kinds[HD] = [str(write_texture_video(Path(folder) / "720p.mp4", progress=progress))]
        for kind, paths in kinds.items():
            forms = {FILES: paths}
            for size in short_sides:
                pack = partial(encode_video, short_side=size, gop=gop, quality=quality)
                forms[f"packed, {size}"] = _packed(f"{kind} {size}", paths, Path(folder), pack, progress)
            for views in zip(clips, crops, strict=True):
                for count in workers:
                    part = Path(folder) / f"{kind} {views} {count}"
                    rows += _time_forms(kind, forms, views, count, part, settings, rounds, progress)
    return rows


def _packed(
    name: str, paths: Sequence[str], folder: Path, pack: Callable[[str], bytes], progress: Progress
) -> list[str]:
    """Write videos as `pack` encodes them."""
    written = []
    for done, path in enumerate(paths):
        progress(f"packing {name}", done, len(paths))
        file = folder / f"{name} {done}.mp4"
        file.write_bytes(pack(path))
        written.append(str(file))
    progress(f"packing {name}", len(paths), len(paths))
    return written


def _time_forms(
    kind: str,
    forms: Mapping[str, Sequence[str]],
    views: tuple[int, int],
    num_workers: int,
    folder: Path,
    settings: dict[str, Any],
    rounds: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    what = {"videos": kind, "clips": views[0], "crops": views[1], "workers": num_workers}
    settings = settings | {"num_clips": views[0], "num_crops": views[1], "num_workers": num_workers}
    split = "train" if views == (1, 1) else "test"
    sources, num_bytes = {}, {}
    for form, paths in forms.items():
        repeats = math.ceil(LEAST_CLIPS * max(num_workers, 1) / (math.prod(views) * len(paths)))
        sources[form] = _write_list(folder / f"{form}.txt", paths, repeats)
        num_bytes[form] = sum(os.path.getsize(path) for path in paths) / len(paths)
        if form != FILES:
            shards = form.replace("packed", "shards")
            sources[shards], num_bytes[shards] = str(folder / shards), num_bytes[form]
            pack_videos(sources[form], sources[shards], copy=True, shard_size=SHARD_SIZE, num_workers=0)
    calls = {form: _pass(source, split, settings) for form, source in sources.items()}
    num_clips = {form: call() for form, call in calls.items()}
    if num_workers == 0:
        calls[FIRST_LOOK] = partial(_forget_first, calls[FILES])
        num_clips[FIRST_LOOK], num_bytes[FIRST_LOOK] = num_clips[FILES], num_bytes[FILES]
    title = f"{kind}, {views[0]} x {views[1]}, {num_workers} workers"
    times = time_in_turns(calls, rounds=rounds, progress=lambda _, done, total: progress(title, done, total))
    rates = {form: 1e3 * num_clips[form] / timing.median_ms for form, timing in times.items()}
    return [
        what
        | {"form": form, "clips_per_second": rates[form], "files_ratio": rates[form] / rates[FILES]}
        | {"video_bytes": num_bytes[form], **vars(times[form])}
        for form in calls
    ]


def _forget_first(call: Callable[[], int]) -> int:
    forget_videos()
    return call()


def _write_list(path: Path, videos: Sequence[str], repeats: int) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{Path(video).resolve()} 0\n" for video in videos) * repeats, encoding="utf-8")
    return str(path)


def _pass(source: str, split: str, settings: dict[str, Any]) -> Callable[[], int]:
    """A call that makes all clips once and counts them; workers live on between calls."""
    given: dict[str, Any] = {split: source, "batch_size": 8}
    module = VideoDataModule(**given, **settings)
    loader = module.train_dataloader() if split == "train" else module.test_dataloader()
    return lambda: sum(len(batch["label"]) for batch in loader)
