"""The paths that an object's four state dimensions take: one drifts, three go back and forth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["CLASS_NAMES", "REFERENCE_SPAN", "STATE_NAMES", "MotionStates", "draw_states"]

STATE_NAMES = ("x", "y", "angle", "log_scale")

# Two classes a state dimension, the decreasing one at the even label. Image axes: y grows downwards,
# so a growing angle turns clockwise on the screen.
CLASS_NAMES = (
    "move_left",
    "move_right",
    "move_up",
    "move_down",
    "rotate_counterclockwise",
    "rotate_clockwise",
    "retreat",
    "approach",
)

# Frames in which the drifting dimension crosses its range once and the others make whole cycles in theirs.
REFERENCE_SPAN = 32

# Mean range over the reference span: x and y in short sides, angle in radians, log_scale in nepers.
_RANGES = (0.2, 0.2, 1.2 * math.pi, math.log(1.6))
_BACKGROUND_RANGE = 0.30  # short sides
_RANGE_JITTER = (0.7, 1.4)
_OSCILLATION = (1.0, 1.0, 0.7, 1.0)  # of the range, where the dimension goes back and forth
_CYCLES = (1, 1)  # fewest and most cycles in the reference span


@dataclass(frozen=True)
class MotionStates:
    """Where object and background are in every frame.

    Args:
        values: (T, 4) states in the order of ``STATE_NAMES``; x and y in short sides from the frame's centre,
            angle in radians, log_scale in nepers.
        background: (T, 2) offset of the background (x, y) in short sides.
    """

    values: np.ndarray
    background: np.ndarray


def _drift(frames: np.ndarray, sign: int) -> np.ndarray:
    """A straight line of slope ``sign`` ranges a reference span, 0 in the middle of the video."""
    return sign * (frames - frames.mean()) / REFERENCE_SPAN


def _oscillation(frames: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A triangle wave over (-0.5, 0.5): as evenly spread as a drift, but without a net change."""
    cycles = generator.integers(_CYCLES[0], _CYCLES[1], endpoint=True)
    phase = (cycles * frames / REFERENCE_SPAN + generator.random()) % 1.0
    return np.abs(2.0 * phase - 1.0) - 0.5


def draw_states(label: int, num_frames: int, generator: np.random.Generator) -> MotionStates:
    """Draw the states of one video."""
    frames = np.arange(num_frames, dtype=np.float64)
    centres = (
        generator.uniform(-0.12, 0.12),
        generator.uniform(-0.12, 0.12),
        generator.uniform(0.0, 2.0 * math.pi),
        generator.uniform(-0.15, 0.15),
    )
    columns = []
    for dimension, mean_range in enumerate(_RANGES):
        wave = _OSCILLATION[dimension] * _oscillation(frames, generator)
        if dimension == label // 2:
            wave = _drift(frames, 1 if label % 2 else -1)
        columns.append(centres[dimension] + mean_range * generator.uniform(*_RANGE_JITTER) * wave)
    background = [_BACKGROUND_RANGE * generator.uniform(*_RANGE_JITTER) * _oscillation(frames, generator) for _ in "xy"]
    return MotionStates(np.stack(columns, axis=1), np.stack(background, axis=1))
