"""From a classifier and a list of videos to a result row and its tables and pictures."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from octvideo.analysis import MACS_TOOL, LatencyReport, count_macs, count_parameters, measure_latency
from octvideo.data import Annotations, UnreadableLog, VideoDataModule
from octvideo.evaluation import VideoResults, plot_confusion, write_confusion_csv, write_per_video_csv
from octvideo.report import ResultRow, collect_metadata, write_result
from octvideo.runtime import optimize
from octvideo.training import UNREADABLE, UnreadableClips, VideoClassifier, score_videos

LATENCY_RUNS = 15


@dataclass(frozen=True)
class RunFacts:
    """What a result row says of a run beside its scores and costs; see `ResultRow`."""

    name: str
    dataset: str
    split: str
    seed: int
    fold: str | None = None
    epochs: int | None = None
    train_seconds: float | None = None


def scoring_trainer(accelerator: str = "auto", devices: int | str | list[int] = 1, num_nodes: int = 1) -> pl.Trainer:
    """A trainer that scores videos on one or more processes."""
    return pl.Trainer(
        accelerator=accelerator, devices=devices, num_nodes=num_nodes, logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False, use_distributed_sampler=False,
    )  # fmt: skip


def score(
    classifier: VideoClassifier,
    data: VideoDataModule,
    split: str,
    facts: RunFacts,
    trainer: pl.Trainer,
    *,
    folder: Path,
    checkpoint: Path,
    with_latency: bool = True,
    fast: str | None = None,
) -> tuple[ResultRow, VideoResults]:
    """Score every video of a split over its views, and count the network's cost.

    Args:
        classifier: trained.
        data: module with the split's list and the test views.
        split: "test" (num_clips x num_crops views a video) or "val" (one view).
        facts: what the row says of the run.
        trainer: see `scoring_trainer`; each of its processes scores a share of the videos.
        folder: where scores are kept as they come, for a call that is broken off to go on, and where videos that are
            left out of the score are listed.
        checkpoint: the classifier's file, by whose content scores that lie there are known as its own.
        with_latency: measure the time of a view, too; false where other work runs beside.
        fast: "float32" or "bfloat16" scores on the fast path in that type, which is left in the classifier.
    """
    clip = torch.empty(view_shape(classifier.hparams["preprocessing"]), device="meta")
    costs = {
        "gmacs_per_view": count_macs(copy.deepcopy(classifier.network).to("meta"), clip).gmacs,
        "params_m": count_parameters(classifier.network) / 1e6,
    }
    if fast:
        speed_up(classifier.to(trainer.strategy.root_device), fast)
    unreadable = UnreadableLog(folder / UNREADABLE)
    trainer.callbacks.append(UnreadableClips(unreadable))  # type: ignore[attr-defined]
    annotations = data.annotations(split)
    left_out = dict.fromkeys(annotations.missing, "missing: there is no such file") | data.left_out[split]
    if trainer.is_global_zero:
        unreadable.add(split, None, left_out.items())
    results = score_videos(classifier, data, split, trainer, folder, _belongs_to(checkpoint, data, split, fast))
    results.num_expected = len(annotations) + len(left_out)
    classifier.to(trainer.strategy.root_device)  # the trainer has put it back on the CPU
    latency = view_latency(classifier) if with_latency and trainer.is_global_zero else None
    row = _row(classifier, data.dataset(split), results, facts, costs, latency)
    return dataclasses.replace(row, fast_path=fast), results


def _belongs_to(checkpoint: Path, data: VideoDataModule, split: str, fast: str | None) -> dict[str, Any]:
    """What two calls must have in common for the one to go on with the scores of the other."""
    annotations = data.annotations(split)
    videos = hashlib.sha256(repr(annotations.class_names).encode())
    for record in annotations.records:
        videos.update(f"{record.path}\n{record.label}\n".encode("utf-8", "surrogatepass"))
    content = hashlib.sha256()
    with open(checkpoint, "rb") as file:
        while block := file.read(1 << 24):
            content.update(block)
    return {
        "checkpoint's sha256": content.hexdigest(),
        "videos' sha256": videos.hexdigest(),
        "shards' sha256": data.shards_sha256(split),
        "split": split,
        "fast": fast,
        **data.preprocessing(),
    }


def speed_up(classifier: VideoClassifier, dtype: str) -> None:
    """Put a classifier's network, for inference, on the fast path in a type."""
    clip = torch.randn(view_shape(classifier.hparams["preprocessing"])).to(classifier.device)
    classifier.network = optimize(classifier.network, clip, dtype=getattr(torch, dtype))


def _row(
    classifier: VideoClassifier,
    dataset: Any,
    results: VideoResults,
    facts: RunFacts,
    costs: dict[str, float],
    latency: LatencyReport | None,
) -> ResultRow:
    hparams, preprocessing = classifier.hparams, classifier.hparams["preprocessing"]
    shape = view_shape(preprocessing)
    names = hparams["class_names"]
    return ResultRow(
        name=facts.name,
        model=hparams["model"],
        alpha=hparams["alpha"],
        octave=hparams["octave"],
        dataset=facts.dataset,
        split=facts.split,
        num_videos=results.num_videos,
        top1_percent=results.top1_percent,
        top5_percent=results.top5_percent,
        mean_class_percent=results.mean_class_percent,
        gmacs_per_view=costs["gmacs_per_view"],
        gmacs_per_video=costs["gmacs_per_view"] * dataset.num_views,
        params_m=costs["params_m"],
        crop=f"{shape[3]}x{shape[4]}",
        num_frames=preprocessing["num_frames"],
        frame_stride=preprocessing["frame_stride"],
        num_clips=dataset.num_clips,
        num_crops=dataset.num_crops,
        seed=facts.seed,
        per_class_percent=dict(zip(names, results.per_class_percent.tolist(), strict=True)),
        latency_ms=latency.median_ms if latency else None,
        latency_threads=latency.threads if latency else None,
        fold=facts.fold,
        epochs=facts.epochs,
        train_seconds=facts.train_seconds,
        unreadable_videos=results.num_missing or 0,
        macs_tool=MACS_TOOL,
        metadata=collect_metadata(classifier.device),
    )


def view_shape(preprocessing: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """(1, 3, T, H, W) of one test view."""
    crop = preprocessing["test_crop_size"]
    height, width = (crop, crop) if isinstance(crop, int) else crop
    return 1, 3, preprocessing["num_frames"], height, width


def view_latency(classifier: VideoClassifier) -> LatencyReport:
    """Time of one view through the network, on the device where it lies."""
    clip = torch.zeros(view_shape(classifier.hparams["preprocessing"]), device=classifier.device)
    return measure_latency(classifier.network, clip, runs=LATENCY_RUNS)


def write_artifacts(
    folder: Path, row: ResultRow, results: VideoResults, class_names: list[str], annotations: Annotations
) -> None:
    """Write result.json, confusion.csv, confusion.png and videos.csv; result.json last, as the mark of a whole set."""
    write_confusion_csv(folder / "confusion.csv", results.confusion, class_names)
    plot_confusion(folder / "confusion.png", results.confusion, class_names)
    write_per_video_csv(folder / "videos.csv", results, class_names, [r.path for r in annotations.records])
    write_result(folder / "result.json", row)


def show(row: ResultRow, folder: Path) -> None:
    """Print a result with what its figures mean."""
    unreadable = f", {row.unreadable_videos:,} unreadable: {folder / UNREADABLE}" if row.unreadable_videos else ""
    lines = [
        f"{row.model} alpha {row.alpha:g} {row.octave}: {row.num_videos:,} videos of {row.dataset} ({row.split})"
        f"{unreadable}, {row.num_clips} clips x {row.num_crops} crops",
        f"  top-1 {row.top1_percent:.2f} %, top-5 {row.top5_percent:.2f} %, "
        f"mean of classes {row.mean_class_percent:.2f} %",
        f"  {row.gmacs_per_view:.3f} GMACs per view ({row.sampling}, crop "
        f"{row.crop}), {row.gmacs_per_video:.3f} per video; {row.macs_unit}, {row.macs_tool}",
        f"  {row.params_m:.3f} M parameters",
    ]
    if row.latency_ms is not None:
        lines[-1] += f"; {row.latency_ms:.1f} ms per view on {row.metadata['device']}, {row.latency_threads} threads"
        lines[-1] += f", fast path in {row.fast_path}" if row.fast_path else ""
    print("\n".join(lines), flush=True)
