"""`octvideo train` killed (SIGKILL) at random moments: the same weights, metrics and result as the straight run."""

import json
from pathlib import Path

import pytest
import torch

from octvideo.data import VideoDataModule
from octvideo.training import VideoClassifier, read_checkpoint

SPLITS = ("train", "val", "test")
KILLED_RUNS = Path(__file__).with_name("killed_runs.py")
SETTINGS = {
    "model.model": "resnet3d_tiny", "model.alpha": 0.25, "model.optimizer": "adamw", "model.lr": 0.003,
    "model.mixup": 0.2, "model.dropout": 0.5, "data.num_frames": 4, "data.frame_stride": 2, "data.short_side": 36,
    "data.test_short_side": 32, "data.crop_size": 32, "data.num_clips": 2, "data.num_crops": 1, "data.batch_size": 2,
    "data.cache_short_side": 40, "trainer.accelerator": "cpu", "ema_decay": 0.8, "checkpoint_every_n_steps": 1,
    "threads": 1, "seed": 5, "measure_latency": "false",
}  # fmt: skip


def train(warm_python, folder, output, kills, steps, **changes):
    values = SETTINGS | {f"data.{split}": folder / f"{'train' if split == 'train' else 'test'}.txt" for split in SPLITS}
    given = [text for name, value in (values | changes).items() for text in (f"--{name}", str(value))]
    run(warm_python, kills, steps, "checkpoints/last.ckpt", output, "train", *given, "--resume")


def run(warm_python, kills, writes, watched, output, *given):
    printed = warm_python.run([KILLED_RUNS, kills, writes, watched, output, *given], seconds=900)
    assert printed.out.splitlines()[-1:] == ["0 0"], printed
    assert "damaged" not in printed.err


def check_same(one, other):
    for name in ("last.ckpt", "best.ckpt"):
        weights, others = (read_checkpoint(folder / "checkpoints" / name) for folder in (one, other))
        for part in ("state_dict", "current_model_state"):
            assert weights[part].keys() == others[part].keys()
            assert all(torch.equal(value, others[part][key]) for key, value in weights[part].items()), name
    for name in ("metrics.csv", "videos.csv", "scores.0.jsonl"):
        ours, theirs = ((folder / name).read_text() for folder in (one, other))
        if name == "scores.0.jsonl":  # its first line names the checkpoint's sum, which holds paths
            ours, theirs = (sorted(text.splitlines()[1:]) for text in (ours, theirs))
        assert ours == theirs
    rows = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    assert rows[0]["top1_percent"] == rows[1]["top1_percent"]


@pytest.mark.parametrize(
    ("kills", "steps", "changes"),
    [
        (3, 2, {"trainer.max_epochs": 5, "data.num_workers": 0}),
        pytest.param(24, 3, {"trainer.max_epochs": 60, "data.num_workers": 1}, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_random_moments_ends_as_the_straight_one(
    two_classes, tmp_path, warm_python, kills, steps, changes
):
    train(warm_python, two_classes, tmp_path, kills, steps, **changes)
    check_same(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
def test_an_evaluation_killed_at_random_moments_ends_as_the_straight_one(two_classes, tmp_path, warm_python):
    data = VideoDataModule(
        test=str(two_classes / "test.txt"), num_frames=4, frame_stride=2, crop_size=32, test_short_side=32,
        num_clips=10, num_crops=3,
    )  # fmt: skip
    classifier = VideoClassifier("resnet3d_tiny", class_names=data.class_names, preprocessing=data.preprocessing())
    content = {"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}
    torch.save(content, tmp_path / "initial.ckpt")
    listed = (two_classes / "test.txt").read_text().splitlines()
    (tmp_path / "list.txt").write_text("\n".join(10 * listed))  # 40 videos
    given = ("--checkpoint", str(tmp_path / "initial.ckpt"), "--data", str(tmp_path / "list.txt"), "--batch_size", "4")
    given += ("--root", str(two_classes), "--accelerator", "cpu", "--num_workers", "1", "--threads", "1")
    run(warm_python, 4, 4, "scores.0.jsonl", tmp_path, "evaluate", *given)
    for name in ("videos.csv", "confusion.csv"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "straight" / name).read_text()
    rows = [(tmp_path / name / "scores.0.jsonl").read_text().splitlines() for name in ("killed", "straight")]
    assert sorted(rows[0]) == sorted(rows[1])  # each video once, to the last bit
    assert len(rows[0]) == 41
