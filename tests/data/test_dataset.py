"""Items of the data set: the right frames, labels and views."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from octvideo.data import (
    Annotations,
    VideoDataset,
    VideoDecodeError,
    VideoRecord,
    centre_clip,
    iterate_frames,
    read_annotations,
    uniform_clips,
)

FULL_FRAME = {
    "short_side": 48,
    "crop_size": (48, 64),
    "test_short_side": 48,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "flip": 0.0,
}


@pytest.fixture(scope="module")
def annotations(painted_set):
    """Two classes, four videos each, of 20 to 27 frames."""
    return read_annotations(painted_set)


def shown(item, painted_reader):
    """Frame numbers that a full-frame clip shows."""
    return painted_reader((item["clip"] * 255).permute(1, 2, 3, 0))


def test_val_item_is_the_centre_clip(annotations, painted_reader):
    dataset = VideoDataset(annotations, num_frames=4, frame_stride=3, mode="val", **FULL_FRAME)
    assert len(dataset) == 8
    item = dataset[1]
    assert item["clip"].shape == (3, 4, 48, 64)
    assert item["clip"].dtype == torch.float32
    assert (item["label"], item["video"], item["view"]) == (0, 1, 0)
    assert shown(item, painted_reader) == centre_clip(22, 4, 3)
    assert torch.equal(item["clip"], dataset[1]["clip"])


def test_train_items_are_random_and_follow_the_seed(annotations, painted_reader):
    dataset = VideoDataset(annotations, num_frames=4, frame_stride=3, **FULL_FRAME)
    torch.manual_seed(1)
    clips = [shown(dataset[0], painted_reader) for _ in range(12)]
    assert len({clip[0] for clip in clips}) > 3
    assert all(clip == list(range(clip[0], clip[0] + 12, 3)) for clip in clips)
    torch.manual_seed(1)
    assert clips == [shown(dataset[0], painted_reader) for _ in range(12)]


@pytest.mark.parametrize("cache_short_side", [None, 48])
def test_test_mode_covers_clips_and_crops(annotations, painted_reader, cache_short_side):
    settings = FULL_FRAME | {"crop_size": 48}
    dataset = VideoDataset(
        annotations,
        num_frames=4,
        frame_stride=3,
        mode="test",
        num_clips=3,
        num_crops=3,
        cache_short_side=cache_short_side,
        **settings,
    )
    assert len(dataset) == 8 * 9
    items = [dataset[index] for index in range(9, 18)]
    assert [item["view"] for item in items] == list(range(9))
    assert {item["video"] for item in items} == {1}
    frames = read_annotation_frames(annotations.records[1].path)
    starts = [0, 6, 12]  # of clips of span 10 in a video of 22 frames
    for item in items:
        clip, crop = divmod(item["view"], 3)
        left = (0, 8, 16)[crop]
        expected = frames[starts[clip] : starts[clip] + 10 : 3, :, left : left + 48].permute(3, 0, 1, 2) / 255
        torch.testing.assert_close(item["clip"], expected)


def read_annotation_frames(path: str) -> torch.Tensor:
    """All frames of a video, read in order."""
    import av

    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.stack([torch.from_numpy(frame) for frame in frames])


def test_cache_decodes_each_video_once(annotations, painted_reader, monkeypatch):
    cache: dict[str, torch.Tensor] = {}
    settings = {"num_frames": 4, "frame_stride": 3, "cache_short_side": 24, "cache": cache, **FULL_FRAME}
    VideoDataset(annotations, mode="val", **settings).fill_cache()
    assert {path: tuple(video.shape[1:]) for path, video in cache.items()} == {
        record.path: (24, 32, 3) for record in annotations.records
    }
    monkeypatch.setattr("octvideo.data.dataset.decode_frames", lambda *args, **kwargs: pytest.fail("decoded again"))
    item = VideoDataset(annotations, mode="val", **settings)[2]
    assert item["clip"].shape == (3, 4, 48, 64)
    assert shown(item, painted_reader) == centre_clip(24, 4, 3)


def test_views_of_a_video_decode_each_frame_once(annotations, monkeypatch):
    from octvideo.data import stream as module

    decoded = []

    def counted(path, indices, **settings):
        for index, frame in zip(indices, iterate_frames(path, indices, **settings), strict=True):
            decoded.append((path, index))
            yield frame

    monkeypatch.setattr(module, "iterate_frames", counted)
    settings = FULL_FRAME | {"crop_size": 48}
    dataset = VideoDataset(annotations, num_frames=8, frame_stride=2, mode="test", num_clips=4, num_crops=3, **settings)
    in_order = [dataset[index]["clip"] for index in range(24)]
    needed = {(annotations.records[video].path, index) for video in range(2)
              for clip in uniform_clips(20 + 2 * video, 8, 2, 4) for index in clip}  # fmt: skip
    assert len(decoded) == len(needed)
    assert set(decoded) == needed
    for index in (23, 5, 6, 0, 22):
        assert torch.equal(dataset[index]["clip"], in_order[index])


def test_a_data_set_in_use_goes_to_spawned_and_forked_workers(annotations):
    dataset = VideoDataset(annotations, num_frames=4, frame_stride=3, mode="test", num_clips=3, **FULL_FRAME)
    expected = [dataset[index]["clip"] for index in range(3)]
    dataset[0]  # leaves a file open in the middle
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1]["clip"], expected[1])
    loader = DataLoader(Subset(dataset, [1, 2]), batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert all(torch.equal(item["clip"], clip) for item, clip in zip(loader, expected[1:], strict=True))


def test_shuffled_frames_are_the_same_frames_in_another_order(annotations, painted_reader):
    settings = {"num_frames": 8, "frame_stride": 2, "frame_order": "shuffled", **FULL_FRAME}
    dataset = VideoDataset(annotations, mode="val", **settings)
    order = shown(dataset[0], painted_reader)
    assert sorted(order) == centre_clip(20, 8, 2)
    assert order != sorted(order)
    assert order == shown(dataset[0], painted_reader)
    train = VideoDataset(annotations, mode="train", **settings)
    orders = [shown(train[0], painted_reader) for _ in range(5)]
    assert len({tuple(x - min(order) for x in order) for order in orders}) > 1


def test_target_fps_changes_the_stride(annotations, painted_reader):
    dataset = VideoDataset(annotations, num_frames=4, frame_stride=2, mode="val", target_fps=10, **FULL_FRAME)
    assert shown(dataset[0], painted_reader) == [2, 7, 12, 17]  # 25 frames per second: stride 5


def test_short_videos(annotations, painted_reader):
    settings = {"num_frames": 4, "frame_stride": 8, "mode": "val", **FULL_FRAME}
    assert shown(VideoDataset(annotations, short="repeat_last", **settings)[0], painted_reader) == [0, 8, 16, 19]
    assert shown(VideoDataset(annotations, short="wrap", **settings)[0], painted_reader) == [0, 8, 16, 4]
    with pytest.raises(ValueError, match=r"clip 0.mp4: a clip spans 25 frames, but the video has 20"):
        VideoDataset(annotations, short="error", **settings)[0]


def test_unknown_label_is_minus_one(painted_video):
    dataset = VideoDataset(
        Annotations((VideoRecord(str(painted_video), None),), ("a", "b")), num_frames=2, frame_stride=1, mode="val"
    )
    assert dataset[0]["label"] == -1


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_undecodable_video_is_named(tmp_path, num_workers):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    dataset = VideoDataset(Annotations((VideoRecord(str(path), 0),), ("a",)), num_frames=2, frame_stride=1)
    loader = torch.utils.data.DataLoader(dataset, num_workers=num_workers, timeout=60 if num_workers else 0)
    with pytest.raises(VideoDecodeError, match=r"broken.mp4: cannot be opened as a video"):
        next(iter(loader))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "training"}, "mode should be one of train, val, test, but it is 'training'"),
        ({"short": "mirror"}, "short should be one of repeat_last, wrap, error, but it is 'mirror'"),
        ({"frame_order": "reversed"}, "frame_order should be one of natural, shuffled"),
        ({"num_frames": 0}, "num_frames should be at least 1"),
        ({"num_clips": 0}, "num_clips should be at least 1"),
        ({"test_short_side": 100}, "crop_size 224 is larger than the short side of 100"),
    ],
)
def test_settings_are_checked_before_any_video_is_read(settings, message):
    annotations = Annotations((VideoRecord("a.mp4", 0),), ("a",))
    with pytest.raises(ValueError, match=message):
        VideoDataset(annotations, **({"num_frames": 8, "frame_stride": 8} | settings))


def test_index_outside(annotations):
    with pytest.raises(IndexError, match="index should be 0 to 7, but it is 8"):
        VideoDataset(annotations, num_frames=2, frame_stride=1)[8]
