"""One result, one JSON file: what was measured, at what cost, and where."""

import dataclasses
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import torch

from octvideo.analysis import MACS_TOOL
from octvideo.files import replace_file


@dataclass(frozen=True)
class ResultRow:
    """Accuracy and cost of one trained network on one split of a data set; fields are plain values.

    Args:
        name: what the runs of one experiment share over folds and seeds.
        model: builder's name, such as "i3d_r50".
        alpha: share of low-frequency channels; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dataset: name of the data set.
        split: name of the split, such as "test".
        num_videos: videos that were scored.
        top1_percent, top5_percent, mean_class_percent: accuracies of whole videos.
        gmacs_per_view: 10^9 multiply-adds of one view (one clip, one crop).
        gmacs_per_video: gmacs_per_view times num_clips times num_crops.
        params_m: 10^6 parameters.
        crop: height and width of the network's input in pixels, such as "224x224".
        num_frames, frame_stride: frames of a clip, and the step between two of them; None is one frame from each of
            num_frames equal segments of the video.
        num_clips, num_crops: views of a video.
        seed: seed of the training run.
        per_class_percent: accuracy by class name; None for a class without a video.
        latency_ms, latency_threads: median time of one view, and the CPU threads it had.
        fast_path: type in which the fast path scored, such as "bfloat16"; None is the network as it is.
        fold: name of the cross-validation fold, if any.
        epochs, train_seconds: length of the training run.
        unreadable_videos: videos of the split that could not be decoded and are not among num_videos.
        macs_unit, macs_tool: what one of the MACs is, and who counted.
        metadata: versions, device and date, from `collect_metadata`.

    Raises:
        ValueError: a number is out of its range.
    """

    name: str
    model: str
    alpha: float
    octave: str
    dataset: str
    split: str
    num_videos: int
    top1_percent: float
    top5_percent: float
    mean_class_percent: float
    gmacs_per_view: float
    gmacs_per_video: float
    params_m: float
    crop: str
    num_frames: int
    frame_stride: float | None
    num_clips: int
    num_crops: int
    seed: int
    per_class_percent: dict[str, float | None] = field(default_factory=dict)
    latency_ms: float | None = None
    latency_threads: int | None = None
    fast_path: str | None = None
    fold: str | None = None
    epochs: int | None = None
    train_seconds: float | None = None
    unreadable_videos: int = 0
    macs_unit: str = "multiply-adds"
    macs_tool: str = MACS_TOOL
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def sampling(self) -> str:
        """How a clip's frames were drawn, in words."""
        step = "spread over the video" if self.frame_stride is None else f"x stride {self.frame_stride:g}"
        return f"{self.num_frames} frames {step}"

    def __post_init__(self) -> None:
        for name in ("top1_percent", "top5_percent", "mean_class_percent"):
            _check_range(name, getattr(self, name), 0, 100)
        _check_range("alpha", self.alpha, 0, 1)
        for name in ("gmacs_per_view", "gmacs_per_video", "params_m"):
            _check_range(name, getattr(self, name), 0, math.inf)
        for name in ("num_videos", "num_frames", "num_clips", "num_crops"):
            _check_range(name, getattr(self, name), 1, math.inf)
        if self.frame_stride is not None:
            _check_range("frame_stride", self.frame_stride, 0, math.inf)


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        top = "" if math.isinf(high) else f" and at most {high}"
        raise ValueError(f"{name} should be a finite number of at least {low}{top}, got {value!r}. Measure it again.")


def write_result(path: str | os.PathLike, row: ResultRow) -> None:
    """Write a row as JSON; a reader sees the whole file or none.

    Args:
        path: file to write, ending in .json by custom; its folder is made when missing.
        row: the result. A class without a video, nan, becomes null.
    """
    values = dataclasses.asdict(row)
    values["per_class_percent"] = {
        name: None if percent is None or math.isnan(percent) else percent
        for name, percent in row.per_class_percent.items()
    }
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with replace_file(Path(path)) as file:
        file.write(text.encode())


def read_result(path: str | os.PathLike) -> ResultRow:
    """Read a row that `write_result` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, lacks a field, has an unknown one, or a number is out of its range.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"result {path} not found. Pass files that octvideo evaluate or train wrote.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"result {path} should be JSON, but it cannot be read: {error}. Write it anew.") from error
    if not isinstance(values, dict):
        raise ValueError(f"result {path} should hold one JSON object, got {type(values).__name__}. Write it anew.")
    _check_fields(path, values)
    try:
        return ResultRow(**values)
    except ValueError as error:
        raise ValueError(f"result {path}: {error}") from error


def _check_fields(path: Path, values: dict[str, Any]) -> None:
    known = {f.name for f in dataclasses.fields(ResultRow)}
    needed = {
        f.name
        for f in dataclasses.fields(ResultRow)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing, unknown = sorted(needed - values.keys()), sorted(values.keys() - known)
    if missing:
        raise ValueError(f"result {path} lacks the fields {', '.join(missing)}. Evaluate again with this version.")
    if unknown:
        raise ValueError(f"result {path} has unknown fields {', '.join(unknown)}. Remove them, or update octvideo.")


def collect_metadata(device: str | torch.device | None = None) -> dict[str, Any]:
    """Versions, machine and date to be kept beside a number.

    Args:
        device: device that the number was measured on; the CPU when None.

    Returns:
        Plain values: git_commit (None outside a checkout, ending in "+changes" when tracked files differ from it),
        versions of the packages, python, platform, processor (its name and the instructions that matter for speed),
        device, cpu_threads and date_utc.
    """
    names = ("octvideo", "torch", "torchvision", "pytorch-lightning")
    return {
        "git_commit": _git_commit(),
        **package_versions(names),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "processor": _processor(),
        "device": _device_name(torch.device(device or "cpu")),
        "cpu_threads": torch.get_num_threads(),
        "date_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def package_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Versions of packages, as <name>_version; None where one is not installed."""
    return {f"{name.replace('-', '_')}_version": _version(name) for name in names}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    instructions = [
        flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in about.get("flags", "").split()
    ]
    return ", ".join([about.get("model name") or platform.machine(), *instructions])


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _version(package: str) -> str | None:
    try:
        return packages.version(package)
    except packages.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    # An installed copy may lie inside somebody else's checkout: only a commit that knows this file counts.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
