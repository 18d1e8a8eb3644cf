"""Tables, pictures and the folder that holds them."""

import csv
import io
import itertools
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

import octvideo.report.plots as plots_module
from octvideo.report import (
    ResultRow,
    csv_table,
    markdown_table,
    pareto_front,
    plot_accuracy_against_gmacs,
    write_report,
    write_result,
)
from octvideo.report.labels import place_labels

VALUES = {
    **{"name": "weizmann", "model": "i3d_r50", "alpha": 0.125, "octave": "spatial", "dataset": "Weizmann"},
    **{"split": "test", "num_videos": 36, "top1_percent": 80.5, "top5_percent": 99.0, "mean_class_percent": 79.0},
    **{"gmacs_per_view": 25.05, "gmacs_per_video": 751.5, "params_m": 28.04, "crop": "224x224", "num_frames": 8},
    **{"frame_stride": 8, "num_clips": 10, "num_crops": 3, "seed": 0, "macs_tool": "tool"},
}
VIEW = "GMACs per view [multiply-adds; 224x224 crop, 8 frames x stride 8; 1 view; tool]"
VIDEO = "GMACs per video [multiply-adds; 224x224 crop, 8 frames x stride 8; 30 views (10 clips x 3 crops); tool]"


def row(**changes):
    return ResultRow(**(VALUES | changes))


def curve(**changes):
    """Four alphas of one network."""
    costs = {0.0: 28.41, 0.125: 25.05, 0.25: 22.1, 0.5: 17.44}
    return [row(alpha=a, gmacs_per_view=g, top1_percent=70 + 20 * a, **changes) for a, g in costs.items()]


def markdown_lines(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_markdown_table_names_what_was_counted():
    table = markdown_table([row(fold="a", top1_percent=80.0), row(fold="b", top1_percent=81.0), row(alpha=0.0)])
    header, rule, dense, octave = markdown_lines(table)
    assert "### Weizmann, test: 224x224 crop, 8 frames x stride 8, 30 views (10 clips x 3 crops)" in table
    assert VIEW in header
    assert VIDEO in header
    assert {len(line) for line in (header, rule, dense, octave)} == {len(header)}
    cells = dict(zip(header, octave, strict=True))
    assert cells["top-1 %"] == "80.50 ± 6.35"
    assert (cells["runs"], cells["videos"], cells["alpha"]) == ("2 folds, 1 seed", "72", "0.125")
    assert dict(zip(header, dense, strict=True))["of dense %"] == "100.0"


def test_other_protocols_stand_in_another_table():
    table = markdown_table([row(), row(num_clips=1, num_crops=1, gmacs_per_video=25.05)])
    assert table.count("###") == 2
    assert ", 1 view\n" in table
    headers = [line for line in table.splitlines() if line.startswith("| name")]
    assert all("GMACs per video [multiply-adds; 224x224 crop, 8 frames x stride 8; " in line for line in headers)


def test_cells_of_latency_unreadable_videos_and_bars():
    table = markdown_table([row(name="a|b", latency_ms=12.34, latency_threads=1, unreadable_videos=2)])
    assert "a\\|b" in table
    assert "| 12.3 (1 thread) |" in table
    assert "36 (+2 unreadable)" in table


def test_csv_table_reads_back_unrounded():
    rows = [row(top1_percent=80.123456789, fold="a"), row(num_frames=16, name="long", gmacs_per_view=50.1)]
    first, second = csv.DictReader(io.StringIO(csv_table(rows)))
    assert float(first["top1_percent"]) == 80.123456789
    assert (first["interval_over"], first["top1_by_fold_percent"], first["num_frames"]) == ("", "a=80.1235", "8")
    long_view = VIEW.replace("8 frames", "16 frames")
    assert (first[VIEW], first[VIDEO], first[long_view]) == ("25.05", "751.5", "")
    assert (second[VIEW], second[long_view]) == ("", "50.1")
    assert csv_table([]).strip() == ""


def test_pareto_front_against_all_pairs():
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = [(float(x), float(y)) for x, y in generator.integers(0, 6, (9, 2))]
        beaten = {
            i
            for i, j in itertools.permutations(range(9), 2)
            if points[j][0] <= points[i][0] and points[j][1] >= points[i][1] and (points[j] != points[i] or j < i)
        }
        front = pareto_front(points)
        assert set(front) == set(range(9)) - beaten
        assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert pareto_front([]) == []


def drawn(rows, tmp_path, monkeypatch):
    """Panels and the labels' texts that a picture of the rows holds."""
    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(plots_module, "Figure", Kept)
    plot_accuracy_against_gmacs(rows, tmp_path / "new" / "r.png", tmp_path / "new" / "r.svg")
    return figures[0].axes


def test_picture_names_its_axes_points_and_series(tmp_path, monkeypatch):
    folds = [r for fold in "abc" for r in curve(fold=fold)]
    temporal = [r for r in curve(octave="temporal", fold="a") if r.alpha > 0]
    (axes,) = drawn([*folds, *temporal], tmp_path, monkeypatch)
    assert axes.get_xlabel() == "GMACs per view (multiply-adds; 224x224 crop, 8 frames x stride 8)"
    assert "30 views (10 clips x 3 crops)\nbars: 95 % interval over folds" in axes.get_ylabel()
    assert sorted(text.get_text() for text in axes.texts) == ["0.125", "0.125", "0.25", "0.25", "0.5", "0.5", "dense"]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["i3d_r50, spatial octave", "i3d_r50, temporal octave", "Pareto front"]
    joined = [
        line.get_xydata().tolist() for line in axes.lines if len(line.get_xdata()) == 4 and line._marker is not None
    ]
    assert sum([28.41, 70.0] in line for line in joined) >= 2  # both curves start at the dense network
    assert imread(tmp_path / "new" / "r.png").shape[1] == 1200
    assert (tmp_path / "new" / "r.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_bars_stay_within_hundred_per_cent(tmp_path, monkeypatch):
    rows = [row(fold="a", top1_percent=99.0), row(fold="b", top1_percent=60.0)]
    (axes,) = drawn(rows, tmp_path, monkeypatch)
    heights = [y for line in axes.lines for y in np.asarray(line.get_ydata(), dtype=float)]
    assert (min(heights), max(heights)) == (0.0, 100.0)


def test_panels_protocols_and_log_axis(tmp_path, monkeypatch):
    rows = [*curve(), *curve(dataset="Other"), row(model="x3d", gmacs_per_view=1.9, num_frames=13)]
    left, right = drawn(rows, tmp_path, monkeypatch)
    assert (left.get_title(), right.get_title()) == ("Weizmann, test", "Other, test")
    assert (left.get_xscale(), right.get_xscale()) == ("log", "linear")
    assert "crop and frames in the legend" in left.get_xlabel()
    assert "x3d, spatial octave (224x224 crop, 13 frames x stride 8)" in [
        text.get_text() for text in left.get_legend().get_texts()
    ]


def test_same_alpha_twice_is_joined_by_experiment(tmp_path, monkeypatch):
    (axes,) = drawn([*curve(), *curve(name="with mixup", seed=1)], tmp_path, monkeypatch)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[:2] == ["i3d_r50, spatial octave: weizmann", "i3d_r50, spatial octave: with mixup"]


def test_same_rows_give_the_same_svg(tmp_path):
    for name in ("a", "b"):
        plot_accuracy_against_gmacs(curve(), tmp_path / f"{name}.png", tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("num_points", [3, 20])
def test_labels_keep_off_each_other_and_off_the_points(num_points):
    figure = Figure(figsize=(8, 6))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.subplots()
    generator = np.random.default_rng(num_points)
    points = generator.random((num_points, 2)).round(2).tolist()
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    figure.canvas.draw()
    place_labels(axes, points, ["0.125"] * num_points, ["k"] * num_points, [sorted(points)])
    figure.canvas.draw()
    # The text alone: the box of an annotation would take in its leader.
    boxes = [super(type(text), text).get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == num_points
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    pixels = axes.transData.transform(points)
    assert not any(box.contains(*pixel) for box in boxes for pixel in pixels)


def test_report_folder_is_complete_and_names_no_folder_of_the_machine(tmp_path):
    paths = []
    for number, result in enumerate(curve(metadata={"device": "cpu", "git_commit": "0123456789" * 4 + "+changes"})):
        paths.append(tmp_path / "results" / f"{number}.json")
        write_result(paths[-1], result)
    write_report(paths, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("report.csv", "report.md", "report.png", "report.svg")
    ]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "](report.png)" in text
    assert "| ../results/2.json |  | 0 |  | 75.00 | cpu |" in text
    assert "0123456789+changes" in text
    assert str(tmp_path) not in text
    widths = [len(cells) for cells in markdown_lines(text)]
    assert len(re.findall(r"^\| ---", text, re.M)) == 2
    assert sorted(set(widths)) == [10, 14]


def test_report_errors(tmp_path):
    with pytest.raises(ValueError, match="paths should name at least one result file"):
        write_report([], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.json not found"):
        write_report([tmp_path / "absent.json"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="rows should hold at least one result"):
        plot_accuracy_against_gmacs([], tmp_path / "a.png", tmp_path / "a.svg")
