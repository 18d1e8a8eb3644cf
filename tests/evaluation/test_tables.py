"""Files that the evaluation writes."""

import csv

import pytest
import torch
from matplotlib.image import imread

from octvideo.evaluation import combine_views, plot_confusion, write_confusion_csv, write_per_video_csv

NAMES = ("wave", "jump, high", "run")


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def three_videos():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7]])
    return combine_views(probs, torch.tensor([0, 1, 2]), torch.tensor([0, 1, 3]), torch.tensor([0, 0, 0]))


def test_confusion_csv_reads_back(tmp_path):
    path = tmp_path / "new folder" / "confusion.csv"
    write_confusion_csv(path, three_videos().confusion, NAMES)
    assert read_csv(path) == [
        ["true \\ predicted", *NAMES],
        ["wave", "1", "0", "0"],
        ["jump, high", "1", "0", "0"],
        ["run", "0", "0", "1"],
    ]


def test_per_video_csv_has_a_line_per_video(tmp_path):
    path = tmp_path / "videos.csv"
    write_per_video_csv(path, three_videos(), NAMES, ["a.mp4", "b, c.mp4", "unseen.mp4", "d.mp4"])
    header, *lines = read_csv(path)
    assert header[:5] == ["video", "path", "true", "predicted", "correct"]
    assert [line[:5] for line in lines] == [
        ["0", "a.mp4", "wave", "wave", "1"],
        ["1", "b, c.mp4", "jump, high", "wave", "0"],
        ["3", "d.mp4", "run", "run", "1"],
    ]
    assert lines[1][5:] == ["0.400000", "0.500000", "1"]
    write_per_video_csv(path, three_videos(), NAMES)
    assert {line[1] for line in read_csv(path)[1:]} == {""}


@pytest.mark.parametrize("num_classes", [1, 3, 120])
def test_confusion_picture_is_a_png_with_its_diagonal_dark(tmp_path, num_classes):
    path = tmp_path / "new folder" / "confusion.png"
    plot_confusion(path, 5 * torch.eye(num_classes, dtype=torch.long), [f"class {i}" for i in range(num_classes)])
    image = imread(path)
    assert min(image.shape[:2]) > 300
    darkest = (image[..., :3] - torch.tensor([8, 48, 107]).numpy() / 255).__abs__().max(axis=-1) < 0.02
    assert darkest.any()


def test_empty_class_is_drawn_grey(tmp_path):
    path = tmp_path / "confusion.png"
    plot_confusion(path, torch.tensor([[3, 0], [0, 0]]), ["a", "b"])
    grey = abs(imread(path)[..., :3] - 0.85).max(axis=-1) < 0.01
    assert grey.mean() > 0.1


def test_any_name_of_a_folder_can_be_drawn(tmp_path):
    plot_confusion(tmp_path / "confusion.png", torch.eye(2), [r"$\frac{$", "\udcff"])
    assert (tmp_path / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_errors_name_the_argument(tmp_path):
    with pytest.raises(ValueError, match=r"confusion should have shape \(3, 3\).*got \(2, 2\)"):
        write_confusion_csv(tmp_path / "x.csv", torch.zeros(2, 2), NAMES)
    with pytest.raises(ValueError, match="class_names should hold 3 names, got 2"):
        write_per_video_csv(tmp_path / "x.csv", three_videos(), NAMES[:2])
    with pytest.raises(ValueError, match="video_paths should reach video 3, got 1 paths"):
        write_per_video_csv(tmp_path / "x.csv", three_videos(), NAMES, ["a.mp4"])
