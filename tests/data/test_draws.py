"""What an epoch draws depends on seed and epoch alone."""

import pytest
import torch

from octvideo.data import EpochSampler, VideoDataset, read_annotations
from octvideo.data.draws import ViewSampler


def test_every_index_once_and_another_order_each_epoch():
    epoch = 0
    sampler = EpochSampler(50, seed=3, epoch=lambda: epoch)
    first = list(sampler)
    assert sorted(index for index, _ in first) == list(range(50))
    assert len({seed for _, seed in first}) == 50
    assert list(sampler) == first
    epoch = 1
    assert list(sampler) != first
    assert list(EpochSampler(50, seed=4, epoch=lambda: 0)) != first
    assert len(sampler) == 50


def test_a_seeded_item_is_the_same_whatever_was_drawn_before(two_classes):
    annotations = read_annotations(two_classes / "train.txt")
    dataset = VideoDataset(
        annotations, num_frames=4, frame_stride=1, short_side=(32, 40), crop_size=24, test_short_side=32
    )
    before = torch.random.get_rng_state()
    first = dataset[(3, 77)]["clip"]
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(5)
    assert torch.equal(dataset[(3, 77)]["clip"], first)
    assert not torch.equal(dataset[(3, 78)]["clip"], first)


def test_segments_reach_over_the_whole_video(two_classes):
    annotations = read_annotations(two_classes / "train.txt")
    settings = {"num_frames": 4, "frame_stride": None, "test_short_side": 32, "crop_size": 24, "short_side": 32}
    views = VideoDataset(annotations, mode="test", num_clips=3, **settings)
    assert len(views) == 3 * len(annotations)
    assert [views._sample(views_info(15), clip) for clip in range(3)] == [[0, 4, 8, 11], [1, 5, 9, 13], [3, 6, 10, 14]]
    assert VideoDataset(annotations, mode="val", **settings)._sample(views_info(8), 0) == [1, 3, 5, 7]


def views_info(num_frames):
    from octvideo.data import VideoInfo

    return VideoInfo(num_frames=num_frames, fps=25.0, height=4, width=4, codec="h264")


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_every_video_comes_to_one_worker(num_workers):
    sampler = ViewSampler(num_videos=6, num_views=10, batch_size=4, num_workers=num_workers)
    order = list(sampler)
    assert sorted(order) == list(range(60))
    assert len(sampler) == 60
    workers = max(num_workers, 1)
    # What is left for the last batches may be mixed.
    batches = [order[start : start + 4] for start in range(0, 60, 4)][:-workers]
    videos = [{index // 10 for batch in batches[worker::workers] for index in batch} for worker in range(workers)]
    assert [len(mine) for mine in videos] == [6 // workers] * workers
    for video in range(6):
        assert [index for index in order if index // 10 == video] == list(range(10 * video, 10 * video + 10))
    if num_workers < 2:
        assert order == list(range(60))
