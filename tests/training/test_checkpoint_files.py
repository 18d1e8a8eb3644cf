"""Checkpoint files: whole at every moment, on a full disk, too; which one a run goes on from when one is damaged."""

import errno
import os
import subprocess
import warnings

import pytest
import torch

from octvideo.training import best_checkpoint, last_checkpoint, read_checkpoint, resumable_checkpoint
from octvideo.training.checkpoint_files import WholeFiles, write_whole


def content(number):
    return {"state_dict": {"weight": torch.full((500,), float(number))}, "hyper_parameters": {}, "number": number}


def save(output, number, name="last.ckpt"):
    WholeFiles().save_checkpoint(content(number), output / "checkpoints" / name)


def number_of(path):
    return read_checkpoint(path)["number"]


def names(output):
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def test_the_last_and_the_one_before_it_are_kept(tmp_path):
    assert last_checkpoint(tmp_path) is resumable_checkpoint(tmp_path) is best_checkpoint(tmp_path) is None
    for number in range(3):
        save(tmp_path, number)
    save(tmp_path, 7, "best.ckpt")
    save(tmp_path, 8, "best.ckpt")
    assert names(tmp_path) == ["best.ckpt", "last-previous.ckpt", "last.ckpt"]
    assert number_of(last_checkpoint(tmp_path)) == number_of(resumable_checkpoint(tmp_path)) == 2
    assert number_of(tmp_path / "checkpoints" / "last-previous.ckpt") == 1
    assert number_of(best_checkpoint(tmp_path)) == 8


class Full:
    """A file on a disk that has room for some more bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(bytes(data)[: self.room])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("room", [0, 1, 1000])
def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, room):
    save(tmp_path, 1)
    save(tmp_path, 2)
    opened = open
    monkeypatch.setattr("builtins.open", lambda path, mode: Full(opened(path, mode), room))
    message = r"last.ckpt cannot be written \(No space left on device\): it takes 0.0 MB, and [\d.]+ MB are free. What"
    with pytest.raises(OSError, match=message + " was written before is whole: make room, then go on with --resume"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert names(tmp_path) == ["last-previous.ckpt", "last.ckpt"]
    assert number_of(resumable_checkpoint(tmp_path)) == 2
    assert number_of(tmp_path / "checkpoints" / "last-previous.ckpt") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_really_full(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path / "checkpoints")]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount")
    try:
        save(tmp_path, 1)
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "checkpoints" / "other").write_bytes(bytes(64 * 1024))
        with pytest.raises(OSError, match=r"No space left on device\): it takes 0.0 MB, and 0.0 MB are free"):
            save(tmp_path, 2)
        assert number_of(resumable_checkpoint(tmp_path)) == 1
        (tmp_path / "checkpoints" / "other").unlink()
        save(tmp_path, 3)
        assert number_of(resumable_checkpoint(tmp_path)) == 3
    finally:
        subprocess.run(["umount", str(tmp_path / "checkpoints")], check=True)


class KilledError(BaseException):
    """Stands for a kill between two calls to the system: nothing is tidied up."""


def kill_at(monkeypatch, call):
    """Let calls to the system do their work until the one of this number."""
    calls = 0

    def until_killed(func):
        def counted(*args):
            nonlocal calls
            calls += 1
            if calls == call + 1:
                raise KilledError
            return func(*args)

        return counted

    for name in ("fsync", "replace", "open"):
        monkeypatch.setattr(os, name, until_killed(getattr(os, name)))


@pytest.mark.parametrize("call", range(5))
def test_a_kill_between_two_calls_leaves_a_whole_checkpoint(tmp_path, monkeypatch, call):
    save(tmp_path, 1)
    save(tmp_path, 2)
    kill_at(monkeypatch, call)
    with pytest.raises(KilledError):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert number_of(resumable_checkpoint(tmp_path)) == (2 if call < 3 else 3)
    save(tmp_path, 4)
    assert names(tmp_path) == ["last-previous.ckpt", "last.ckpt"]
    assert number_of(resumable_checkpoint(tmp_path)) == 4


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.999])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path, keep):
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = last_checkpoint(tmp_path)
    size = path.stat().st_size
    os.truncate(path, int(keep * size) if isinstance(keep, float) else keep)
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged: the run goes on from .*last-previous.ckpt"):
        assert number_of(resumable_checkpoint(tmp_path)) == 1


@pytest.mark.parametrize("same_run", [True, False])
@pytest.mark.parametrize("call", [None, *range(4)])
def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(tmp_path, monkeypatch, same_run, call):
    files = WholeFiles()
    path = tmp_path / "checkpoints" / "last.ckpt"
    for number in (1, 2):
        files.save_checkpoint(content(number), path)
    os.truncate(path, path.stat().st_size // 2)
    files = files if same_run else WholeFiles()
    if call is None:
        files.save_checkpoint(content(3), path)
    else:
        kill_at(monkeypatch, call)
        with pytest.raises(KilledError):
            files.save_checkpoint(content(3), path)
        monkeypatch.undo()
    assert number_of(path.with_name("last-previous.ckpt")) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert number_of(resumable_checkpoint(tmp_path)) == (3 if call in (None, 2, 3) else 1)


def test_one_changed_byte_is_seen(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = last_checkpoint(tmp_path)
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged"):
        assert number_of(resumable_checkpoint(tmp_path)) == 1


def test_no_checkpoint_that_can_be_read(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    for name in names(tmp_path):
        os.truncate(tmp_path / "checkpoints" / name, 100)
    with pytest.raises(ValueError, match=r"last.ckpt cannot be read.*or delete last.ckpt and last-previous.ckpt to st"):
        resumable_checkpoint(tmp_path)


def test_where_the_last_is_missing_the_one_before_it_is_taken(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    last_checkpoint(tmp_path).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_of(resumable_checkpoint(tmp_path)) == number_of(last_checkpoint(tmp_path)) == 1


def test_other_files_are_written_whole_too(tmp_path):
    write_whole(b"one", tmp_path / "new" / "config.yaml")
    write_whole(b"two", tmp_path / "new" / "config.yaml")
    assert (tmp_path / "new" / "config.yaml").read_bytes() == b"two"
    assert len(list((tmp_path / "new").iterdir())) == 1
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"config.yaml cannot be written"):
        write_whole(b"", tmp_path / "file" / "config.yaml")
