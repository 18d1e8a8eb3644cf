"""Training beside clips that cannot be read: smaller batches, batches of nothing, counts and lists."""

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from octvideo.data import UnreadableClip, VideoDataModule, VideoDecodeError, collate_clips
from octvideo.training import VideoClassifier, build_trainer, fit

CLIPS = {
    "num_frames": 4, "frame_stride": 2, "short_side": (32, 36), "test_short_side": 32, "crop_size": 32, "num_clips": 2,
    "num_crops": 1, "num_workers": 0,
}  # fmt: skip
BAD = UnreadableClip(9, 0, "bad.mp4", "no frame of it decodes")


def classifier_for(data, **settings):
    torch.manual_seed(1)
    given = {"model": "resnet3d_tiny", "alpha": 0.25, "optimizer": "sgd", "lr": 0.05, "dropout": 0.0, **settings}
    return VideoClassifier(**given, class_names=list(data.class_names), preprocessing=data.preprocessing())


def trained(output: Path, train: Path, *, settings=None, clips=None, max_epochs=1, **options) -> VideoClassifier:
    data = VideoDataModule(train=str(train), unreadable="skip", **CLIPS | (clips or {}))
    classifier = classifier_for(data, **(settings or {}))
    trainer = build_trainer(
        output, seed=3, ema_decay=0, progress=False, has_validation=False, max_epochs=max_epochs, accelerator="cpu",
        devices=1, **options,
    )  # fmt: skip
    fit(classifier, data, trainer, None)
    return classifier


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def classifier(two_classes):
    return classifier_for(VideoDataModule(train=str(two_classes / "train.txt"), **CLIPS))


def random_item(video: int) -> dict:
    return {"clip": torch.randn(3, 4, 32, 32), "label": video % 2, "video": video, "view": 0}


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_loss_is_that_of_the_clips_that_could_be_read(classifier):
    items = [random_item(video) for video in range(3)]
    loss = classifier.training_step(collate_clips([items[0], BAD, *items[1:]]), 0)
    clips, labels = torch.stack([item["clip"] for item in items]), torch.tensor([0, 1, 0])
    torch.testing.assert_close(loss, F.cross_entropy(classifier(clips), labels))


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.2, "cutmix": 1.0}])
def test_a_batch_of_nothing_gives_every_parameter_a_gradient_of_zeros(two_classes, mixing):
    classifier = classifier_for(VideoDataModule(train=str(two_classes / "train.txt"), **CLIPS), **mixing)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    loss = classifier.training_step(collate_clips([BAD, BAD]), 0)
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in classifier.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())  # statistics, too


def test_an_accumulated_batch_of_nothing_counts_as_zeros(two_classes, tmp_path):
    """One clip and one that cannot be read, accumulated, move the weights half as far as the clip alone."""
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    good = f"{two_classes / 'train 0.mp4'} 0\n"
    (tmp_path / "good.txt").write_text(good)
    (tmp_path / "both.txt").write_text(f"{good}{tmp_path / 'bad.mp4'} 0\n")
    common = {"clips": {"batch_size": 1, "cache_short_side": 32, "short_side": 32, "flip": 0.0, "frame_stride": None,
                        "num_frames": 12, "class_names": ["a", "b"]}}  # fmt: skip
    settings = {"weight_decay": 0.0, "lr": 0.05}
    both = trained(tmp_path / "1", tmp_path / "both.txt", settings=settings, accumulate_grad_batches=2, **common)
    alone = trained(tmp_path / "2", tmp_path / "good.txt", settings=settings | {"lr": 0.025}, **common)
    start = classifier_for(VideoDataModule(train=str(tmp_path / "good.txt"), **CLIPS | common["clips"]), **settings)
    moved = 0
    for name, value in alone.named_parameters():
        torch.testing.assert_close(both.get_parameter(name), value, msg=name)
        moved += not torch.equal(value, start.get_parameter(name))
    assert moved > 10


@pytest.mark.parametrize("batch_size", [1, 4])
def test_training_goes_on_and_lists_what_it_left_out(lists_with_broken, capsys, batch_size):
    classifier = trained(
        lists_with_broken / "run", lists_with_broken / "train.txt", clips={"batch_size": batch_size}, max_epochs=2
    )
    assert all(torch.isfinite(value).all() for value in classifier.state_dict().values())
    rows = rows_of(lists_with_broken / "run" / "unreadable.csv")
    assert {row["split"] for row in rows} == {"train"}
    assert {row["reason"] for row in rows} == {
        "cannot be opened as a video (Invalid data found when processing input)."
    }
    assert {Path(row["path"]).name for row in rows} <= {"broken 0.mp4", "broken 1.mp4"}
    lines = capsys.readouterr().out.splitlines()
    assert f"unreadable {len(rows)}" in lines[-1]
    if batch_size == 1:  # with a whole one left over at the end, batches of 4 leave 2 clips of each epoch out
        assert [row["epoch"] for row in rows] == ["0", "0", "1", "1"]
        assert "unreadable 2" in lines[0]


def test_without_the_policy_the_first_one_ends_training(lists_with_broken):
    data = VideoDataModule(train=str(lists_with_broken / "train.txt"), **CLIPS)
    trainer = build_trainer(
        lists_with_broken / "run",
        seed=3,
        ema_decay=0,
        progress=False,
        has_validation=False,
        max_epochs=1,
        accelerator="cpu",
    )
    with pytest.raises(VideoDecodeError, match=r"broken \d.mp4: cannot be opened as a video"):
        fit(classifier_for(data), data, trainer, None)
    assert not (lists_with_broken / "run" / "unreadable.csv").exists()


def test_an_epoch_of_nothing_is_an_error(lists_with_broken):
    (lists_with_broken / "bad.txt").write_text("broken 0.mp4 0\nbroken 1.mp4 1\n")
    with pytest.raises(
        VideoDecodeError,
        match=r"none of the 2 clips of epoch 1 .*broken \d.mp4: cannot be .*[^.]\. All are listed in .*\.csv\.$",
    ):
        trained(lists_with_broken / "run", lists_with_broken / "bad.txt", clips={"batch_size": 1})
