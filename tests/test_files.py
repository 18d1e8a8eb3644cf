"""Files that appear whole or not at all."""

import errno
import multiprocessing
import os
import platform

import pytest
from torch import nn

from octvideo.data.motion import render_video, synthesis
from octvideo.data.scan.manifest import write_manifest
from octvideo.data.shards.journal import Journal
from octvideo.files import partials_of, replace_file
from octvideo.models.files import save_weights
from octvideo.report.rows import ResultRow, write_result
from octvideo.training.checkpoint_files import write_whole


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.json"
    for content in (b"one", b"two"):
        before = path.read_bytes() if path.is_file() else None
        with replace_file(path) as file:
            file.write(content)
            file.flush()
            assert (path.read_bytes() if path.is_file() else None) == before
        assert path.read_bytes() == content
        assert os.listdir(path.parent) == ["a.json"]


def test_the_file_before_can_be_kept(tmp_path):
    path, previous = tmp_path / "a", tmp_path / "b"
    for content in (b"one", b"two", b"three"):
        with replace_file(path, previous) as file:
            file.write(content)
    assert (path.read_bytes(), previous.read_bytes()) == (b"three", b"two")
    assert len(list(tmp_path.iterdir())) == 2


def write_often(path, letter):
    for _ in range(25):
        with replace_file(path) as file:
            for _ in range(4):
                file.write(letter * 10_000)
                file.flush()


def test_two_processes_that_write_one_path_leave_whole_files(tmp_path):
    path = tmp_path / "a"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(path, letter)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.is_file():
            assert path.read_bytes() in (b"a" * 40_000, b"b" * 40_000)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert os.listdir(tmp_path) == ["a"]


def test_what_ended_processes_left_is_deleted(tmp_path):
    path = tmp_path / "a[1]"
    gone, elsewhere, parent = f"{platform.node()}.{2**30}", f"elsewhere.{2**30}", f"{platform.node()}.{os.getppid()}"
    left = [tmp_path / f".a[1].{who}.partial" for who in (gone, elsewhere, parent)]
    for partial in left:
        partial.write_bytes(b"half")
    assert sorted(partials_of(path)) == sorted(left)
    with replace_file(path) as file:
        file.write(b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *left[1:]])


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replace_file(tmp_path / "a"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mistake"), OSError("no word of the system's")])
def test_an_error_while_writing_leaves_what_was_there(tmp_path, error):
    def write():
        with replace_file(tmp_path / "a") as file:
            file.write(b"half")
            raise error

    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"before")]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_error_that_names_the_file(tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"octvideo.files.os.{call}", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a.tar'"), replace_file(tmp_path / "a.tar") as file:
        file.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: calls.append(name) or real(*args))
    with replace_file(tmp_path / "a") as file:
        file.write(b"x")
    assert calls == ["fsync", "replace", "fsync"]  # the last one is the folder's


ROW = ResultRow("run", "i3d_r50", 0.0, "spatial", "set", "test", 1, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, "8x8", 4, 1, 1, 1, 0)
WRITERS = {
    "weights.pt": lambda path: save_weights(nn.Linear(2, 2), path),
    "weights.safetensors": lambda path: save_weights(nn.Linear(2, 2), path),
    "manifest.csv": lambda path: write_manifest(path, []),
    "result.json": lambda path: write_result(path, ROW),
    "last.ckpt": lambda path: write_whole(b"checkpoint", path),
    "packing.jsonl": lambda path: Journal(path.parent, {}),
    "train.txt": lambda path: synthesis._write_text(path, "text"),
    "video.mp4": lambda path: synthesis._encode(path, render_video(0, seed=0, split="test", index=0)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_everything_that_is_written_whole_is_so_on_a_full_disk(tmp_path, monkeypatch, name):
    """Some file systems say only then that there is no room when the content is forced to the disk."""

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"{name}.*No space left on device|No space left on device.*{name}"):
        WRITERS[name](path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, before)]
