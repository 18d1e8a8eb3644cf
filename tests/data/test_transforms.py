"""Crops, flips and normalisation on frames whose pixels say where they come from."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from octvideo.data import EvalTransform, TrainTransform

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def ramp(height: int, width: int, num_frames: int = 2) -> torch.Tensor:
    """Frames whose red is the row, green the column and blue the frame number, uint8 (T, H, W, C)."""
    rows, columns = torch.arange(height), torch.arange(width)
    frame = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    frames = torch.zeros(num_frames, height, width, 3, dtype=torch.uint8)
    frames[..., :2] = frame.to(torch.uint8)
    frames[..., 2] = torch.arange(num_frames).view(-1, 1, 1)
    return frames


def pixels(clip: torch.Tensor) -> torch.Tensor:
    """Back from 0 .. 1 to the painted numbers."""
    return (clip * 255).round().to(torch.int64)


def test_centre_crop_without_scaling_shows_the_middle():
    clip = EvalTransform(short_side=20, crop_size=(10, 12), **PLAIN)(ramp(20, 31))
    assert clip.shape == (3, 2, 10, 12)
    assert clip.is_contiguous()
    red, green, blue = pixels(clip)
    assert red[0, :, 0].tolist() == list(range(5, 15))
    assert green[0, 0].tolist() == list(range(9, 21))
    assert blue[:, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(("height", "width", "axis"), [(20, 50, 1), (50, 20, 0)])
def test_crops_reach_both_ends_of_the_longer_side(height, width, axis):
    transform = EvalTransform(short_side=20, crop_size=20, num_crops=3, **PLAIN)
    starts = [int(pixels(transform(ramp(height, width), crop))[axis, 0, 0, 0]) for crop in range(3)]
    assert starts == [0, 15, 30]


@pytest.mark.parametrize(("height", "width"), [(32, 50), (50, 32), (64, 100)])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_all_crops_of_a_frame_are_its_crops_one_by_one(height, width, num_crops):
    transform = EvalTransform(short_side=32, crop_size=24, num_crops=num_crops)
    frame = torch.randint(256, (height, width, 3), dtype=torch.uint8)
    crops = transform.crops(frame)
    assert len(crops) == num_crops
    for number, crop in enumerate(crops):
        assert torch.equal(crop, transform.crop(height, width, number)(frame))


@pytest.mark.parametrize(("height", "width"), [(30, 40), (33, 61), (100, 80)])
def test_resizing_a_clip_is_resizing_its_frames(height, width):
    frames = torch.randint(256, (5, height, width, 3), dtype=torch.uint8)
    crop = EvalTransform(short_side=32, crop_size=24).crop(height, width)
    assert torch.equal(crop.resize(crop.cut(frames)), torch.stack([crop(frame) for frame in frames]))


def test_eval_matches_resizing_the_frame_first():
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randint(256, (1, 3, 6, 8), generator=generator, dtype=torch.uint8)
    frames = functional.resize(coarse, [96, 128]).permute(0, 2, 3, 1).contiguous()
    clip = EvalTransform(short_side=48, crop_size=40, **PLAIN)(frames)
    whole = functional.resize(frames.permute(0, 3, 1, 2).float(), [48, 64], antialias=True)
    expected = functional.center_crop(whole, [40, 40])[0] / 255
    assert (clip[:, 0] - expected)[:, 2:-2, 2:-2].abs().max() < 0.02


def test_a_wide_crop_of_an_upright_video_keeps_its_shape():
    red, green, _ = pixels(EvalTransform(short_side=16, crop_size=(16, 32), **PLAIN)(ramp(64, 32)))
    assert red.shape[-2:] == (16, 32)
    assert green[0, 0].tolist() == list(range(32))
    assert red[0, :, 0].tolist() == list(range(24, 40))


def test_normalisation():
    frames = torch.randint(256, (3, 8, 8, 3), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    clip = EvalTransform(short_side=8, crop_size=8, mean=mean, std=std)(frames)
    for channel in range(3):
        expected = (frames[..., channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(clip[channel].double(), expected, atol=1e-6, rtol=1e-6)


def test_training_crops_move_scale_and_stay_inside():
    transform = TrainTransform(short_side=(20, 40), crop_size=20, flip=0.0, **PLAIN)
    corners, widths = set(), set()
    for _ in range(100):
        red, green, _ = pixels(transform(ramp(40, 60)))
        corners.add((int(red[0, 0, 0]), int(green[0, 0, 0])))
        widths.add(int(green[0, 0, -1] - green[0, 0, 0]))
        assert torch.equal(red[0], red[1])  # every frame gets the same view
    assert len(corners) > 50
    assert min(widths) < 25
    assert max(widths) > 33


@pytest.mark.parametrize(("flip", "rate"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_flip_is_a_probability(flip, rate):
    transform = TrainTransform(short_side=10, crop_size=10, flip=flip, **PLAIN)
    greens = [transform(ramp(10, 10))[1, 0, 0] for _ in range(200)]
    flipped = [bool(green[0] > green[-1]) for green in greens]
    assert sum(flipped) / 200 == pytest.approx(rate, abs=0.12)


@pytest.mark.parametrize("settings", [{"color_jitter": 0.5}, {"rand_augment": 2}])
def test_augmentation_changes_all_frames_alike_and_follows_the_seed(settings):
    transform = TrainTransform(short_side=32, crop_size=32, flip=0.0, **settings)
    frames = ramp(32, 32)[:1].expand(4, -1, -1, -1).contiguous()
    results = []
    for seed in (1, 1, 2, 3, 4, 5):
        torch.manual_seed(seed)
        results.append(transform(frames))
        assert torch.equal(results[-1][:, :1].expand_as(results[-1]), results[-1])
    assert torch.equal(results[0], results[1])
    assert sum(not torch.equal(results[0], other) for other in results[2:]) >= 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EvalTransform(short_side=100, crop_size=112), "crop_size 112 is larger than the short side of 100"),
        (lambda: EvalTransform(crop_size=(1, 2, 3)), "crop_size should be one positive number or"),
        (lambda: EvalTransform(num_crops=0), "num_crops should be at least 1, but it is 0"),
        (lambda: TrainTransform(short_side=(320, 256)), r"short_side should be one positive number or \(least, most\)"),
        (lambda: TrainTransform(flip=1.5), r"flip should be between 0 and 1, but it is 1.5"),
        (lambda: TrainTransform(color_jitter=-1.0), "color_jitter should be between 0 and 1"),
        (lambda: TrainTransform(rand_augment=-1), "rand_augment should be a number of operations"),
        (lambda: TrainTransform(rand_augment_magnitude=31), "rand_augment_magnitude should be between 0 and 30"),
        (lambda: EvalTransform()(torch.zeros(2, 3, 8, 8)), r"frames should be uint8 \(T, H, W, C\), but they are"),
        (lambda: EvalTransform()(ramp(8, 8), crop=1), "crop should be 0 to 0, but it is 1"),
    ],
)
def test_errors_name_the_argument(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (31, 33)])
def test_stretch_shows_the_whole_frame_whatever_its_shape(height, width):
    """The frame's corners are the crop's corners; in training at least the given share of each side is seen."""
    frames = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    frames[:, : height // 2, : width // 2] = 255
    plain = {"crop_size": (24, 20), "mean": (0, 0, 0), "std": (1, 1, 1)}
    clip = EvalTransform(stretch=0.8, **plain)(frames)
    assert clip.shape == (3, 2, 24, 20)
    assert clip[0, 0, 0, 0] == 1
    assert clip[0, 0, 23, 19] == clip[0, 0, 0, 19] == clip[0, 0, 23, 0] == 0
    assert clip.mean() == pytest.approx(0.25, abs=0.03)
    for _ in range(20):
        bright = TrainTransform(stretch=0.8, flip=0, **plain)(frames)[0, 0]
        assert 0.25 - 0.2 < bright.mean() < 0.25 + 0.2
        assert bright[0, 0] == 1
    with pytest.raises(ValueError, match="num_crops should be 1 where stretch"):
        EvalTransform(stretch=1.0, num_crops=3, **plain)
    with pytest.raises(ValueError, match="stretch should be between 0 and 1, but it is 1.2"):
        TrainTransform(stretch=1.2, **plain)
