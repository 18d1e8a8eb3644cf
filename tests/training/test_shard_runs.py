"""Whole runs on shards: a run that dies within an epoch goes on exactly, scoring goes on, bad videos are listed."""

import tarfile

import pytest
import pytorch_lightning as pl
import torch

from octvideo.data import UnreadableLog, VideoDataModule
from octvideo.training import (
    UnreadableClips,
    VideoClassifier,
    build_trainer,
    fit,
    last_checkpoint,
    score_videos,
)

pytest.importorskip("webdataset")


class StoppedError(Exception):
    """Stands for a run that dies."""


class StopAtStep(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise StoppedError


@pytest.fixture(scope="module")
def shards(two_classes, tmp_path_factory):
    from octvideo.data.shards import pack_videos

    folder = tmp_path_factory.mktemp("packed")
    for name in ("train", "test"):
        pack_videos(two_classes / f"{name}.txt", folder / name, copy=True, num_workers=0, shard_size=3)
    return folder


def build(shards, **changes):
    data = VideoDataModule(
        train=str(shards / "train"), val=str(shards / "test"), test=str(shards / "test"), num_frames=4, frame_stride=2,
        short_side=(32, 40), test_short_side=32, crop_size=32, num_clips=2, num_crops=1, batch_size=2, **changes,
    )  # fmt: skip
    torch.manual_seed(1)
    settings = {"model": "resnet3d_tiny", "alpha": 0.25, "optimizer": "adamw", "lr": 3e-3}
    return VideoClassifier(**settings, class_names=data.class_names, preprocessing=data.preprocessing()), data


def trainer_for(output, max_epochs, *callbacks, **options):
    trainer = build_trainer(
        output, seed=3, ema_decay=0.0, progress=False, has_validation=True, max_epochs=max_epochs, accelerator="cpu",
        devices=1, **options,
    )  # fmt: skip
    trainer.callbacks.extend(callbacks)
    return trainer


def test_a_resumed_run_on_shards_equals_the_straight_one_bit_for_bit(shards, tmp_path):
    straight, data = build(shards, num_workers=0)
    fit(straight, data, trainer_for(tmp_path / "straight", 2, precise_bn=2), None)
    broken, data = build(shards, num_workers=1)
    steps = {"precise_bn": 2, "checkpoint_every_n_steps": 1}
    stop = StopAtStep(data.num_train_batches(0) + 1)
    with pytest.raises(StoppedError):
        fit(broken, data, trainer_for(tmp_path / "broken", 2, stop, **steps), None)
    resumed, data = build(shards, num_workers=1)
    fit(resumed, data, trainer_for(tmp_path / "broken", 2, **steps), last_checkpoint(tmp_path / "broken"))
    assert data.first_batch == 1
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def spoil(path):
    with tarfile.open(path) as archive:
        member = next(member for member in archive if member.isfile() and not member.name.endswith(("cls", "json")))
    content = bytearray(path.read_bytes())
    content[member.offset_data : member.offset_data + member.size] = bytes(member.size)
    path.write_bytes(content)


def test_scoring_of_shards_goes_on_and_counts_bad_videos(shards, tmp_path):
    classifier, data = build(shards)

    def score(data, folder, *callbacks):
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, use_distributed_sampler=False, enable_progress_bar=False,
            enable_checkpointing=False, callbacks=list(callbacks),
        )  # fmt: skip
        return score_videos(classifier, data, "test", trainer, tmp_path / folder, {})

    whole = score(data, "whole")
    videos = len(data.annotations("test"))
    assert videos == len(whole.labels)
    with pytest.raises(StopIteration):
        data.scoring_dataloader("test", done=range(videos)).__iter__().__next__()
    log = next((tmp_path / "whole").glob("*"))
    before = log.read_bytes()
    again = score(data, "whole")
    assert torch.equal(again.probs, whole.probs)
    assert log.read_bytes() == before
    spoiled = tmp_path / "shards"
    spoiled.mkdir()
    for path in (shards / "test").iterdir():
        (spoiled / path.name).write_bytes(path.read_bytes())
    spoil(spoiled / "test-000000.tar")
    data = VideoDataModule(**{**data.hparams, "test": str(spoiled), "unreadable": "skip"})
    unreadable = UnreadableLog(None)
    part = score(data, "part", UnreadableClips(unreadable))
    assert len(part.labels) == videos - 1
    assert list(unreadable.videos("test")) == [data.annotations("test").records[0].path]
