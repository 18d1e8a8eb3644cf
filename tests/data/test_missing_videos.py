"""Listed videos that are not there: one error that names them, or left out and counted."""

import os
import re
import sys

import pytest
import torch

from octvideo.data import VideoDataModule, read_annotations
from octvideo.data.annotations import files
from octvideo.evaluation import combine_views, write_per_video_csv

HEADER = "label,youtube_id,time_start,time_end,split\n"


@pytest.fixture
def some_missing(tmp_path):
    """List of 20 videos in two folders; every fifth does not exist."""
    lines = []
    for number in range(20):
        name = f"{('bend', 'wave')[number % 2]}/{number}.mp4"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if number % 5:
            (tmp_path / name).touch()
        lines.append(f"{name} {number % 2}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


def test_missing_videos_are_one_error_or_left_out(some_missing):
    source = some_missing / "list.txt"
    with pytest.raises(FileNotFoundError) as caught:
        read_annotations(source)
    assert re.fullmatch(
        r".*list.txt: 4 of 20 listed videos do not exist: .*bend/0.mp4, .*wave/5.mp4, .*bend/10.mp4, \.\.\.\. "
        r"Relative paths start from root \(by default the list's folder\); missing 'skip' leaves out what does.*",
        str(caught.value),
    )
    annotations = read_annotations(source, missing="skip")
    kept = [number for number in range(20) if number % 5]
    assert [os.path.basename(record.path) for record in annotations.records] == [f"{number}.mp4" for number in kept]
    assert annotations.labels.tolist() == [number % 2 for number in kept]
    assert annotations.num_missing == 4
    assert [os.path.relpath(path, some_missing) for path in annotations.missing] == [
        "bend/0.mp4", "wave/5.mp4", "bend/10.mp4", "wave/15.mp4"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="missing should be one of error, skip, keep, but it is 'ignore'"):
        read_annotations(source, missing="ignore")


def test_classes_do_not_depend_on_what_exists(tmp_path):
    (tmp_path / "c.mp4").touch()
    (tmp_path / "list.txt").write_text("a.mp4 bend\nb.mp4 jump\nc.mp4 wave\n")
    annotations = read_annotations(tmp_path / "list.txt", missing="skip")
    assert annotations.class_names == ("bend", "jump", "wave")
    assert annotations.labels.tolist() == [2]


def test_no_video_at_all_is_an_error_under_skip(some_missing):
    with pytest.raises(FileNotFoundError, match=r"20 of 20 listed videos do not exist: .*Relative paths start"):
        read_annotations(some_missing / "list.txt", root=some_missing / "elsewhere", missing="skip")
    (some_missing / "train.csv").write_text(HEADER + "wave,abcdefghijk,1,11,train\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 listed videos are not below .*: abcdefghijk_000001_000011"):
        read_annotations(some_missing / "train.csv", missing="skip")


def test_missing_kinetics_clips(tmp_path):
    rows = "".join(f"wave,id{number:09d},1,11,train\n" for number in range(5))
    (tmp_path / "train.csv").write_text(HEADER + rows)
    for number in (1, 3):
        (tmp_path / f"id{number:09d}_000001_000011.mp4").touch()
    with pytest.raises(FileNotFoundError, match=r"train.csv: 3 of 5 listed videos are not below .*: id000000000_00000"):
        read_annotations(tmp_path / "train.csv")
    annotations = read_annotations(tmp_path / "train.csv", missing="skip")
    assert len(annotations) == 2
    assert list(annotations.missing) == [f"id{number:09d}_000001_000011" for number in (0, 2, 4)]


def test_a_data_module_says_what_it_leaves_out(some_missing):
    source = str(some_missing / "list.txt")
    with pytest.raises(FileNotFoundError, match="4 of 20"):
        VideoDataModule(train=source).annotations("train")
    module = VideoDataModule(train=source, missing="skip")
    with pytest.warns(UserWarning, match=r"list.txt: 4 of 20 listed videos do not exist and are left out: .*bend/0"):
        assert len(module.annotations("train")) == 16


def test_a_mistake_in_the_test_list_comes_out_before_training(painted_set, some_missing):
    module = VideoDataModule(train=str(painted_set / "list.txt"), test=str(some_missing / "list.txt"), num_workers=0)
    with pytest.raises(FileNotFoundError, match="4 of 20 listed videos do not exist"):
        module.setup("fit")


def test_only_files_count_as_videos(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    (tmp_path / "good.mp4").touch()
    (tmp_path / "to_good.mp4").symlink_to(tmp_path / "good.mp4")
    names = ("folder", "link", "pipe", "good", "to_good", "b\0d")
    for copies in (1, 10):  # asked one by one, and by listing the folder
        (tmp_path / "list.csv").write_text("path,label\n" + copies * "".join(f"{n}.mp4,0\n" for n in names[:-1]))
        records = read_annotations(tmp_path / "list.csv", missing="skip").records
        assert [os.path.basename(record.path) for record in records] == copies * ["good.mp4", "to_good.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="names are bytes on other systems")
def test_names_that_are_not_utf8_are_found_and_written(tmp_path):
    name = b"stra\xdfe.mp4"  # Latin-1
    with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
        pass
    (tmp_path / "list.txt").write_bytes(name + b" 0\n")
    records = read_annotations(tmp_path / "list.txt").records
    assert os.fsencode(records[0].path).endswith(name)
    results = combine_views(torch.ones(1, 1), torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    write_per_video_csv(tmp_path / "videos.csv", results, ["wave"], [records[0].path])
    assert name in (tmp_path / "videos.csv").read_bytes()


def test_a_list_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="list.txt: not a list of videos"):
        read_annotations(tmp_path / "list.txt")


def test_a_folder_of_classes_needs_no_root(some_missing):
    assert len(read_annotations(some_missing, root=some_missing / "elsewhere")) == 16


def test_a_missing_folder_is_asked_for_once(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("".join(f"gone/{number}.mp4 0\n" for number in range(1000)))
    asked = []
    is_file = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path) or is_file(path))
    with pytest.raises(FileNotFoundError, match="1,000 of 1,000 listed videos do not exist"):
        read_annotations(tmp_path / "list.txt")
    assert not [path for path in asked if "gone" in str(path)]


def test_long_searches_say_how_far_they_are(some_missing, monkeypatch, capsys):
    monkeypatch.setattr(files, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(files, "PROGRESS_STEP", 1)
    read_annotations(some_missing / "list.txt", missing="skip")
    assert re.search(r"^octvideo: looking for the listed videos: 20 files, 0 s$", capsys.readouterr().err, re.MULTILINE)
    (some_missing / "train.csv").write_text(HEADER + "wave,1,0,10,train\n")
    (some_missing / "1_000000_000010.mp4").touch()
    read_annotations(some_missing / "train.csv")
    assert f"octvideo: looking for videos below {some_missing}: 17 files, 0 s" in capsys.readouterr().err


def test_missing_videos_are_kept_for_a_scan(some_missing):
    source = some_missing / "list.txt"
    kept, skipped = (read_annotations(source, missing=missing) for missing in ("keep", "skip"))
    assert len(kept) == len(skipped) + len(skipped.missing)
    assert {record.path for record in kept.records} == {r.path for r in skipped.records} | set(skipped.missing)
