"""Clips per second from file to normalised tensor: octvideo beside torchcodec, decord and PyTorchVideo."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from octvideo.analysis.timing import Progress, silent, time_in_turns
from octvideo.benchmarks.checks import check_at_least, check_choices, check_timing, check_videos, check_views
from octvideo.benchmarks.clip_loaders import LOADERS, ClipPlan, Loader, octvideo_views
from octvideo.data import probe_video
from octvideo.data.handover import ClipLoader, HandOver

# A process makes so many clips in a round at least, so that waiting for the first one weighs little, and so does what
# the loader before it left in caches and memory.
CLIPS_PER_WORKER = 4
HD = "720p h264, made"


class _Clips(IterableDataset[dict[str, Tensor]]):
    """A loader's clips as items of a data set; each worker takes every so-manyth video."""

    def __init__(self, loader: Loader, paths: Sequence[str], plan: ClipPlan) -> None:
        self.loader, self.paths, self.plan = loader, paths, plan

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        paths = self.paths[worker.id :: worker.num_workers] if worker else self.paths
        return ({"clip": clip} for clip in self.loader(paths, self.plan))


def benchmark_decoding(
    videos: Sequence[str] = (),
    clips: Sequence[int] = (1, 10),
    crops: Sequence[int] = (1, 3),
    workers: Sequence[int] = (0, 1, 2),
    loaders: Sequence[str] = tuple(LOADERS),
    num_frames: int = 32,
    frame_stride: int = 2,
    short_side: int = 256,
    crop: int = 224,
    hd: bool = True,
    rounds: int = 5,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time loaders from file to normalised tensor, in turns.

    Args:
        videos: files, which are timed apart by codec, container and size.
        clips: clips of each video.
        crops: crops of a clip, one number for each of clips.
        workers: loader processes; 0 loads in the main one.
        loaders: which of them are timed; "first look" includes what octvideo learns of a file once per process, "time
            limit" makes clips in a child process that can be ended, as the data module has it.
        num_frames: frames of a clip.
        frame_stride: distance between them.
        short_side: pixels that the short side of a frame is scaled to.
        crop: pixels of the square crop.
        hd: also time on a 720p video that is made here: H.264, 10 seconds, 30 frames per second, moving texture.
        rounds: passes of each that are timed.
        progress: called as work goes on.

    Returns:
        One row for each kind of video, views, workers and loader: clips (tensors) per second and octvideo's ratio to
        it; in place of them the problem, where a loader does not run.

    Raises:
        ValueError: no video, unknown loaders, a number that is too small, or clips and crops that do not pair.
    """
    check_choices("loaders", loaders, tuple(LOADERS))
    check_videos(videos, hd)
    sizes = {"num_frames": num_frames, "frame_stride": frame_stride, "short_side": short_side, "crop": crop}
    check_views(clips, crops, **sizes)
    check_at_least(0, workers=workers)
    check_timing(rounds)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = _kinds(videos)
        if hd:
            kinds[HD] = [str(write_texture_video(Path(folder) / "720p.mp4", progress=progress))]
        for kind, paths in kinds.items():
            for num_clips, num_crops in zip(clips, crops, strict=True):
                plan = ClipPlan(num_clips, num_crops, num_frames, frame_stride, short_side, crop)
                problems = {name: _problem(LOADERS[name], paths, plan) for name in loaders}
                for count in workers:
                    rows += _time_loaders(kind, paths, plan, count, problems, rounds, progress)
    return rows


def write_texture_video(
    path: Path,
    height: int = 720,
    width: int = 1280,
    num_frames: int = 300,
    fps: int = 30,
    progress: Progress = silent,
) -> Path:
    """Write an H.264 video of a moving texture under noise, which no encoder can make very small."""
    noise = np.random.default_rng(0)
    # Coarse squares under fine grain, larger than the frame, so that a window can move over them.
    coarse = noise.integers(40, 200, (height // 8, width // 8, 3)).repeat(16, 0).repeat(16, 1)
    texture = coarse + noise.normal(0, 12, coarse.shape)
    grain = noise.normal(0, 3, (height + 64, width + 64, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"threads": "1", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(num_frames):
            top, left = number % height, 2 * number % width
            down, right = noise.integers(0, 64, 2)
            image = texture[top : top + height, left : left + width] + grain[down:, right:][:height, :width]
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
            progress(f"writing {path.name}", number + 1, num_frames)
        container.mux(stream.encode())
    return path


def _kinds(videos: Sequence[str]) -> dict[str, list[str]]:
    """Videos by codec, container and size."""
    kinds: dict[str, list[str]] = {}
    for path in videos:
        info = probe_video(path)
        kinds.setdefault(f"{info.codec} {Path(path).suffix[1:]} {info.width}x{info.height}", []).append(path)
    return kinds


def _num_passes(num_videos: int, num_views: int, num_workers: int) -> int:
    """Passes over the videos that give each worker the same number of them, and clips enough."""
    least = math.ceil(CLIPS_PER_WORKER * max(num_workers, 1) / (num_views * num_videos))
    step = num_workers // math.gcd(num_workers, num_videos) or 1
    return math.ceil(least / step) * step


def _time_loaders(
    kind: str,
    paths: Sequence[str],
    plan: ClipPlan,
    num_workers: int,
    problems: Mapping[str, str | None],
    rounds: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    passes = _num_passes(len(paths), plan.num_views, num_workers)
    num_tensors = passes * plan.num_views * len(paths)
    what = {"videos": kind, "num_videos": len(paths), "clips": plan.num_clips, "crops": plan.num_crops}
    what |= {"workers": num_workers}
    calls = {
        name: partial(_epoch, build_loader(name, [*paths] * passes, plan, num_workers))
        for name, problem in problems.items()
        if problem is None
    }
    title = f"{kind}, {plan.num_clips} x {plan.num_crops}, {num_workers} workers"
    times = time_in_turns(calls, rounds=rounds, progress=lambda _, done, total: progress(title, done, total))
    rates = {name: 1e3 * num_tensors / timing.median_ms for name, timing in times.items()}
    ours = rates.get("octvideo")
    return [
        what
        | {"loader": name, "problem": problem, "clips_per_second": rates.get(name)}
        | {"octvideo_ratio": ours / rates[name] if ours and name in rates else None}
        | (vars(times[name]) if name in times else {"median_ms": None, "iqr_ms": None})
        for name, problem in problems.items()
    ]


def _problem(loader: Loader, paths: Sequence[str], plan: ClipPlan) -> str | None:
    """Why a loader does not give the clips that it should; None where it does."""
    expected = (3, plan.num_frames, plan.crop, plan.crop)
    try:
        for path in paths:
            shapes = [tuple(clip.shape) for clip in loader([path], plan)]
            if shapes != [expected] * plan.num_views:
                return f"gave {len(shapes)} clips of {sorted(set(shapes))} for {Path(path).name}"
    except Exception as error:  # whatever keeps a peer from running belongs into its row
        reason = (str(error).strip().splitlines() or [""])[0].replace(path, Path(path).name)
        return f"{type(error).__name__}: {reason}"
    return None


def build_loader(name: str, paths: Sequence[str], plan: ClipPlan, num_workers: int = 0) -> DataLoader[Any]:
    """Batches of one normalised clip of each video in turn, as "clip"; workers live on from pass to pass."""
    clips = _Clips(LOADERS[name], paths, plan)
    workers: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    if not name.startswith("octvideo"):
        return DataLoader(clips, batch_size=None, **workers)
    # Its workers hand pixels over, and its loader normalises them.
    hand_over = HandOver.of(octvideo_views(paths, plan), num_workers)
    return ClipLoader(clips, hand_over, batch_size=1, collate_fn=hand_over.collate, **workers)


def _epoch(batches: DataLoader[Any]) -> int:
    return sum(1 for _ in batches)
