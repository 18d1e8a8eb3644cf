"""What an epoch draws depends on seed and epoch alone."""

import torch

from octvideo.data import EpochSampler, VideoDataset, read_annotations


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
