"""Frame indices against slow definitions written out here."""

from itertools import pairwise

import pytest
import torch

from octvideo.data import (
    SHORT_POLICIES,
    centre_clip,
    clip_span,
    random_clip,
    segment_clip,
    stride_for_fps,
    uniform_clips,
)


@pytest.mark.parametrize(("num_frames", "frame_stride", "span"), [(1, 5, 1), (8, 8, 57), (32, 2, 63), (4, 1, 4)])
def test_span_counts_first_and_last_frame(num_frames, frame_stride, span):
    assert clip_span(num_frames, frame_stride) == span


def test_random_clips_keep_the_stride_and_use_every_start():
    generator = torch.Generator().manual_seed(1)
    clips = [random_clip(20, 4, 3, generator) for _ in range(400)]
    assert {clip[0] for clip in clips} == set(range(11))
    for clip in clips:
        assert clip == [clip[0] + 3 * i for i in range(4)]
        assert clip[-1] < 20


def test_random_clip_without_generator_follows_the_global_state():
    torch.manual_seed(5)
    first = [random_clip(1000, 4, 3) for _ in range(5)]
    torch.manual_seed(5)
    assert first == [random_clip(1000, 4, 3) for _ in range(5)]


@pytest.mark.parametrize("video_frames", [57, 58, 91, 300])
@pytest.mark.parametrize("num_clips", [2, 3, 10])
def test_uniform_clips_reach_both_ends(video_frames, num_clips):
    clips = uniform_clips(video_frames, 8, 8, num_clips)
    assert len(clips) == num_clips
    assert clips[0][0] == 0
    assert clips[-1][-1] == video_frames - 1
    steps = [later[0] - earlier[0] for earlier, later in pairwise(clips)]
    assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize("video_frames", [57, 58, 301])
def test_one_clip_is_the_centre_one(video_frames):
    (clip,) = uniform_clips(video_frames, 8, 8, 1)
    assert clip == centre_clip(video_frames, 8, 8)
    assert 0 <= (video_frames - 1 - clip[-1]) - clip[0] <= 1


def test_short_policies():
    assert centre_clip(3, 5, 1, short="repeat_last") == [0, 1, 2, 2, 2]
    assert centre_clip(3, 5, 1, short="wrap") == [0, 1, 2, 0, 1]
    assert random_clip(1, 3, 4, short="repeat_last") == [0, 0, 0]
    with pytest.raises(ValueError, match=r"spans 5 frames, but the video has 3.*short to"):
        centre_clip(3, 5, 1, short="error")


@pytest.mark.parametrize("short", SHORT_POLICIES)
def test_a_video_as_long_as_the_clip_needs_no_policy(short):
    assert random_clip(10, 4, 3, short=short) == [0, 3, 6, 9]


def test_stride_follows_the_frame_rate():
    assert stride_for_fps(8, 25.0, None) == 8
    assert stride_for_fps(2, 60.0, 30.0) == 4
    # 25 frames per second against 30: positions 0, 1.67, 3.33, 5 round to whole frames.
    assert uniform_clips(6, 4, stride_for_fps(2, 25.0, 30.0), 1) == [[0, 2, 3, 5]]
    assert clip_span(4, stride_for_fps(2, 25.0, 30.0)) == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_clip(10, 0, 1), "num_frames should be at least 1, but it is 0"),
        (lambda: random_clip(10, 4, 0), "frame_stride should be positive, but it is 0"),
        (lambda: random_clip(0, 4, 1), "video_frames should be at least 1, but it is 0"),
        (lambda: random_clip(10, 4, 1, short="mirror"), "short should be one of .* but it is 'mirror'"),
        (lambda: uniform_clips(10, 4, 1, 0), "num_clips should be at least 1, but it is 0"),
        (lambda: stride_for_fps(8, 0.0, 30.0), "does not state its frame rate.*target_fps to None"),
        (lambda: stride_for_fps(8, 25.0, -1.0), "target_fps should be positive, but it is -1.0"),
    ],
)
def test_errors_name_the_argument_and_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_segments_cover_the_whole_video():
    """One frame from each equal segment, whatever the offset; short videos repeat frames in order."""
    for video_frames in (1, 5, 16, 17, 183):
        for offset in (0.0, 0.5, 0.999):
            indices = segment_clip(video_frames, 16, offset)
            for i, index in enumerate(indices):
                assert i * video_frames / 16 - 1 < index < (i + 1) * video_frames / 16
            assert indices == sorted(indices)
    for arguments, message in (((0, 4, 0.5), "video_frames"), ((4, 0, 0.5), "num_frames"), ((4, 4, 1.0), "offset")):
        with pytest.raises(ValueError, match=message):
            segment_clip(*arguments)
