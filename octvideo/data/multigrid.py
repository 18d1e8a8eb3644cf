"""Multigrid training: small clips in large batches first, the clips of the network in the end.

The long cycle of Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from octvideo.data.transforms import crop_size_pair

__all__ = ["LONG_CYCLE", "GridStage", "MultigridPlan", "plan_long_cycle", "read_stages", "stage_at"]

LONG_CYCLE = ((0.25, 0.5**0.5), (0.5, 0.5**0.5), (0.5, 1.0), (1.0, 1.0))
"""Shapes of a long cycle: shares of the clip's frames and of its crop (Wu et al., table 1)."""


@dataclass(frozen=True)
class GridStage:
    """Epochs with clips of one shape.

    Args:
        until_epoch: the first epoch that is no longer of the stage.
        batch_factor: how many times as many clips a batch has.
        num_frames: of a clip; the frames keep their span, that is, their stride grows as their number falls.
        crop_size: pixels of the training crop.
    """

    until_epoch: int
    batch_factor: int
    num_frames: int
    crop_size: int

    def shape(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        """The stage's settings of training clips, from the usual ones: num_frames, frame_stride, crop_size, short_side.

        The span in time stays, and the least short side shrinks with the crop, so that a crop shows as much.

        Raises:
            ValueError: the crop is so much larger than the usual one that the least short side is above the most.
        """
        stride, crop, side = usual["frame_stride"], usual["crop_size"], usual["short_side"]
        least, most = (side, side) if isinstance(side, int) else side
        shrink = self.crop_size / min(crop_size_pair(crop, None))
        if shrink > 1 and round(least * shrink) > most:
            raise ValueError(
                f"multigrid has a crop_size of {self.crop_size} until epoch {self.until_epoch}, which is larger than "
                f"crop_size {crop}: short_side {side} has no room for it. Give rows of smaller clips, as "
                "[until_epoch, batch_factor, num_frames, crop_size], or none."
            )
        return {
            "num_frames": self.num_frames,
            "frame_stride": None if stride is None else stride * usual["num_frames"] / self.num_frames,
            "crop_size": self.crop_size,
            "short_side": (round(least * shrink), most),
        }


@dataclass(frozen=True)
class MultigridPlan:
    """A whole training run: the data module's stages, the learning rate's steps, and the epochs in all."""

    stages: tuple[GridStage, ...]
    lr_steps: tuple[int, ...]
    max_epochs: int


def read_stages(rows: Sequence[Sequence[int]]) -> tuple[GridStage, ...]:
    """Stages from rows of (until_epoch, batch_factor, num_frames, crop_size).

    Raises:
        ValueError: a row of another length, a value below 1, or epochs that do not grow.
    """
    last = 0
    for row in rows:
        if len(row) != 4 or min(row) < 1 or row[0] <= last:
            raise ValueError(
                "multigrid takes rows of until_epoch, batch_factor, num_frames, crop_size, all 1 or more, with growing "
                f"epochs; got {list(row)} after epoch {last}."
            )
        last = row[0]
    return tuple(GridStage(*row) for row in rows)


def stage_at(stages: Sequence[GridStage], epoch: int) -> GridStage | None:
    """The stage of an epoch, counted from 0; None after the last one, where clips have their usual shape."""
    return next((stage for stage in stages if epoch < stage.until_epoch), None)


def plan_long_cycle(
    num_frames: int,
    crop_size: int,
    lr_steps: Sequence[int],
    max_epochs: int,
    *,
    epoch_factor: float = 1.5,
    shapes: Sequence[tuple[float, float]] = LONG_CYCLE,
) -> MultigridPlan:
    """Stages of long cycles for a run whose learning rate falls in steps.

    Every step of the learning rate but the last goes once through all shapes, each for the same number of iterations;
    the last keeps the full shape, the first half of it at the rate before. A shape's batch grows as its clips shrink:
    B = round(T S^2 / (t s^2)).

    Args:
        num_frames: frames of the network's clips, T.
        crop_size: pixels of the network's crop, S.
        lr_steps: epochs of the usual run after which its learning rate falls.
        max_epochs: epochs of the usual run.
        epoch_factor: epochs of the multigrid run, as a multiple; each costs less.
        shapes: shares of T and of S, the last of them (1, 1).

    Example:
        >>> [(s.until_epoch, s.batch_factor) for s in plan_long_cycle(8, 224, [60], 80).stages]
        [(59, 8), (88, 4), (103, 2), (110, 1), (120, 1)]
    """
    sizes = [(round(num_frames * t), round(crop_size * s)) for t, s in shapes]
    batches = [round(num_frames * crop_size**2 / (t * s**2)) for t, s in sizes]
    cycles = [end - start for start, end in zip((0, *lr_steps[:-1]), lr_steps, strict=True)]
    epochs = [length * batch / sum(batches) for length in cycles for batch in batches]
    epochs.append((max_epochs - lr_steps[-1]) * len(batches) / sum(batches))
    scale = max_epochs * epoch_factor / sum(epochs)
    ends = [round(end) for end in accumulate(length * scale for length in epochs)]
    grids = list(zip(batches, sizes, strict=True)) * len(cycles) + [(1, sizes[-1])]
    stages = tuple(GridStage(end, batch, *size) for end, (batch, size) in zip(ends, grids, strict=True))
    falls = (*ends[len(batches) - 1 : -2 : len(batches)], (ends[-2] + ends[-1]) // 2)
    return MultigridPlan(stages, falls, ends[-1])
