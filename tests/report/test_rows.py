"""Result files: round trip, atomic writing, and what a bad file says."""

import dataclasses
import json
import math
import subprocess

import pytest
import torch

import octvideo.report.rows as rows_module
from octvideo.report import ResultRow, collect_metadata, read_result, write_result

VALUES = {
    **{"name": "weizmann", "model": "i3d_r50", "alpha": 0.125, "octave": "spatial", "dataset": "Weizmann"},
    **{"split": "test", "num_videos": 36, "top1_percent": 80.5, "top5_percent": 99.0, "mean_class_percent": 79.0},
    **{"gmacs_per_view": 25.05, "gmacs_per_video": 751.5, "params_m": 28.04, "crop": "224x224", "num_frames": 8},
    **{"frame_stride": 8, "num_clips": 10, "num_crops": 3, "seed": 0},
}


def row(**changes):
    return ResultRow(**(VALUES | changes))


def test_round_trip_keeps_every_field(tmp_path):
    path = tmp_path / "new folder" / "result.json"
    written = row(per_class_percent={"wave": 50.0, "Grüße": None}, fold="subject 1", metadata=collect_metadata())
    write_result(path, written)
    assert read_result(path) == written
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["macs_unit"] == "multiply-adds"


def test_class_without_video_is_written_as_null(tmp_path):
    write_result(tmp_path / "r.json", row(per_class_percent={"wave": math.nan, "run": 1.0}))
    assert read_result(tmp_path / "r.json").per_class_percent == {"wave": None, "run": 1.0}


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    write_result(path, row())
    with pytest.raises(TypeError):
        write_result(path, row(metadata={"device": torch.device("cpu")}))
    with pytest.raises(ValueError, match="JSON compliant"):
        write_result(path, row(metadata={"loss": math.nan}))
    assert read_result(path) == row()
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_failed_replace_removes_the_temporary_file(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("disk full")

    monkeypatch.setattr(rows_module.os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_result(tmp_path / "r.json", row())
    assert list(tmp_path.iterdir()) == []


def test_new_file_is_readable_by_others_as_the_umask_says(tmp_path):
    write_result(tmp_path / "r.json", row())
    (tmp_path / "plain").touch()
    assert (tmp_path / "r.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def written_values(**changes):
    return dataclasses.asdict(row()) | changes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "should be JSON"),
        ("", "should be JSON"),
        ("[1]", "should hold one JSON object, got list"),
        (json.dumps({k: v for k, v in written_values().items() if k not in ("crop", "seed")}), "lacks .* crop, seed"),
        (json.dumps(written_values(flops=3)), "unknown fields flops"),
        (json.dumps(written_values(top1_percent=120)), "top1_percent should be .* at most 100, got 120"),
        (json.dumps(written_values(alpha="half")), "alpha should be a finite number .* got 'half'"),
    ],
)
def test_bad_file_is_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"bad\.json.*{message}") as caught:
        read_result(path)
    assert "\n" not in str(caught.value)


def test_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "bad.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"bad\.json should be JSON"):
        read_result(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json not found"):
        read_result(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "value"), [("top1_percent", math.nan), ("mean_class_percent", -1.0), ("alpha", 1.5), ("num_clips", 0)]
)
def test_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} should be a finite number"):
        row(**{name: value})


def test_metadata_is_plain_and_complete():
    found = collect_metadata("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["torch_version"].split("+")[0] == torch.__version__.split("+")[0]
    assert (found["device"], found["cpu_threads"]) == ("cpu", torch.get_num_threads())
    assert ("avx2" in found["processor"]) == torch.backends.cpu.get_cpu_capability().startswith("AVX")
    assert found["date_utc"].endswith("+00:00")


def test_commit_of_another_checkout_does_not_count(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "rows.py").touch()
    monkeypatch.setattr(rows_module, "__file__", str(folder / "rows.py"))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert collect_metadata()["git_commit"] is None
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    commit = collect_metadata()["git_commit"]
    assert len(commit) == 40
    (folder / "rows.py").write_text("changed")
    assert collect_metadata()["git_commit"] == f"{commit}+changes"
