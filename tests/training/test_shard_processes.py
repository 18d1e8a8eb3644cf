"""Training over shards on two processes (gloo, on this machine), whose videos and shards do not divide evenly."""

import csv
import sys
from collections import Counter

import pytest

from octvideo.cli import main
from octvideo.report import read_result
from octvideo.training import VideoClassifier

pytest.importorskip("webdataset")

NUM_EPOCHS, NUM_RANKS = 3, 2
SETTINGS = {
    "model.model": "resnet3d_tiny", "model.alpha": 0.25, "model.lr": 0.02, "data.num_frames": 4, "data.frame_stride": 2,
    "data.short_side": 36, "data.test_short_side": 32, "data.crop_size": 32, "data.num_clips": 2, "data.num_crops": 1,
    "data.batch_size": 1, "trainer.accelerator": "cpu", "trainer.max_epochs": NUM_EPOCHS, "trainer.devices": NUM_RANKS,
    "trainer.num_sanity_val_steps": 0, "threads": 1, "measure_latency": "false",
}  # fmt: skip
METRICS = ("num_videos", "top1_percent", "top5_percent", "mean_class_percent", "per_class_percent")


def record(folder, command):
    """What each of two processes runs: a command, with the videos of each step written to a file."""

    def recorded(step, name):
        def run(self, batch, *rest):
            with open(f"{folder}/{name}.{self.global_rank}.csv", "a", encoding="utf-8") as file:
                file.writelines(f"{self.current_epoch},{video}\n" for video in batch["video"].tolist())
            return step(self, batch, *rest)

        return run

    for name in ("training_step", "validation_step", "test_step"):
        setattr(VideoClassifier, name, recorded(getattr(VideoClassifier, name), name))
    return main(command)


@pytest.fixture(scope="module")
def shards(two_classes, tmp_path_factory):
    """Seven videos each for training, in shards of 3, 3 and 1, and for evaluation, in shards of 5 and 2."""
    from octvideo.data.shards import pack_videos

    folder = tmp_path_factory.mktemp("seven")
    names = {"train": ["train"] * 7, "test": ["test"] * 4 + ["train"] * 3}
    for split, size in (("train", 3), ("test", 5)):
        lines = [f"{two_classes}/{name} {names[split][:n].count(name)}.mp4" for n, name in enumerate(names[split])]
        text = "".join(f"{line} {line[-5:-4] in '1357':d}\n" for line in lines)
        (folder / f"{split}.txt").write_text(text)
        pack_videos(folder / f"{split}.txt", folder / split, copy=True, num_workers=0, shard_size=size)
        assert len(list((folder / split).glob("*.tar"))) > 1
    return folder


@pytest.fixture(scope="module", params=[0, 2])
def trained(request, shards, tmp_path_factory, warm_python):
    """A run on two processes with so many workers each, and what they saw."""
    folder = tmp_path_factory.mktemp("trained")
    lists = {"data.train": shards / "train", "data.val": shards / "test", "data.test": shards / "test"}
    values = SETTINGS | lists | {"output": folder / "run", "data.num_workers": request.param}
    command = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    warm_python.run_ranks([__file__, folder, "train", *command])
    return folder


def seen(folder, step) -> list[dict[int, list[int]]]:
    """The videos of a step by epoch, of each process."""
    ranks = []
    for rank in range(NUM_RANKS):
        epochs: dict[int, list[int]] = {}
        with open(folder / f"{step}.{rank}.csv", newline="", encoding="utf-8") as file:
            for epoch, video in csv.reader(file):
                epochs.setdefault(int(epoch), []).append(int(video))
        ranks.append(epochs)
    return ranks


def test_processes_train_on_videos_of_their_own(trained):
    one, other = seen(trained, "training_step")
    assert list(one) == list(other) == list(range(NUM_EPOCHS))
    for epoch in range(NUM_EPOCHS):
        assert len(one[epoch]) == len(other[epoch]) == 3
        assert len({*one[epoch], *other[epoch]}) == 6
    assert len({tuple(one[epoch] + other[epoch]) for epoch in range(NUM_EPOCHS)}) == NUM_EPOCHS


def test_every_video_is_scored_once(trained):
    views = Counter(video for epochs in seen(trained, "test_step") for videos in epochs.values() for video in videos)
    assert views == dict.fromkeys(range(7), 2)
    for epoch in range(NUM_EPOCHS):
        shares = [set(epochs[epoch]) for epochs in seen(trained, "validation_step")]
        assert set.union(*shares) == set(range(7))


def test_scores_are_those_of_one_process(trained, shards, tmp_path):
    """The run's own on two processes, and one process over the same shards and checkpoint: equal to the last bit."""
    checkpoint = trained / "run" / "checkpoints" / "best.ckpt"
    given = ["evaluate", "--checkpoint", checkpoint, "--data", shards / "test", "--output", tmp_path / "one"]
    given += ["--batch_size", 1, "--num_workers", 0, "--accelerator", "cpu", "--threads", 1]
    assert main(list(map(str, given))) == 0
    two, one = (read_result(folder / "result.json") for folder in (trained / "run", tmp_path / "one"))
    assert one.num_videos == 7
    assert [getattr(one, name) for name in METRICS] == [getattr(two, name) for name in METRICS]
    assert (tmp_path / "one" / "videos.csv").read_bytes() == (trained / "run" / "videos.csv").read_bytes()


def test_validation_counts_each_video_once(trained, shards, tmp_path):
    """The last epoch's accuracy by two processes is that of its checkpoint by one, over one view a video."""
    checkpoint = trained / "run" / "checkpoints" / "last.ckpt"
    given = ["evaluate", "--checkpoint", checkpoint, "--data", shards / "test", "--output", tmp_path / "one"]
    given += ["--num_clips", 1, "--num_crops", 1, "--num_workers", 0, "--accelerator", "cpu", "--threads", 1]
    assert main(list(map(str, given))) == 0
    with open(trained / "run" / "metrics.csv", newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["val_top1_percent"]) == pytest.approx(read_result(tmp_path / "one" / "result.json").top1_percent)


if __name__ == "__main__":
    sys.exit(record(sys.argv[1], sys.argv[2:]))
