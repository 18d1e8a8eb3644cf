"""Runs with multigrid stages, scaled learning rates and repeated augmentation."""

import csv
import math
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from octvideo.data import VideoDataModule
from octvideo.training import VideoClassifier, build_trainer, fit, last_checkpoint, lr_scale

ROWS = [[1, 4, 2, 24], [3, 2, 4, 32]]  # epoch 0; 1 and 2; then the usual shape
SHAPES = [(8, 3, 2, 24, 24)] + [(4, 3, 4, 32, 32)] * 2 + [(2, 3, 4, 32, 32)]


class Watch(pl.Callback):
    """Writes down what every step sees."""

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.stop_at:
            raise KeyError("stopped")
        [lr] = {group["lr"] for group in trainer.optimizers[0].param_groups}
        self.seen.append((trainer.current_epoch, tuple(batch["clip"].shape), lr, batch["clip"].sum().item()))


def build(folder, **options):
    data = VideoDataModule(
        train=str(folder / "train.txt"), val=str(folder / "test.txt"), num_frames=4, frame_stride=2,
        short_side=(32, 40), test_short_side=32, crop_size=32, cache_short_side=40, multigrid=ROWS,
        **({"batch_size": 2, "num_workers": 0} | options),
    )  # fmt: skip
    torch.manual_seed(1)
    classifier = VideoClassifier(
        "resnet3d_tiny", alpha=0.25, lr=0.01, lr_batch_size=4, warmup_epochs=2, warmup_start=0.5, lr_steps=[3],
        class_names=data.class_names, preprocessing=data.preprocessing(),
    )  # fmt: skip
    return classifier, data


def train(folder, output, watch, resume=False, **options):
    classifier, data = build(folder, **options)
    trainer = build_trainer(
        output, seed=3, ema_decay=0, progress=False, has_validation=True, max_epochs=5, accelerator="cpu", devices=1,
        reload_dataloaders_every_n_epochs=1, accumulate_grad_batches=2,
    )  # fmt: skip
    trainer.callbacks.append(watch)
    fit(classifier, data, trainer, last_checkpoint(output) if resume else None)
    return classifier


def test_shapes_and_learning_rates_of_every_step(two_classes, tmp_path):
    """8 videos: each seen once an epoch; 2 clips x 2 accumulated batches are the 4 that the rate is meant for."""
    watch = Watch()
    train(two_classes, tmp_path, watch)
    batches = [1, 2, 2, 4, 4]
    factors = [4, 2, 2, 1, 1]
    assert [epoch for epoch, *_ in watch.seen] == [e for e, count in enumerate(batches) for _ in range(count)]
    assert [shape for _, shape, *_ in watch.seen] == [
        shape for shape, count in zip([*SHAPES, SHAPES[-1]], batches, strict=True) for _ in range(count)
    ]
    expected = []
    for epoch, count in enumerate(batches):
        steps = math.ceil(count / 2)
        for batch in range(count):
            at = epoch + (batch // 2) / steps
            warm = min(0.5 + 0.5 * at / 2, 1)
            expected.append(0.01 * warm * (0.1 if epoch >= 3 else 1) * factors[epoch])
    assert [lr for *_, lr, _ in watch.seen] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_equals_the_straight_one(two_classes, tmp_path, epoch):
    """Stopped at the start of a stage, inside it, and at its end."""
    whole, first, second = Watch(), Watch(stop_at=epoch), Watch()
    straight = train(two_classes, tmp_path / "straight", whole)
    with pytest.raises(KeyError, match="stopped"):
        train(two_classes, tmp_path / "broken", first)
    resumed = train(two_classes, tmp_path / "broken", second, resume=True, num_workers=1)
    assert first.seen + second.seen == whole.seen
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_trainer_that_keeps_its_loader_is_refused(two_classes, tmp_path):
    classifier, data = build(two_classes)
    trainer = build_trainer(
        tmp_path, seed=0, ema_decay=0, progress=False, has_validation=True, max_epochs=2, accelerator="cpu", devices=1
    )
    with pytest.raises(ValueError, match="set the trainer's reload_dataloaders_every_n_epochs to 1"):
        fit(classifier, data, trainer, None)


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulated", "lr_batch_size", "expected"),
    [(8, 8, 1, 64, 1), (8, 1, 1, 64, 1 / 8), (16, 4, 2, 64, 2), (8, 16, 1, 128, 1), (8, 8, 1, None, 1)],
)
def test_the_linear_scaling_rule(batch_size, world_size, accumulated, lr_batch_size, expected):
    trainer = SimpleNamespace(
        datamodule=VideoDataModule(batch_size=batch_size), world_size=world_size, accumulate_grad_batches=accumulated
    )
    assert lr_scale(trainer, lr_batch_size) == expected


def test_scaling_needs_to_know_the_batch():
    with pytest.raises(ValueError, match="lr_batch_size needs the batch size of a VideoDataModule"):
        lr_scale(SimpleNamespace(datamodule=None), 64)
    with pytest.raises(ValueError, match="lr_batch_size must be 1 or more; got 0"):
        VideoClassifier("resnet3d_tiny", class_names=["a", "b"], lr_batch_size=0)


def test_two_processes_through_the_command_line(two_classes, tmp_path, warm_python):
    """Everything at once, on two processes: half the batches of one, twice the learning rate, a whole result."""
    options = {
        "model.model": "resnet3d_tiny", "model.lr": 0.01, "model.lr_batch_size": 4, "model.lr_steps": "[2]",
        "data.train": two_classes / "train.txt", "data.val": two_classes / "test.txt", "data.num_frames": 4,
        "data.frame_stride": 2, "data.short_side": "[32, 40]", "data.test_short_side": 32, "data.crop_size": 32,
        "data.batch_size": 4, "data.num_samples": 2, "data.multigrid": "[[1, 2, 2, 24]]", "data.num_workers": 0,
        "data.cache_short_side": 40, "data.num_clips": 1, "data.num_crops": 1, "trainer.max_epochs": 3,
        "trainer.accelerator": "cpu", "trainer.devices": 2, "trainer.log_every_n_steps": 1, "precise_bn": 2,
        "threads": 1, "measure_latency": "false", "output": tmp_path / "run",
    }  # fmt: skip
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    warm_python.run_ranks(["-m", "octvideo", "train", *given])
    with open(tmp_path / "run" / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # 4 clips x 2 processes where 4 are meant: twice the rate, for the step that follows each epoch.
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.02, 0.002, 0.002])
    steps = {int(row["epoch"]): int(row["step"]) for row in rows if row["train_loss"]}
    assert steps == {1: 1, 2: 3, 3: 5}  # 4 videos a process: 1 batch of 4 of them, then 2 batches of 2
    assert (tmp_path / "run" / "result.json").is_file()
