"""Confusion matrices and per-video predictions as CSV files and pictures."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor

from octvideo.evaluation.scores import VideoResults

_MOST_NUMBERED = 25  # classes up to which each cell holds its number
_MOST_NAMED = 110  # classes up to which every row and column is named


def write_confusion_csv(path: str | os.PathLike, confusion: Tensor, class_names: Sequence[str]) -> None:
    """Write the counts [true, predicted], one line per true class under a header of predicted classes.

    Args:
        path: file to write; its folder is made when missing.
        confusion: counts.
        class_names: K names.

    Shape:
        confusion (K, K).

    Raises:
        ValueError: confusion is not square, or has not one row per name.
    """
    counts = _checked_counts(confusion, class_names)
    lines = [[name, *row] for name, row in zip(class_names, counts.tolist(), strict=True)]
    _write_csv(path, ["true \\ predicted", *class_names], lines)


def write_per_video_csv(
    path: str | os.PathLike,
    results: VideoResults,
    class_names: Sequence[str],
    video_paths: Sequence[str] | None = None,
) -> None:
    """Write one line per video: its true and its predicted class, their probabilities, and the number of views.

    Args:
        path: file to write; its folder is made when missing.
        results: scores of the videos.
        class_names: K names.
        video_paths: path of each video of the set, indexed by results.videos; left blank when None.

    Raises:
        ValueError: class_names has not K names, or video_paths ends before the last video.
    """
    if len(class_names) != results.num_classes:
        raise ValueError(
            f"class_names should hold {results.num_classes} names, got {len(class_names)}. Name each class."
        )
    if video_paths is not None and len(video_paths) <= int(results.videos.max()):
        raise ValueError(
            f"video_paths should reach video {int(results.videos.max())}, got {len(video_paths)} paths. "
            "Pass the paths of the whole set."
        )
    header = ["video", "path", "true", "predicted", "correct", "true_prob", "predicted_prob", "num_views"]
    columns = (results.videos, results.labels, results.predictions, results.num_views, results.probs)
    lines = []
    for video, label, guess, num_views, probs in zip(*(column.tolist() for column in columns), strict=True):
        shown = "" if video_paths is None else video_paths[video]
        names = [class_names[label], class_names[guess], int(label == guess)]
        lines.append([video, shown, *names, f"{probs[label]:.6f}", f"{probs[guess]:.6f}", num_views])
    _write_csv(path, header, lines)


def plot_confusion(path: str | os.PathLike, confusion: Tensor, class_names: Sequence[str]) -> None:
    """Draw the confusion matrix, each row in per cent of its class's videos, as a PNG.

    Cells hold their percentage up to 25 classes, rows and columns are named up to 110. A class without a video is grey.

    Args:
        path: file to write; its folder is made when missing.
        confusion: counts [true, predicted].
        class_names: K names.

    Shape:
        confusion (K, K).

    Raises:
        ValueError: confusion is not square, or has not one row per name.
    """
    counts = _checked_counts(confusion, class_names)
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.where(totals > 0, 100.0 * counts / np.maximum(totals, 1), np.nan)
    side_inches = float(np.clip(0.45 * len(counts), 3.6, 16.0))
    # The names' own length, at about a fourteenth of an inch per letter, comes on top of the cells.
    names_inches = 0.07 * min(max(map(len, class_names)), 40)
    figure = Figure(figsize=(side_inches + names_inches + 2.4, side_inches + names_inches + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(percent), cmap=_blues(), vmin=0, vmax=100)
    right, total = int(counts.trace()), int(counts.sum())
    axes.set_title(f"{right} of {total} videos right, top-1 {100.0 * right / max(total, 1):.1f} %")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (number of videos)")
    figure.colorbar(image, ax=axes, label="per cent of the true class's videos", fraction=0.046, pad=0.03)
    _name_ticks(axes, class_names, totals[:, 0])
    if len(counts) <= _MOST_NUMBERED:
        _number_cells(axes, percent)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png", bbox_inches="tight")


def _blues() -> Colormap:
    return colormaps["Blues"].with_extremes(bad="0.85")


def _name_ticks(axes: Axes, class_names: Sequence[str], totals: np.ndarray) -> None:
    if len(class_names) > _MOST_NAMED:
        return
    # Names of folders need not be UTF-8.
    class_names = [name.encode(errors="backslashreplace").decode() for name in class_names]
    size = 9.0 if len(class_names) <= 35 else 6.0
    upright = len(class_names) <= 8 and max(map(len, class_names)) <= 7
    axes.set_xticks(
        range(len(class_names)), class_names, rotation=0 if upright else 90, fontsize=size, parse_math=False
    )
    rows = [f"{name} ({int(total)})" for name, total in zip(class_names, totals, strict=True)]
    axes.set_yticks(range(len(class_names)), rows, fontsize=size, parse_math=False)


def _number_cells(axes: Axes, percent: np.ndarray) -> None:
    size = 10 if len(percent) <= 10 else 8
    for row, column in np.argwhere(np.nan_to_num(percent) > 0):
        value = percent[row, column]
        colour = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=size)


def _checked_counts(confusion: Tensor, class_names: Sequence[str]) -> np.ndarray:
    expected = (len(class_names), len(class_names))
    if tuple(confusion.shape) != expected:
        raise ValueError(
            f"confusion should have shape {expected}, one row and column per class name, got "
            f"{tuple(confusion.shape)}. Pass VideoResults.confusion and all the class names."
        )
    return confusion.detach().cpu().numpy()


def _write_csv(path: str | os.PathLike, header: Sequence, lines: Sequence[Sequence]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # surrogateescape: names of files that are not UTF-8 are written with their own bytes.
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
