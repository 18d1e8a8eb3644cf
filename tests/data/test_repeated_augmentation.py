"""Several clips of each video in its batch, from one decoding."""

import pytest
import torch

from octvideo.data import VideoDataModule, VideoDataset, read_annotations
from octvideo.data import dataset as dataset_module

SETTINGS = {"num_frames": 3, "frame_stride": 1, "short_side": (32, 44), "crop_size": 24, "test_short_side": 32}


@pytest.fixture
def annotations(two_classes):
    return read_annotations(two_classes / "train.txt")


@pytest.mark.parametrize("cache", [None, 40])
def test_the_samples_share_video_and_frames_and_differ_in_augmentation(annotations, cache, monkeypatch):
    asked = []
    decode = dataset_module.decode_frames

    def counted(path, *given, **rest):
        asked.append(path)
        return decode(path, *given, **rest)

    monkeypatch.setattr(dataset_module, "decode_frames", counted)
    data = VideoDataset(annotations, num_samples=3, color_jitter=0.3, cache_short_side=cache, **SETTINGS)
    items = data.__getitems__([(2, 5), (0, 6)])
    assert [item["video"] for item in items] == [2, 2, 2, 0, 0, 0]
    assert [item["label"] for item in items] == [0, 0, 0, 0, 0, 0]
    assert len(asked) == 2  # once a video, whatever the number of samples
    clips = [item["clip"] for item in items]
    assert {tuple(clip.shape) for clip in clips} == {(3, 3, 24, 24)}
    assert not any(torch.equal(a, b) for a, b in ((clips[0], clips[1]), (clips[1], clips[2]), (clips[3], clips[4])))
    again = data.__getitems__([(2, 5)])
    assert all(torch.equal(a["clip"], b["clip"]) for a, b in zip(again, items, strict=False))
    assert torch.equal(data[2, 5]["clip"], clips[0])


def test_one_frame_per_sample_without_augmentation_is_the_same(annotations):
    """Nothing but the augmentation differs: fixed crops of the whole frame, no flip, give equal clips."""
    data = VideoDataset(annotations, num_samples=2, stretch=1.0, flip=0, **SETTINGS)
    first, second = data.__getitems__([(4, 1)])
    assert torch.equal(first["clip"], second["clip"])


def test_a_batch_counts_all_clips(two_classes):
    module = VideoDataModule(
        train=str(two_classes / "train.txt"), val=str(two_classes / "test.txt"), batch_size=4, num_samples=2,
        num_workers=0, **SETTINGS,
    )  # fmt: skip
    batches = list(module.train_dataloader())
    assert [len(batch["clip"]) for batch in batches] == [4, 4, 4, 4]
    videos = torch.cat([batch["video"] for batch in batches])
    assert torch.equal(videos[::2], videos[1::2])
    assert sorted(videos[::2].tolist()) == list(range(8))
    assert len(batches) == module.num_train_batches(0)
    assert [len(batch["clip"]) for batch in module.val_dataloader()] == [4]


def test_wrong_numbers_of_samples(annotations):
    with pytest.raises(ValueError, match=r"num_samples should be a divisor of batch_size \(8\), but it is 3"):
        VideoDataModule(num_samples=3)
    with pytest.raises(ValueError, match="num_samples should be at least 1, but it is 0"):
        VideoDataset(annotations, num_samples=0, **SETTINGS)
