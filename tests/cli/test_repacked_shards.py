"""Shards packed anew behind the same path: scores and checkpoints of the former ones do not go on with them."""

import re
import shutil

import pytest
import torch

from octvideo.cli import main
from octvideo.report import read_result
from octvideo.training import read_checkpoint

pytest.importorskip("webdataset")

SMALL = {
    "model.model": "resnet3d_tiny", "data.num_frames": 4, "data.frame_stride": 2, "data.short_side": "[32, 36]",
    "data.test_short_side": 32, "data.crop_size": 32, "data.num_clips": 2, "data.num_crops": 1, "data.batch_size": 2,
    "data.num_workers": 0, "trainer.max_epochs": 1, "trainer.accelerator": "cpu", "threads": 1,
    "measure_latency": "false",
}  # fmt: skip


@pytest.fixture
def videos(two_classes, tmp_path):
    """A copy of the videos with their lists."""
    return shutil.copytree(two_classes, tmp_path / "videos")


def pack(videos, folder):
    from octvideo.data.shards import pack_videos

    shutil.rmtree(folder, ignore_errors=True)
    for split in ("train", "test"):
        pack_videos(videos / f"{split}.txt", folder / split, copy=True, num_workers=0, shard_size=3)


def change(videos, split):
    """Other contents under the names of two videos of one class, and not a byte more: only a checksum tells."""
    one, other = videos / f"{split} 0.mp4", videos / f"{split} 2.mp4"
    contents = [path.read_bytes() for path in (one, other)]
    size = max(map(len, contents))
    for path, content in zip((other, one), contents, strict=True):
        path.write_bytes(content.ljust(size, b"\0"))


def told(folder):
    """What the index says beside the checksums."""
    return re.sub('"sha256": "[0-9a-f]{64}"', "", (folder / "index.json").read_text())


def training(shards, output, **changes):
    splits = {f"data.{name}": shards / part for name, part in (("train", "train"), ("val", "test"), ("test", "test"))}
    values = SMALL | splits | {"output": output} | changes
    return ["train", *(text for name, value in values.items() for text in (f"--{name}", str(value)))]


def test_scores_of_other_shards_do_not_go_on(videos, tmp_path, capsys):
    shards, output = tmp_path / "shards", tmp_path / "scores"
    pack(videos, shards)
    assert main(training(shards, tmp_path / "run")) == 0
    given = ["evaluate", "--checkpoint", str(tmp_path / "run" / "checkpoints" / "last.ckpt"), "--num_workers", "0"]
    given += ["--accelerator", "cpu", "--output", str(output), "--data", str(shards / "test")]
    assert main(given) == 0
    scores = (output / "scores.0.jsonl").read_bytes()
    top1 = read_result(output / "result.json").top1_percent
    (output / "result.json").unlink()  # as if it had been broken off
    moved = shutil.copytree(shards, tmp_path / "moved")
    assert main([*given[:-1], str(moved / "test")]) == 0  # the same shards, wherever they lie
    assert (output / "scores.0.jsonl").read_bytes() == scores
    assert read_result(output / "result.json").top1_percent == top1
    (output / "result.json").unlink()
    before = told(shards / "test")
    change(videos, "test")
    pack(videos, shards)
    assert told(shards / "test") == before
    capsys.readouterr()
    assert main(given) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert f"{output / 'scores.0.jsonl'} holds scores of another evaluation: shards' sha256 was " in err
    assert (output / "scores.0.jsonl").read_bytes() == scores


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_run_over_other_shards_does_not_go_on(videos, tmp_path, capsys, split):
    shards, output = tmp_path / "shards", tmp_path / "run"
    pack(videos, shards)
    assert main(training(shards, output)) == 0
    (output / "result.json").unlink()  # as if it had died before the end
    checkpoint = (output / "checkpoints" / "last.ckpt").read_bytes()
    change(videos, split)
    pack(videos, shards)
    capsys.readouterr()
    assert main([*training(shards, output), "--resume"]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    name = "val" if split == "test" else "train"
    assert f"data.{name}: the shards {shards / split} hold other videos than those that the run began with" in err
    assert (output / "checkpoints" / "last.ckpt").read_bytes() == checkpoint


def test_a_run_over_the_same_shards_goes_on(videos, tmp_path):
    shards = tmp_path / "shards"
    pack(videos, shards)
    assert main(training(shards, tmp_path / "run")) == 0
    (tmp_path / "run" / "result.json").unlink()
    before = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    pack(videos, shards)  # the same bytes again
    assert main([*training(shards, tmp_path / "run"), "--resume"]) == 0
    after = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, after["state_dict"][name]) for name, value in before["state_dict"].items())
    assert set(before["VideoDataModule"]["shards"]) == {"train", "val"}
