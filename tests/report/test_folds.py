"""Means and intervals over folds and seeds."""

import math
import statistics

import pytest

from octvideo.report import ResultRow, student_t_95, summarise

VALUES = {
    **{"name": "weizmann", "model": "i3d_r50", "alpha": 0.125, "octave": "spatial", "dataset": "Weizmann"},
    **{"split": "test", "num_videos": 36, "top1_percent": 80.5, "top5_percent": 99.0, "mean_class_percent": 79.0},
    **{"gmacs_per_view": 25.05, "gmacs_per_video": 751.5, "params_m": 28.04, "crop": "224x224", "num_frames": 8},
    **{"frame_stride": 8, "num_clips": 10, "num_crops": 3, "seed": 0},
}


def row(**changes):
    return ResultRow(**(VALUES | changes))


def integrated_t_cdf(x, degrees_of_freedom, num_steps=20000):
    """P(T < x) by Simpson's rule over Student's density."""
    n = degrees_of_freedom
    scale = math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) / math.sqrt(n * math.pi)

    def density(t):
        return scale * (1 + t * t / n) ** (-(n + 1) / 2)

    step = x / num_steps
    inner = sum((4 if i % 2 else 2) * density(i * step) for i in range(1, num_steps))
    return 0.5 + step / 3 * (density(0) + inner + density(x))


@pytest.mark.parametrize("degrees_of_freedom", [*range(1, 31), 40, 60, 120])
def test_student_t_leaves_five_per_cent_outside(degrees_of_freedom):
    inside = 2 * integrated_t_cdf(student_t_95(degrees_of_freedom), degrees_of_freedom) - 1
    assert inside == pytest.approx(0.95, abs=1e-4)


def test_student_t_between_the_lines_is_the_wider_one():
    assert student_t_95(35) == student_t_95(30)
    assert student_t_95(10**6) == student_t_95(120)
    with pytest.raises(ValueError, match="degrees_of_freedom should be at least 1, got 0"):
        student_t_95(0)


def test_folds_by_hand():
    tops = (70.0, 80.0, 78.0, 72.0)
    rows = [row(fold=f"fold {i}", top1_percent=t, num_videos=10 + i, unreadable_videos=1) for i, t in enumerate(tops)]
    (summary,) = summarise(rows)
    assert summary.top1_percent == 75.0
    assert summary.top1_half_width_percent == pytest.approx(3.182 * statistics.stdev(tops) / 2)
    assert (summary.interval_over, summary.num_runs, summary.seeds) == ("folds", 4, (0,))
    assert list(summary.top1_by_fold_percent.values()) == list(tops)
    assert (summary.num_videos, summary.unreadable_videos) == (46, 4)


def test_seeds_are_averaged_within_their_fold_first():
    rows = [
        row(fold="a", seed=0, top1_percent=60.0),
        row(fold="a", seed=1, top1_percent=70.0),
        row(fold="b", seed=0, top1_percent=75.0),
    ]
    (summary,) = summarise(rows)
    assert summary.top1_by_fold_percent == {"a": 65.0, "b": 75.0}
    assert summary.top1_percent == 70.0
    assert summary.top1_half_width_percent == pytest.approx(12.706 * statistics.stdev([65, 75]) / math.sqrt(2))
    assert (summary.seeds, summary.num_videos) == ((0, 1), 72)


def test_seeds_of_one_fold_and_a_single_run():
    (summary,) = summarise([row(seed=s, top1_percent=70.0 + s, latency_ms=s + 1.0) for s in range(3)])
    assert summary.interval_over == "seeds"
    assert summary.top1_half_width_percent == pytest.approx(4.303 / math.sqrt(3))
    assert (summary.num_videos, summary.latency_ms) == (36, 2.0)
    (single,) = summarise([row()])
    assert (single.top1_half_width_percent, single.interval_over, single.latency_ms) == (None, None, None)


def test_experiments_stay_apart_and_in_order():
    rows = [row(alpha=0.5), row(alpha=0.0), row(alpha=0.5, seed=1), row(alpha=0.5, octave="temporal"), row(name="b")]
    rows += [row(name="b", num_clips=1), row(name="b", split="val")]
    found = [(s.row.name, s.row.alpha, s.row.octave, s.num_runs) for s in summarise(rows)]
    assert found == [
        ("weizmann", 0.5, "spatial", 2),
        ("weizmann", 0.0, "spatial", 1),
        ("weizmann", 0.5, "temporal", 1),
        *[("b", 0.125, "spatial", 1)] * 3,
    ]
    assert summarise([]) == []


def test_errors():
    with pytest.raises(ValueError, match="differ in fold or seed, got fold a, seed 0 twice"):
        summarise([row(fold="a"), row(fold="a")])
    with pytest.raises(ValueError, match=r"should share params_m, got 28\.04 and 3\.0"):
        summarise([row(), row(seed=1, params_m=3.0)])
