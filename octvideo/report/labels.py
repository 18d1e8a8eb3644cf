"""Placement of text beside points so that texts, points and lines do not cover each other."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

_DIRECTIONS = tuple((math.cos(k * math.pi / 8), math.sin(k * math.pi / 8)) for k in range(16))
_DISTANCES_POINTS = (9.0, 16.0, 26.0, 38.0)  # from the point to the near edge of its text
_LEADER_FROM = 16.0  # distance from which a thin line ties the text to its point
_MARKER_POINTS = 10.0

Point = tuple[float, float]


def place_labels(
    axes: Axes,
    positions: Sequence[Point],
    texts: Sequence[str],
    colours: Sequence[str],
    lines: Sequence[Sequence[Point]],
) -> None:
    """Write one text beside each point, greedily in the place that covers least; draw the figure once before.

    Args:
        axes: where to write; its limits and size are final.
        positions: points in data coordinates.
        texts, colours: one of each per point.
        lines: polylines in data coordinates that texts keep off where they can.
    """
    scale = axes.figure.dpi / 72.0
    frame = axes.get_window_extent()
    pixels = axes.transData.transform(np.asarray(positions, dtype=float))
    markers = [_box_around(x, y, _MARKER_POINTS * scale, _MARKER_POINTS * scale) for x, y in pixels]
    track = np.concatenate([_samples(axes.transData.transform(np.asarray(line, dtype=float))) for line in lines])
    bounds = np.array([frame.x0, frame.y0, frame.x1, frame.y1])
    taken: list[np.ndarray] = []
    # Crowded points choose first: those on their own always find a place.
    for index in sorted(range(len(positions)), key=lambda i: _distance_to_others(pixels, i)):
        size = (6.2 * len(texts[index]) * scale, 10.0 * scale)
        others = [*taken, *(box for i, box in enumerate(markers) if i != index)]
        choices = [(d, v) for d in _DISTANCES_POINTS for v in _DIRECTIONS]
        boxes = [_box_beside(pixels[index], size, distance * scale, way) for distance, way in choices]
        costs = [
            _cost(box, others, track, bounds) + 0.02 * distance
            for box, (distance, _) in zip(boxes, choices, strict=True)
        ]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        centre = ((boxes[best][:2] + boxes[best][2:]) / 2 - pixels[index]) / scale
        leader = {"arrowstyle": "-", "color": colours[index], "linewidth": 0.6, "shrinkB": 4}
        axes.annotate(
            texts[index],
            positions[index],
            xytext=tuple(centre),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            color=colours[index],
            zorder=5,
            in_layout=False,
            arrowprops=leader if choices[best][0] >= _LEADER_FROM else None,
        )


def _distance_to_others(pixels: np.ndarray, index: int) -> float:
    distances = np.hypot(*(pixels - pixels[index]).T)
    distances[index] = np.inf
    return float(distances.min())


def _samples(corners: np.ndarray) -> np.ndarray:
    """Points along a polyline, about three pixels apart."""
    parts = [corners[:1]]
    for start, end in itertools.pairwise(corners):
        steps = max(int(np.hypot(*(end - start)) / 3), 1)
        parts.append(start + (end - start) * np.linspace(0, 1, steps + 1)[1:, None])
    return np.concatenate(parts)


def _box_around(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _box_beside(point: np.ndarray, size: Point, distance: float, way: Point) -> np.ndarray:
    """Box [left, bottom, right, top] whose edge lies the distance away from the point in the direction way."""
    reach = min(size[0] / 2 / max(abs(way[0]), 1e-9), size[1] / 2 / max(abs(way[1]), 1e-9))
    x, y = point + np.asarray(way) * (distance + reach)
    return _box_around(x, y, *size)


def _cost(box: np.ndarray, others: Sequence[np.ndarray], track: np.ndarray, bounds: np.ndarray) -> float:
    """How much a text in the box would cover: texts and markers weigh most, lines less, the outside above all."""
    inside = (track[:, 0] > box[0]) & (track[:, 0] < box[2]) & (track[:, 1] > box[1]) & (track[:, 1] < box[3])
    stack = np.stack(others) if others else np.zeros((0, 4))
    wide = np.minimum(stack[:, 2], box[2]) - np.maximum(stack[:, 0], box[0])
    high = np.minimum(stack[:, 3], box[3]) - np.maximum(stack[:, 1], box[1])
    covered = (np.maximum(wide, 0) * np.maximum(high, 0)).sum() / ((box[2] - box[0]) * (box[3] - box[1]))
    out = np.maximum(bounds[:2] - box[:2], 0).sum() + np.maximum(box[2:] - bounds[2:], 0).sum()
    return 10.0 * float(covered) + 0.1 * int(inside.sum()) + 100.0 * float(out > 0)
