"""Clips made in processes that can be killed: the same clips, a file that hangs or crashes named or skipped."""

import ctypes
import itertools
import os
import pickle
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader

from octvideo.data import (
    GuardedDataset,
    UnreadableClip,
    VideoDataModule,
    VideoDataset,
    VideoDecodeError,
    collate_clips,
    decode_frames,
    iterate_frames,
    read_annotations,
)

SETTINGS = {"num_frames": 4, "frame_stride": 3, "short_side": (48, 56), "crop_size": 32, "test_short_side": 48}
STUCK = "clip 2.mp4"  # of 8, which it is the third of
HOWS = {
    "sleep": lambda: time.sleep(60),
    "spin": lambda: ctypes.PyDLL(None).sleep(60),  # in C, with Python's lock
    "crash": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
REASONS = {
    "sleep": "decoding took more than 0.5 s and was stopped. Give it more time (timeout_seconds).",
    "spin": "decoding took more than 0.5 s and was stopped. Give it more time (timeout_seconds).",
    "crash": "the process that decoded it was killed by SIGSEGV.",
    "kill": "the process that decoded it was killed by SIGKILL.",
}


@pytest.fixture(scope="module")
def annotations(painted_set):
    return read_annotations(painted_set / "list.txt")


@pytest.fixture
def stick(monkeypatch):
    """Makes every decode of the stuck video end badly."""

    def apply(how):
        def decode(path, *args, **kwargs):
            if path.endswith(STUCK):
                HOWS[how]()
            return decode_frames(path, *args, **kwargs)

        def iterate(path, *args, **kwargs):
            if path.endswith(STUCK):
                HOWS[how]()
            return iterate_frames(path, *args, **kwargs)

        monkeypatch.setattr("octvideo.data.dataset.decode_frames", decode)
        monkeypatch.setattr("octvideo.data.stream.iterate_frames", iterate)

    return apply


def same(one, other) -> bool:
    return torch.equal(one["clip"], other["clip"]) and all(one[k] == other[k] for k in ("label", "video", "view"))


@pytest.mark.parametrize("mode", ["train", "val", "test"])
@pytest.mark.parametrize("cache_short_side", [None, 48])
def test_items_are_those_of_the_data_set(annotations, mode, cache_short_side):
    dataset = VideoDataset(
        annotations, mode=mode, num_clips=3, num_crops=2, cache_short_side=cache_short_side, **SETTINGS
    )
    for seconds in (60, 0):
        guarded = GuardedDataset(dataset, timeout_seconds=seconds)
        assert len(guarded) == len(dataset)
        indices = [(index, 7 * index) for index in range(8)] if mode == "train" else list(range(len(dataset)))
        items = [guarded[index] for index in indices]  # kept while others are made
        assert all(same(item, dataset[index]) for item, index in zip(items, indices, strict=True))
    assert items[0]["clip"].shape == dataset.clip_shape


def test_one_child_makes_all_clips_of_a_process(annotations, monkeypatch):
    pids = []
    dataset = VideoDataset(annotations, **SETTINGS)
    monkeypatch.setattr(
        VideoDataset, "items_of", lambda self, *place: [{"clip": torch.zeros(self.clip_shape), "pid": os.getpid()}]
    )
    guarded = GuardedDataset(dataset)
    pids = [guarded[index]["pid"] for index in range(4)]
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()
    assert pickle.loads(pickle.dumps(guarded))[0]["pid"] not in (*pids, os.getpid())
    assert GuardedDataset(dataset, timeout_seconds=0)[0]["pid"] == os.getpid()


@pytest.mark.parametrize("how", HOWS)
def test_a_file_that_hangs_or_crashes_is_an_error_that_names_it(annotations, stick, how):
    stick(how)
    guarded = GuardedDataset(VideoDataset(annotations, **SETTINGS), timeout_seconds=0.5)
    assert guarded[1]["video"] == 1
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(VideoDecodeError) as caught:
            guarded[2]
        assert str(caught.value).startswith(f"{annotations.records[2].path}: {REASONS[how]} Re-encode the file")
    assert time.monotonic() - start < 0.2  # the second time it is not tried
    assert guarded[3]["video"] == 3


@pytest.mark.parametrize("how", ["spin", "crash"])
@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_without_a_file_that_hangs_or_crashes(annotations, stick, how, mode, num_workers):
    stick(how)
    dataset = VideoDataset(annotations, mode=mode, num_clips=2, **SETTINGS)
    guarded = GuardedDataset(dataset, timeout_seconds=0.5, unreadable="skip")
    loader = DataLoader(guarded, batch_size=3, num_workers=num_workers, collate_fn=collate_clips)
    batches = list(loader)
    videos, views = (torch.cat([batch[key] for batch in batches]).tolist() for key in ("video", "view"))
    views_of_each = range(dataset.num_views)
    assert list(zip(videos, views, strict=True)) == [
        (video, view) for video, view in itertools.product(range(8), views_of_each) if video != 2
    ]
    path = annotations.records[2].path
    reason = REASONS[how]
    assert [clip for batch in batches for clip in batch["unreadable"]] == [
        UnreadableClip(2, view, path, reason) for view in views_of_each
    ]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_data_module_ends_training_with_the_name_of_a_file_that_hangs(painted_set, stick, num_workers):
    stick("spin")
    module = VideoDataModule(
        train=str(painted_set / "list.txt"), num_workers=num_workers, batch_size=4, timeout_seconds=0.5, **SETTINGS
    )
    start = time.monotonic()
    with pytest.raises(VideoDecodeError, match=rf"{STUCK}: decoding took more than 0.5 s and was stopped"):
        list(module.train_dataloader())
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("num_workers", [0, 1])
def test_cached_videos_are_decoded_under_the_same_guard(painted_set, stick, num_workers):
    stick("spin")
    source = str(painted_set / "list.txt")
    given = {"train": source, "num_workers": num_workers, "timeout_seconds": 0.5, "cache_short_side": 48, **SETTINGS}
    with pytest.raises(VideoDecodeError, match=rf"{STUCK}: decoding took more than 0.5 s and was stopped"):
        list(VideoDataModule(**given).train_dataloader())
    module = VideoDataModule(**given, unreadable="skip")
    start = time.monotonic()
    for _ in range(2):
        [batch] = module.train_dataloader()
        assert sorted(batch["video"].tolist()) == [0, 1, 3, 4, 5, 6, 7]
        assert [clip.video for clip in batch["unreadable"]] == [2]
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("cache_short_side", [None, 48])
@pytest.mark.parametrize("seconds", [0, 60])
def test_errors_of_a_file_are_skipped_with_their_reasons(painted_set, tmp_path, cache_short_side, seconds):
    (tmp_path / "noise.mp4").write_bytes(b"no video")
    short = painted_set / "bend" / "clip 0.mp4"
    (tmp_path / "list.txt").write_text(f"noise.mp4 0\n{short} 0\n{painted_set}/wave/clip 7.mp4 1\n")
    dataset = VideoDataset(
        read_annotations(tmp_path / "list.txt"), short="error", cache_short_side=cache_short_side,
        **(SETTINGS | {"frame_stride": 8}),
    )  # fmt: skip
    guarded = GuardedDataset(dataset, timeout_seconds=seconds, unreadable="skip")
    assert guarded[0] == UnreadableClip(
        0, 0, str(tmp_path / "noise.mp4"), "cannot be opened as a video (Invalid data found when processing input)."
    )
    assert guarded[1].reason.startswith("a clip spans 25 frames, but the video has 20.")
    assert guarded[2]["video"] == 2
    os.remove(tmp_path / "noise.mp4")
    assert "no such video" in guarded[0].reason
    for outside in (-1, 3):
        with pytest.raises(IndexError, match="index"):
            guarded[outside]


def test_other_errors_are_never_skipped(annotations, monkeypatch):
    """A mistake in the program is no unreadable file."""

    def mistaken(self, *place):
        raise KeyError("a mistake")

    monkeypatch.setattr(VideoDataset, "items_of", mistaken)
    for seconds in (0, 60):
        with pytest.raises(KeyError, match="a mistake"):
            GuardedDataset(VideoDataset(annotations, **SETTINGS), timeout_seconds=seconds, unreadable="skip")[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unreadable": "ignore"}, "unreadable should be one of error, skip, but it is 'ignore'"),
        ({"timeout_seconds": -1}, "timeout_seconds should be at least 0, which sets no limit, but it is -1"),
    ],
)
def test_wrong_settings(annotations, settings, message):
    with pytest.raises(ValueError, match=message):
        GuardedDataset(VideoDataset(annotations, **SETTINGS), **settings)
