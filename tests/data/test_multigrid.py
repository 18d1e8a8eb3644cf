"""Stages of multigrid training: their plan, their clips, and what an epoch of each draws."""

import math

import pytest
import torch

from octvideo.data import VideoDataModule, plan_long_cycle
from octvideo.data.multigrid import read_stages, stage_at

SMALL = {
    "num_frames": 8, "frame_stride": 2, "short_side": (48, 56), "test_short_side": 48, "crop_size": 32,
    "batch_size": 2, "num_workers": 0,
}  # fmt: skip
ROWS = [[1, 4, 2, 16], [3, 2, 4, 24]]


@pytest.fixture
def module(painted_set):
    return VideoDataModule(train=str(painted_set / "list.txt"), multigrid=ROWS, **SMALL)


def test_the_long_cycle_of_the_paper():
    """Wu et al. 2020, table 1: 8B x T/4 x H/sqrt(2), 4B x T/2 x H/sqrt(2), 2B x T/2 x H, B x T x H in each cycle."""
    plan = plan_long_cycle(32, 224, [94, 154, 196], 239)
    shapes = [(s.batch_factor, s.num_frames, s.crop_size) for s in plan.stages]
    cycle = [(8, 8, 158), (4, 16, 158), (2, 16, 224), (1, 32, 224)]
    assert shapes == cycle * 3 + [(1, 32, 224)]
    assert plan.max_epochs == round(239 * 1.5)
    starts = [0, *(s.until_epoch for s in plan.stages)]
    iterations = [(s.until_epoch - start) / s.batch_factor for start, s in zip(starts, plan.stages, strict=False)]
    for first, length in zip((0, 4, 8), (94, 60, 42), strict=True):  # each shape as often, cycles as long as the steps
        assert max(iterations[first : first + 4]) - min(iterations[first : first + 4]) <= 1  # whole epochs
        assert iterations[first] / length == pytest.approx(iterations[0] / 94, rel=0.06)
    saving = 196 / sum(iterations[:12])
    assert iterations[12] == pytest.approx(43 / saving, rel=0.05)  # the last phase is shortened as the others are
    assert plan.lr_steps == (starts[4], starts[8], (starts[12] + starts[13]) // 2)


def test_every_epoch_has_its_stage():
    stages = read_stages(ROWS)
    assert [s and s.num_frames for s in (stage_at(stages, epoch) for epoch in range(5))] == [2, 4, 4, None, None]
    assert stage_at((), 0) is None


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[0, 1, 1, 1]], [[2, 1, 1, 1], [2, 1, 1, 1]], [[1, 0, 1, 1]]])
def test_rows_that_are_no_stages(rows):
    with pytest.raises(ValueError, match="multigrid takes rows of until_epoch, batch_factor, num_frames, crop_size"):
        VideoDataModule(multigrid=rows)


def test_a_stage_larger_than_the_clips_is_refused_at_once(painted_set):
    """As where a recipe's crop is made smaller, and its rows are not."""
    message = r"multigrid has a crop_size of 79 until epoch 2, which is larger than crop_size 32: short_side \(48, 56\)"
    with pytest.raises(ValueError, match=message):
        VideoDataModule(train=str(painted_set / "list.txt"), multigrid=[[2, 4, 4, 79]], **SMALL)


def test_batches_have_their_stages_shape_and_every_video_once(module):
    seen = {}
    for module.first_epoch in (0, 1, 2, 3):
        batches = list(module.train_dataloader())
        assert len(batches) == module.num_train_batches(module.first_epoch)
        seen[module.first_epoch] = {tuple(batch["clip"].shape) for batch in batches}
        assert sorted(torch.cat([batch["video"] for batch in batches]).tolist()) == list(range(8))
    full = (2, 3, 8, 32, 32)
    assert seen == {0: {(8, 3, 2, 16, 16)}, 1: {(4, 3, 4, 24, 24)}, 2: {(4, 3, 4, 24, 24)}, 3: {full}}


def test_a_stage_keeps_the_span_in_time_and_shows_as_much(module):
    stage = read_stages(ROWS)[0].shape(module.hparams)
    assert stage == {"num_frames": 2, "frame_stride": 8, "crop_size": 16, "short_side": (24, 56)}
    dataset = module._build_dataset("train", read_stages(ROWS)[0])
    info = type("Info", (), {"num_frames": 27, "fps": 25.0})
    first, second = dataset._sample(info, 0)
    assert second - first == 8


def test_an_epoch_depends_on_seed_and_epoch_only(painted_set):
    def epoch(number, **changes):
        made = VideoDataModule(train=str(painted_set / "list.txt"), multigrid=ROWS, **(SMALL | changes))
        made.first_epoch = number
        return torch.cat([batch["clip"].flatten() for batch in made.train_dataloader()])

    assert torch.equal(epoch(1), epoch(1, num_workers=1))
    assert not torch.equal(epoch(1), epoch(2))
    assert not torch.equal(epoch(1), epoch(1, seed=1))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_numbers_of_batches(module, world_size):
    for epoch, factor in ((0, 4), (1, 2), (3, 1)):
        expected = max(math.ceil(8 / world_size) // (2 * factor), 1)
        assert module.num_train_batches(epoch, world_size) == expected
        assert module.batch_factor(epoch) == factor
