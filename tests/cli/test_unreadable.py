"""Commands beside videos that cannot be read: what they say, write and count."""

import csv
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from octvideo.cli import main
from octvideo.data import VideoDecodeError, iterate_frames, scan_videos
from octvideo.report import read_result


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


SMALL = {
    "model.model": "resnet3d_tiny", "data.num_frames": 4, "data.frame_stride": 2, "data.short_side": "[32, 36]",
    "data.test_short_side": 32, "data.crop_size": 32, "data.num_clips": 2, "data.num_crops": 1, "data.batch_size": 1,
    "data.num_workers": 0, "trainer.max_epochs": 1, "trainer.accelerator": "cpu", "threads": 1,
    "measure_latency": "false",
}  # fmt: skip


def command(lists_with_broken: Path, output: str, **changes) -> list[str]:
    values = {
        **SMALL,
        "data.train": lists_with_broken / "train.txt",
        "data.test": lists_with_broken / "test.txt",
        "output": lists_with_broken / output,
        **changes,
    }
    return ["train", *(text for name, value in values.items() for text in (f"--{name}", str(value)))]


@pytest.fixture
def skipped(lists_with_broken, capsys):
    """The run of the lists_with_broken under "skip", and what it printed."""
    assert main(command(lists_with_broken, "run", **{"data.unreadable": "skip"})) == 0
    return lists_with_broken / "run", capsys.readouterr().out


def test_a_result_says_how_many_videos_stand_behind_it(skipped, lists_with_broken, capsys):
    run, out = skipped
    row = read_result(run / "result.json")
    assert (row.num_videos, row.unreadable_videos) == (4, 1)
    assert f"4 videos of videos (test), 1 unreadable: {run / 'unreadable.csv'}, 2 clips x 1 crops" in out
    assert f"train: 2 videos were left out at least once as unreadable: {run / 'unreadable.csv'}" in out
    assert [r["split"] for r in rows_of(run / "unreadable.csv")] == ["train", "train", "test"]
    assert rows_of(run / "unreadable.csv")[2]["path"] == str(lists_with_broken / "broken 0.mp4")
    scored = {Path(r["path"]).name: r["true_prob"] for r in rows_of(run / "videos.csv")}
    # The videos that could be read score as they do in a list without the others.
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    given = ["evaluate", "--checkpoint", checkpoint, "--num_workers", "0", "--accelerator", "cpu", "--batch_size", "3"]
    assert (
        main([*given, "--data", str(lists_with_broken / "test_good.txt"), "--output", str(lists_with_broken / "good")])
        == 0
    )
    assert {Path(r["path"]).name: r["true_prob"] for r in rows_of(lists_with_broken / "good" / "videos.csv")} == scored
    assert read_result(lists_with_broken / "good" / "result.json").top1_percent == row.top1_percent
    assert not (lists_with_broken / "good" / "unreadable.csv").exists()
    capsys.readouterr()
    assert (
        main([*given, "--data", str(lists_with_broken / "test.txt"), "--output", str(lists_with_broken / "error")]) == 1
    )
    assert "broken 0.mp4: cannot be opened as a video" in capsys.readouterr().err
    assert (
        main(
            [
                *given,
                "--data",
                str(lists_with_broken / "test.txt"),
                "--output",
                str(lists_with_broken / "x"),
                "--unreadable",
                "skip",
            ]
        )
        == 0
    )
    assert read_result(lists_with_broken / "x" / "result.json").unreadable_videos == 1
    assert len(rows_of(lists_with_broken / "x" / "unreadable.csv")) == 1
    (lists_with_broken / "bad.txt").write_text("broken 0.mp4 0\nbroken 1.mp4 1\n")
    assert (
        main(
            [
                *given,
                "--data",
                str(lists_with_broken / "bad.txt"),
                "--output",
                str(lists_with_broken / "y"),
                "--unreadable",
                "skip",
            ]
        )
        == 1
    )
    assert "holds no scored video: are all videos of the list unreadable" in capsys.readouterr().err


def test_a_video_with_one_view_that_cannot_be_read_is_left_out_as_a_whole(skipped, lists_with_broken, monkeypatch):
    run, _ = skipped

    def break_late_frames(path, indices, **settings):
        if path.endswith("test 1.mp4") and max(indices) >= 12:  # of 13: the last clip's
            raise VideoDecodeError(f"{path}: frame 12 does not decode.")
        return iterate_frames(path, indices, **settings)

    monkeypatch.setattr("octvideo.data.stream.iterate_frames", break_late_frames)
    given = [
        "evaluate",
        "--checkpoint",
        str(run / "checkpoints" / "last.ckpt"),
        "--num_workers",
        "0",
        "--accelerator",
        "cpu",
    ]
    data = [
        "--data",
        str(lists_with_broken / "test_good.txt"),
        "--output",
        str(lists_with_broken / "part"),
        "--timeout_seconds",
        "0",
    ]
    assert main([*given, *data, "--unreadable", "skip"]) == 0
    row = read_result(lists_with_broken / "part" / "result.json")
    assert (row.num_videos, row.unreadable_videos) == (3, 1)
    assert [
        (r["split"], Path(r["path"]).name, r["reason"]) for r in rows_of(lists_with_broken / "part" / "unreadable.csv")
    ] == [("test", "test 1.mp4", "frame 12 does not decode.")]
    assert {Path(r["path"]).name for r in rows_of(lists_with_broken / "part" / "videos.csv")} == {
        f"test {n}.mp4" for n in (0, 2, 3)
    }


def test_a_run_that_stopped_at_a_file_goes_on_under_the_other_policy(lists_with_broken, capsys):
    (lists_with_broken / "run").mkdir()
    skip = {"data.unreadable": "skip", "data.timeout_seconds": 30, "trainer.max_epochs": 2}
    assert main(command(lists_with_broken, "run", **skip)) == 0
    config = yaml.safe_load((lists_with_broken / "run" / "config.yaml").read_text())
    assert config["data"]["unreadable"] == "skip"
    given = command(lists_with_broken, "run", **{"trainer.max_epochs": 2, "data.timeout_seconds": 40})
    capsys.readouterr()
    assert main([*given, "--resume"]) == 0
    assert "is finished" in capsys.readouterr().out


def test_a_manifests_bad_videos_are_left_out_and_the_others_not_probed(lists_with_broken, monkeypatch, capsys):
    paths = [
        line.rsplit(" ", 1)[0]
        for name in ("train", "test")
        for line in (lists_with_broken / f"{name}.txt").read_text().splitlines()
    ]
    scan_videos(paths, lists_with_broken / "m.csv")
    for module in ("dataset", "decode"):
        monkeypatch.setattr(f"octvideo.data.{module}.probe_video", lambda path: pytest.fail(f"{path} was probed"))
    given = command(lists_with_broken, "run", **{"data.manifest": lists_with_broken / "m.csv"})
    with pytest.warns(UserWarning, match=r"1 of 5 videos are left out \(1 corrupt\)"):
        assert main(given) == 0
    row = read_result(lists_with_broken / "run" / "result.json")
    assert (row.num_videos, row.unreadable_videos) == (4, 1)
    rows = rows_of(lists_with_broken / "run" / "unreadable.csv")
    assert [(r["split"], r["epoch"]) for r in rows] == [("train", ""), ("train", ""), ("test", "")]
    assert {r["reason"].split(" (")[0] for r in rows} == {"corrupt: cannot be opened as a video"}


def test_what_a_manifest_leaves_out_of_validation_is_listed_and_shown(lists_with_broken, capsys):
    (lists_with_broken / "val.txt").write_text((lists_with_broken / "test.txt").read_text() + "late.mp4 1\n")
    lines = "".join((lists_with_broken / f"{name}.txt").read_text() for name in ("train", "test")).splitlines()
    paths = [str(lists_with_broken / line.rsplit(" ", 1)[0]) for line in lines]
    scan_videos(paths, lists_with_broken / "m.csv")
    (lists_with_broken / "late.mp4").write_bytes(b"not scanned, and no video")
    changes = {"data.manifest": lists_with_broken / "m.csv", "data.val": lists_with_broken / "val.txt"}
    with pytest.warns(UserWarning, match=r"videos are left out"):
        assert main(command(lists_with_broken, "run", **changes, **{"data.unreadable": "skip"})) == 0
    run, out = lists_with_broken / "run", capsys.readouterr().out
    rows = [(r["split"], r["epoch"], Path(r["path"]).name) for r in rows_of(run / "unreadable.csv")]
    assert rows[:4] == [
        ("train", "", "broken 0.mp4"), ("train", "", "broken 1.mp4"), ("val", "", "broken 0.mp4"),
        ("val", "0", "late.mp4"),
    ]  # fmt: skip
    assert "val: 2 videos were left out at least once as unreadable" in out
    (line,) = [line for line in out.splitlines() if line.startswith("epoch 1/1")]
    assert "unreadable 4" in line


def test_a_scan_counts_what_it_finds(lists_with_broken, two_classes, capsys):
    given = [
        "data",
        "scan",
        str(lists_with_broken / "train.txt"),
        "--output",
        str(lists_with_broken / "scan"),
        "--num_workers",
        "2",
    ]
    (lists_with_broken / "train.txt").open("a").write("gone.mp4 1\n")
    for _ in range(2):
        assert main(given) == 1
        out = capsys.readouterr().out.splitlines()
        assert out[-1] == "11 videos: 8 ok, 2 corrupt, 1 missing"
        assert "11 of 11 videos" in out
    names = {path.name for path in (lists_with_broken / "scan").iterdir()}
    assert names == {"manifest.csv", "report.md", "report.png", "bad.csv"}
    assert len(rows_of(lists_with_broken / "scan" / "bad.csv")) == 3
    assert main(["data", "scan", str(two_classes / "test.txt"), "--output", str(lists_with_broken / "scan")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 videos: 4 ok"
    assert len(rows_of(lists_with_broken / "scan" / "manifest.csv")) == 15  # of both lists
    assert main(["data", "--help"]) == 0
    assert "synthesize, scan" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("action", ["scan", "pack"])
def test_a_full_disk_is_named_and_the_same_command_goes_on(two_classes, tmp_path, capsys, action):
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path / "small")]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount")
    given = ["data", action, str(two_classes / "train.txt"), "--output", str(tmp_path / "small"), "--num_workers", "1"]
    try:
        (tmp_path / "small" / "other").write_bytes(bytes(12 * 1024))
        assert main(given) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"octvideo: error: {tmp_path / 'small'}" in line
        assert "cannot be written (No space left on device): 0.0 MB are free" in line
        assert "make room and give the same command again" in line
        (tmp_path / "small" / "other").unlink()
        subprocess.run(["mount", "-o", "remount,size=16m", str(tmp_path / "small")], check=True)
        assert main(given) == 0
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("data.unreadable", "ignore", "unreadable should be one of error, skip, but it is 'ignore'"),
        ("data.timeout_seconds", -1, "timeout_seconds should be at least 0, which sets no limit, but it is -1"),
        ("data.train", "shards/*.tar", "train: shards/*.tar is a pattern, which no shards are named by. Give their fo"),
        ("data.manifest", "gone.csv", "gone.csv: no such manifest. Write one with: octvideo data scan"),
    ],
)
def test_wrong_options_are_named_before_anything_is_read(lists_with_broken, capsys, option, value, message):
    assert main(command(lists_with_broken, "run", **{option: value})) == 1
    assert message in capsys.readouterr().err


def test_predict_skips_what_it_cannot_read_where_it_may(skipped, lists_with_broken, two_classes, capsys):
    videos = [str(two_classes / "test 0.mp4"), str(lists_with_broken / "broken 0.mp4")]
    given = ["predict", *videos, "--checkpoint", str(skipped[0] / "checkpoints" / "last.ckpt"), "--device", "cpu"]
    for policy, code in (("error", 1), ("skip", 0)):
        assert main([*given, "--unreadable", policy]) == code
        err = capsys.readouterr().err.splitlines()
        assert "broken 0.mp4: cannot be opened as a video" in err[0]
        assert err[1:] == ["1 of 2 videos could not be read"]


def test_synchronised_norms_and_skipped_clips_are_refused_together(lists_with_broken, capsys):
    given = command(lists_with_broken, "run", **{"data.unreadable": "skip", "trainer.sync_batchnorm": "true"})
    assert main(given) == 1
    assert "trainer.sync_batchnorm is true and data.unreadable is 'skip'" in capsys.readouterr().err


def test_two_ranks_go_on_beside_batches_of_nothing(lists_with_broken, warm_python):
    """Every batch is one clip: where one rank has none, the other one's gradients still meet zeros."""
    given = command(
        lists_with_broken,
        "run",
        **{"trainer.devices": 2, "data.unreadable": "skip", "data.val": lists_with_broken / "test.txt"},
    )
    warm_python.run_ranks(["-m", "octvideo", *given])
    rows = rows_of(lists_with_broken / "run" / "unreadable.csv")
    assert {(r["split"], Path(r["path"]).name) for r in rows} == {
        ("train", "broken 0.mp4"), ("train", "broken 1.mp4"), ("val", "broken 0.mp4"), ("test", "broken 0.mp4"),
    }  # fmt: skip
    assert read_result(lists_with_broken / "run" / "result.json").num_videos == 4


@pytest.mark.parametrize(("videos", "code"), [(("train 0.mp4", "broken 0.mp4"), 0), (("broken 0.mp4",) * 2, 1)])
def test_an_epoch_of_nothing_is_one_in_which_no_rank_has_read_a_clip(
    lists_with_broken, two_classes, warm_python, videos, code
):
    """Each rank has one clip of an epoch."""
    paths = {"train 0.mp4": two_classes / "train 0.mp4", "broken 0.mp4": lists_with_broken / "broken 0.mp4"}
    (lists_with_broken / "two.txt").write_text("".join(f"{paths[name]} {label}\n" for label, name in enumerate(videos)))
    changes = {"data.train": lists_with_broken / "two.txt", "trainer.devices": 2, "data.unreadable": "skip"}
    given = command(lists_with_broken, "run", **changes)
    printed = warm_python.run_ranks(["-m", "octvideo", *given], code=code)
    assert ("none of the 2 clips of epoch 1 could be read, such as" in printed.err) == bool(code)
