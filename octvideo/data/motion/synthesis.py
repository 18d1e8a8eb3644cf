"""Write the motion set: H.264 videos, their lists, and a record of the parameters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from octvideo.data.motion.render import render_frames
from octvideo.data.motion.states import CLASS_NAMES, MotionStates, draw_states
from octvideo.files import partials_of, replace_file

__all__ = ["MotionSet", "RenderedVideo", "render_video", "synthesize_motion_set"]

_RECORD_NAME = "motion_set.json"
_RECIPE_VERSION = 3  # raise it whenever the same seed would give other pixels
_SPLITS = ("train", "val", "test")
_SIDES = (64, 72, 80)  # pixels; H.264 in 4:2:0 wants even sides
_LENGTHS = (32, 44)  # fewest and most frames
_X264_PARAMETERS = "threads=1:lookahead-threads=1:rc-lookahead=0:bframes=0"
_RATES = (15, 20, 24, 25, 30)  # frames per second


@dataclass(frozen=True)
class MotionSet:
    """A motion set on disk.

    Args:
        folder: where it lies; paths in the lists are relative to it.
        train, val, test: its lists, one "relative/path label" a line.
        class_names: names in the order of the labels.
    """

    folder: Path
    train: Path
    val: Path
    test: Path
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class RenderedVideo:
    """One video before it is encoded.

    Args:
        frames: (T, H, W, 3) uint8.
        fps: frames per second.
        label: class of the motion.
        states: what was drawn.
    """

    frames: np.ndarray
    fps: int
    label: int
    states: MotionStates


def _generator(seed: int, split: str, *index: int) -> np.random.Generator:
    """An own generator a video, so that a video does not depend on which others were made before it."""
    return np.random.default_rng([seed, _SPLITS.index(split), *index])


def render_video(label: int, *, seed: int, split: str, index: int) -> RenderedVideo:
    """Render video ``index`` of a split; a function of its arguments alone.

    Args:
        label: class, 0 to 7, an index of ``CLASS_NAMES``.
        seed: seed of the set.
        split: "train", "val" or "test".
        index: number of the video in its split.
    """
    generator = _generator(seed, split, index)
    num_frames = int(generator.integers(_LENGTHS[0], _LENGTHS[1], endpoint=True))
    height, width = (int(side) for side in generator.choice(_SIDES, 2))
    fps = int(generator.choice(_RATES))
    states = draw_states(label, num_frames, generator)
    return RenderedVideo(render_frames(states, height=height, width=width, generator=generator), fps, label, states)


def _draw_labels(num_videos: int, seed: int, split: str) -> list[int]:
    """Labels in random order, every class as often as the others (up to one)."""
    labels = np.arange(num_videos) % len(CLASS_NAMES)
    return [int(label) for label in _generator(seed, split).permutation(labels)]


def _encode(path: Path, video: RenderedVideo) -> None:
    """Encode as H.264 mp4."""
    with replace_file(path) as file, av.open(file, "w", format="mp4") as container:
        # One thread and no look-ahead, or the same frames give other bytes now and then; no B-frames: exact seeks.
        options = {"crf": "16", "preset": "ultrafast", "threads": "1", "x264-params": _X264_PARAMETERS}
        stream = container.add_stream("libx264", rate=video.fps, options=options)
        stream.height, stream.width = video.frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 12
        for frame in video.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_text(path: Path, text: str) -> None:
    with replace_file(path) as file:
        file.write(text.encode())


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} should be an integer number of videos, but it is {value!r}.")
    if value < len(CLASS_NAMES):
        raise ValueError(
            f"{name} should be at least {len(CLASS_NAMES)}, one video a class, but it is {value}. Ask for more videos."
        )


def _read_record(path: Path) -> dict[str, int]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not the record of a motion set ({error}). Choose another folder.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not the record of a motion set (no JSON object). Choose another folder.")
    return record


def _claim_folder(folder: Path, parameters: dict[str, int]) -> None:
    """Make the folder ours, or find that it holds this very set (whole or interrupted)."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder should be a directory, but {folder} is a file. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    record_path = folder / _RECORD_NAME
    if not record_path.exists():
        others = sorted(entry.name for entry in {*folder.iterdir()}.difference(partials_of(record_path)))
        if others:
            raise ValueError(
                f"folder should be empty or hold a motion set, but {folder} holds {others[0]!r} and no {_RECORD_NAME}. "
                "Choose another folder."
            )
        _write_text(record_path, json.dumps(parameters, indent=2) + "\n")
        return
    record = _read_record(record_path)
    if record != parameters:
        names = [name for name in parameters if record.get(name) != parameters[name]] or ["its parameters"]
        changes = ", ".join(f"{name} {record.get(name)} there, {parameters.get(name)} asked for" for name in names)
        raise ValueError(
            f"folder {folder} already holds another motion set ({changes}). "
            "Choose another folder, delete that one, or ask for its parameters."
        )


def synthesize_motion_set(
    folder: str | os.PathLike[str],
    *,
    num_train: int = 640,
    num_val: int = 80,
    num_test: int = 160,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> MotionSet:
    """Make a set of short videos in which only motion tells the class.

    A textured object lies over a moving, textured background. Its position, angle and size all change in every video
    over the same ranges; one of them changes one way, and which and which way is the class. The others go back and
    forth, so the frames of a video, looked at without their order, do not tell the class.

    Take clips that span about ``REFERENCE_SPAN`` (32) frames: 8 frames of stride 4, or 16 of stride 2. Mirrored or
    reversed clips belong to another class: train with a flip probability of 0.

    Asked for again with the same parameters, a set is reused; an interrupted one is completed.

    Args:
        folder: an empty or new folder, or one that holds this set. Written there: train/, val/, test/ (H.264 mp4,
            sides of 64 to 80 pixels, 32 to 44 frames, 15 to 30 frames per second), train.txt, val.txt, test.txt,
            classes.txt and motion_set.json.
        num_train: videos in train.txt.
        num_val: videos in val.txt.
        num_test: videos in test.txt.
        seed: seed of the set, 0 or more; the same seed gives the same set.
        progress: called as ``progress(done, total)`` after every video.

    Returns:
        Where the lists are.

    Raises:
        TypeError: a count or the seed is no integer.
        ValueError: a count is below 8, the seed is negative, or the folder holds something else.
    """
    counts = {"num_train": num_train, "num_val": num_val, "num_test": num_test}
    for name, count in counts.items():
        _check_count(name, count)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed should be an integer, but it is {seed!r}.")
    if seed < 0:
        raise ValueError(f"seed should be 0 or more, but it is {seed}.")
    root = Path(folder)
    _claim_folder(root, {"recipe_version": _RECIPE_VERSION, **counts, "seed": seed})
    total, done = sum(counts.values()), 0
    for split in _SPLITS:
        (root / split).mkdir(exist_ok=True)
        lines = []
        for index, label in enumerate(_draw_labels(counts[f"num_{split}"], seed, split)):
            relative = f"{split}/{index:05d}.mp4"
            if not (root / relative).exists():
                _encode(root / relative, render_video(label, seed=seed, split=split, index=index))
            lines.append(f"{relative} {label}\n")
            done += 1
            if progress is not None:
                progress(done, total)
        _write_text(root / f"{split}.txt", "".join(lines))
    _write_text(root / "classes.txt", "".join(f"{name}\n" for name in CLASS_NAMES))
    return MotionSet(root, root / "train.txt", root / "val.txt", root / "test.txt", CLASS_NAMES)
