"""Runs broken off anywhere and taken up again equal the straight run: weights and metrics.csv to the last bit."""

import csv
import os
import signal
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torchmetrics import MeanMetric

from octvideo.data import VideoDataModule
from octvideo.training import (
    VideoClassifier,
    build_trainer,
    fit,
    last_checkpoint,
    read_checkpoint,
    resumable_checkpoint,
)
from octvideo.training.resume import EpochSoFar, StepSeed, position


class StoppedError(Exception):
    """Stands for a run that dies."""


class StopAt(pl.Callback):
    def __init__(self, epoch, batch):
        self.place = epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place:
            raise StoppedError


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Only a power cut would show the difference."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def train(folder, output, *callbacks, num_workers=0, resume=False, every=1, crop_size=32, **options):
    """Train a small network for 3 epochs of 8 clips, with all that draws random numbers or averages."""
    data = VideoDataModule(
        train=str(folder / "train.txt"), val=str(folder / "test.txt"), num_frames=4, frame_stride=2,
        short_side=(32, 40), test_short_side=32, crop_size=crop_size, batch_size=1, cache_short_side=40,
        num_workers=num_workers,
    )  # fmt: skip
    torch.manual_seed(1)
    classifier = VideoClassifier(
        "resnet3d_tiny", alpha=0.25, optimizer="adamw", lr=3e-3, mixup=0.2, dropout=0.5, warmup_epochs=0.5,
        class_names=data.class_names, preprocessing=data.preprocessing(),
    )  # fmt: skip
    trainer = build_trainer(
        output, seed=3, ema_decay=0.8, progress=False, has_validation=True, checkpoint_every_n_steps=every,
        **{"max_epochs": 3, "accelerator": "cpu", "devices": 1, **options},
    )  # fmt: skip
    trainer.callbacks.extend(callbacks)
    fit(classifier, data, trainer, resumable_checkpoint(output) if resume else None)
    return classifier.state_dict()


def break_off(folder, output, *callbacks, **options):
    with pytest.raises(StoppedError):
        train(folder, output, *callbacks, **options)


def check_equal(weights, output, straight_weights, straight):
    for name, value in straight_weights.items():
        assert torch.equal(value, weights[name]), name
    assert (output / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def straight(two_classes, tmp_path_factory):
    """Weights and folder of the run that nothing broke off, without checkpoints within epochs."""
    output = tmp_path_factory.mktemp("straight")
    return train(two_classes, output, every=0), output


@pytest.mark.parametrize(
    ("place", "num_workers", "resumed_at"),
    [((0, 3), 0, (0, 3)), ((1, 0), 0, (1, 0)), ((1, 1), 2, (1, 1)), ((2, 7), 0, (2, 7))],
)
def test_a_run_resumed_within_an_epoch_equals_the_straight_one(
    two_classes, straight, tmp_path, place, num_workers, resumed_at
):
    break_off(two_classes, tmp_path, StopAt(*place), num_workers=num_workers)
    assert position(read_checkpoint(last_checkpoint(tmp_path))) == resumed_at
    check_equal(train(two_classes, tmp_path, resume=True, num_workers=num_workers), tmp_path, *straight)


def test_a_run_broken_off_again_and_again(two_classes, straight, tmp_path):
    for place in ((0, 2), (0, 6), (1, 5), (2, 1)):
        break_off(two_classes, tmp_path, StopAt(*place), resume=True, every=3)
    check_equal(train(two_classes, tmp_path, resume=True, every=3), tmp_path, *straight)


def test_the_last_checkpoint_knows_of_the_best(two_classes, tmp_path):
    """Or else a worse epoch would take the best one's place after a resumption."""
    break_off(two_classes, tmp_path, StopAt(1, 0), every=0)
    with open(tmp_path / "metrics.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    states = read_checkpoint(last_checkpoint(tmp_path))["callbacks"]
    (best,) = (state for name, state in states.items() if "val_top1_percent" in name)
    assert float(best["best_model_score"]) == float(row["val_top1_percent"])


@pytest.mark.parametrize(
    ("options", "resumed_at"),
    [
        ({"accumulate_grad_batches": 3}, (1, 3)),
        ({"val_check_interval": 0.5}, (1, 5)),
        ({"val_check_interval": 5, "check_val_every_n_epoch": None}, (1, 5)),
        ({"check_val_every_n_epoch": 2, "gradient_clip_val": 0.5}, (1, 5)),
        ({"limit_train_batches": 6, "precision": "64-true"}, (1, 5)),
    ],
)
def test_checkpoints_lie_where_the_run_can_be_taken_up_exactly(two_classes, tmp_path, options, resumed_at):
    """Not while gradients accumulate, nor right before a validation."""
    weights = train(two_classes, tmp_path / "straight", every=0, **options)
    break_off(two_classes, tmp_path / "broken", StopAt(1, 5), **options)
    assert position(read_checkpoint(last_checkpoint(tmp_path / "broken"))) == resumed_at
    resumed = train(two_classes, tmp_path / "broken", resume=True, **options)
    check_equal(resumed, tmp_path / "broken", weights, tmp_path / "straight")


def test_the_scale_of_mixed_precision_is_taken_up(two_classes, tmp_path):
    """float16 with loss scaling on the CPU; the scale grows every second step, and so must be where it was."""

    def precision():
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=2)
        # Small crops, for a CPU is slow in float16.
        return {"plugins": [pl.plugins.MixedPrecision("16-mixed", "cpu", scaler)], "max_epochs": 1, "crop_size": 16}

    weights = train(two_classes, tmp_path / "straight", every=0, **precision())
    break_off(two_classes, tmp_path / "broken", StopAt(0, 5), **precision())
    stored = read_checkpoint(last_checkpoint(tmp_path / "broken"))["MixedPrecision"]
    assert (stored["scale"], stored["_growth_tracker"]) == (2.0**6, 1)
    resumed = train(two_classes, tmp_path / "broken", resume=True, **precision())
    check_equal(resumed, tmp_path / "broken", weights, tmp_path / "straight")


class SendSignal(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_told_to_stop_writes_a_checkpoint_first(two_classes, straight, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(two_classes, tmp_path, SendSignal(), every=0)
    assert position(read_checkpoint(last_checkpoint(tmp_path))) == (1, 3)
    assert signal.getsignal(signal.SIGTERM) == before
    check_equal(train(two_classes, tmp_path, resume=True, every=0), tmp_path, *straight)


def test_steps_draw_by_their_place():
    def drawn(seed, epoch, batch, rank=0):
        trainer = type("Trainer", (), {"current_epoch": epoch, "global_rank": rank})
        StepSeed(seed).on_train_batch_start(trainer, None, None, batch)
        return torch.rand(()).item()

    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0, 1), (11, 1, 1), (1, 11, 1), (1, 1, 11)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert drawn(2, 3, 4) == drawn(2, 3, 4)


def test_each_process_goes_on_with_its_own_sums_of_the_epoch():
    """Two whose sums differ in float32 by the order in which all is added up."""
    losses = [[0.1, 0.2], [0.3, 1e-8]]
    modules = [SimpleNamespace(train_loss=MeanMetric(), device="cpu") for _ in losses]
    for module, values in zip(modules, losses, strict=True):
        for value in values:
            module.train_loss.update(value, 3)

    def trainer(rank):
        def all_gather(value):
            names = [name for name, own in modules[rank].train_loss.metric_state.items() if own.equal(value)]
            return torch.stack([module.train_loss.metric_state[names[0]] for module in modules])

        return SimpleNamespace(global_rank=rank, world_size=2, strategy=SimpleNamespace(all_gather=all_gather))

    checkpoint = {"loops": {"fit_loop": {
        "epoch_progress": {"current": {"processed": 1, "ready": 2}},
        "epoch_loop.batch_progress": {"current": {"processed": 2}},
    }}}  # fmt: skip
    EpochSoFar().on_save_checkpoint(trainer(0), modules[0], checkpoint)
    for rank, module in enumerate(modules):
        resumed = SimpleNamespace(train_loss=MeanMetric(), device="cpu")
        EpochSoFar().on_load_checkpoint(trainer(rank), resumed, checkpoint)
        assert resumed.train_loss.metric_state == module.train_loss.metric_state


def test_wrong_number_of_steps(two_classes, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every_n_steps must be 0 or more; got -1"):
        train(two_classes, tmp_path, every=-1)


def test_another_number_of_processes_within_an_epoch_is_refused(two_classes, tmp_path):
    break_off(two_classes, tmp_path, StopAt(1, 3))
    path = last_checkpoint(tmp_path)
    content = read_checkpoint(path)
    content["epoch_so_far"]["world_size"] = 8
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"in the middle of epoch 2 by 8 process.es., and now there are 1: resume with"
    ):
        train(two_classes, tmp_path, resume=True)
