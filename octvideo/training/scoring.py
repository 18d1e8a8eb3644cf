"""Scores of a list of videos, kept on disk as they come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from octvideo.data import VideoDataModule
from octvideo.evaluation import ScoreLog, VideoResults
from octvideo.training.classifier import VideoClassifier
from octvideo.training.processes import ended_together

SECONDS_PER_LINE = 30


def score_videos(
    classifier: VideoClassifier,
    data: VideoDataModule,
    split: str,
    trainer: pl.Trainer,
    folder: str | Path,
    belongs_to: dict[str, Any],
) -> VideoResults:
    """Score every video of a split over its views, on all processes of a trainer, each video once.

    A call that was broken off goes on where it was: videos whose scores lie in the folder are not computed again.

    Args:
        classifier: trained.
        data: module with the split's list.
        split: "val" (one view a video) or "test" (num_clips x num_crops views).
        trainer: one that deals out no data itself (`use_distributed_sampler=False`).
        folder: where the scores are kept; all processes must see it.
        belongs_to: what makes scores comparable, see `octvideo.evaluation.ScoreLog`.

    Returns:
        The scores of all videos, the same in every process.

    Raises:
        ValueError: the folder holds scores that belong to something else, or no video could be scored.
        OSError: the scores cannot be written, as on a full disk.
        ChildProcessError: a loader's process died.
    """
    dataset = data.dataset(split)
    rank = trainer.global_rank
    num_classes, num_videos = len(classifier.hparams["class_names"]), len(dataset.annotations)
    log = ScoreLog(folder, belongs_to, num_classes=num_classes, num_views=dataset.num_views, rank=rank)
    if log.done and trainer.is_global_zero:
        print(f"{folder} holds the scores of {len(log.done)} of {num_videos} videos: the others follow", flush=True)
    loader = data.scoring_dataloader(
        split, rank, trainer.world_size, done=log.done, device=trainer.strategy.root_device
    )
    classifier.allow_zero_length_dataloader_with_multiple_devices = True  # fewer videos than processes
    trainer.callbacks.append(_Collecting(log, num_videos))  # type: ignore[attr-defined]
    with ended_together(trainer), log:
        trainer.test(classifier, dataloaders=loader, verbose=False)
    trainer.strategy.barrier()  # every process has written its last video
    return log.results(num_expected=num_videos)


class _Collecting(Callback):
    """Hands each batch's softmax to the log, and says now and then how far it is."""

    def __init__(self, log: ScoreLog, num_videos: int) -> None:
        self.score_log, self.num_videos = log, num_videos
        self._start = self._said = time.monotonic()

    def on_test_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: Any, outputs: Tensor, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.score_log.leave_out(clip.video for clip in batch.get("unreadable", ()))
        self.score_log.add(outputs, batch["label"], batch["video"], batch["view"])
        now = time.monotonic()
        if trainer.is_global_zero and now - self._said > SECONDS_PER_LINE:
            self._said = now
            among = f", this process of {trainer.world_size}" if trainer.world_size > 1 else ""
            print(
                f"scored {len(self.score_log.done)}/{self.num_videos} videos{among}, {now - self._start:.0f} s",
                flush=True,
            )
