"""One line per experiment: means over folds and seeds, with a 95 % interval."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octvideo.report.rows import ResultRow

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom, then for some larger ones.
_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_T_95_LARGE = ((120, 1.980), (60, 2.000), (40, 2.021), (30, 2.042))

# Rows that are equal in these are runs of one experiment under one protocol.
_KEY = (
    *("name", "model", "alpha", "octave", "dataset", "split"),
    *("crop", "num_frames", "frame_stride", "num_clips", "num_crops", "macs_unit", "macs_tool"),
)
# What such runs must share, or a network was changed under its name.
_COMMON = ("gmacs_per_view", "gmacs_per_video", "params_m")


@dataclass(frozen=True)
class Summary:
    """Mean of one experiment's runs.

    Args:
        row: first of the runs; its cost, protocol and identity are those of all.
        top1_percent, top5_percent, mean_class_percent: means over folds of the means over a fold's seeds.
        top1_half_width_percent: half the 95 % interval of top1_percent; None for a single run.
        interval_over: "folds" or "seeds", what the interval was taken over; None for a single run.
        top1_by_fold_percent: top-1 of each fold, mean over its seeds.
        seeds: seeds of the runs, ascending and distinct.
        num_runs: rows that were averaged.
        num_videos: videos scored, summed over folds.
        unreadable_videos: videos that could not be decoded, summed over folds.
        latency_ms: median over the runs that have one; None when none has.
    """

    row: ResultRow
    top1_percent: float
    top5_percent: float
    mean_class_percent: float
    top1_half_width_percent: float | None
    interval_over: str | None
    top1_by_fold_percent: dict[str, float]
    seeds: tuple[int, ...]
    num_runs: int
    num_videos: int
    unreadable_videos: int
    latency_ms: float | None


def student_t_95(degrees_of_freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t, that of the next smaller tabled number where it is not in the table.

    Raises:
        ValueError: degrees_of_freedom is below 1.
    """
    if degrees_of_freedom < 1:
        raise ValueError(f"degrees_of_freedom should be at least 1, got {degrees_of_freedom}. Pass two values or more.")
    if degrees_of_freedom <= len(_T_95):
        return _T_95[degrees_of_freedom - 1]
    return next(t for least, t in _T_95_LARGE if degrees_of_freedom >= least)


def summarise(rows: Iterable[ResultRow]) -> list[Summary]:
    """Average the runs of each (name, model, alpha, octave, dataset) by split and protocol.

    One network that was scored under two crops, clip lengths or numbers of views gives two summaries. Seeds are
    averaged within their fold first. With two folds or more the interval is mean +- t(n - 1) * s / sqrt(n) over the n
    folds; with one fold and several seeds it is taken over the seeds.

    Returns:
        One summary per experiment and protocol, in the order of its first row.

    Raises:
        ValueError: two rows have the same fold and seed, or the runs of one experiment differ in cost.
    """
    groups: dict[tuple, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in _KEY), []).append(row)
    return [_summarise_group(group) for group in groups.values()]


def _summarise_group(rows: Sequence[ResultRow]) -> Summary:
    _check_group(rows)
    folds: dict[str, list[ResultRow]] = {}
    for row in rows:
        folds.setdefault(row.fold or "", []).append(row)
    means = {name: statistics.fmean(row.top1_percent for row in fold) for name, fold in sorted(folds.items())}
    over = "folds" if len(folds) > 1 else "seeds" if len(rows) > 1 else None
    values = list(means.values()) if over == "folds" else [row.top1_percent for row in rows]
    latencies = [row.latency_ms for row in rows if row.latency_ms is not None]
    return Summary(
        row=rows[0],
        top1_percent=statistics.fmean(means.values()),
        top5_percent=_mean_of_means(folds.values(), "top5_percent"),
        mean_class_percent=_mean_of_means(folds.values(), "mean_class_percent"),
        top1_half_width_percent=None if over is None else _half_width(values),
        interval_over=over,
        top1_by_fold_percent=means,
        seeds=tuple(sorted({row.seed for row in rows})),
        num_runs=len(rows),
        num_videos=sum(fold[0].num_videos for fold in folds.values()),
        unreadable_videos=sum(fold[0].unreadable_videos for fold in folds.values()),
        latency_ms=statistics.median(latencies) if latencies else None,
    )


def _mean_of_means(folds: Iterable[Sequence[ResultRow]], name: str) -> float:
    return statistics.fmean(statistics.fmean(getattr(row, name) for row in fold) for fold in folds)


def _half_width(values: Sequence[float]) -> float:
    return student_t_95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def _check_group(rows: Sequence[ResultRow]) -> None:
    first, seen = rows[0], set()
    label = f"{first.name} ({first.model}, alpha {first.alpha:g}, {first.octave}, {first.dataset})"
    for row in rows:
        if (row.fold, row.seed) in seen:
            raise ValueError(
                f"rows of {label} should differ in fold or seed, got fold {row.fold}, seed {row.seed} twice. "
                "Pass each result once."
            )
        seen.add((row.fold, row.seed))
        for name in _COMMON:
            if getattr(row, name) != getattr(first, name):
                raise ValueError(
                    f"rows of {label} should share {name}, got {getattr(first, name)} and {getattr(row, name)}. "
                    "Give different networks different names."
                )
