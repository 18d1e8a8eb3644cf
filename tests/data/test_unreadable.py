"""Clips that cannot be read: batches without them, and the list on disk."""

import multiprocessing
from pathlib import Path

import pytest
import torch

from octvideo.data import UnreadableClip, UnreadableLog, collate_clips


def item(video: int, view: int = 0) -> dict:
    return {"clip": torch.full((3, 2, 4, 4), float(video)), "label": video % 2, "video": video, "view": view}


def test_a_batch_lacks_what_could_not_be_read():
    bad = UnreadableClip(7, 1, "a.mp4", "no frame of it decodes")
    batch = collate_clips([item(3), bad, item(4, 2)])
    assert batch["unreadable"] == [bad]
    assert batch["clip"].shape == (2, 3, 2, 4, 4)
    assert [batch[key].tolist() for key in ("label", "video", "view")] == [[1, 0], [3, 4], [0, 2]]
    assert collate_clips([item(3)])["unreadable"] == []


def test_a_batch_of_nothing_is_empty():
    bad = [UnreadableClip(video, 0, f"{video}.mp4", "empty") for video in range(3)]
    batch = collate_clips(bad)
    assert batch["unreadable"] == bad
    assert [len(batch[key]) for key in ("clip", "label", "video", "view")] == [0, 0, 0, 0]
    assert batch["label"].dtype == torch.int64


def test_the_log_holds_each_video_once_an_epoch(tmp_path):
    log = UnreadableLog(tmp_path / "run" / "unreadable.csv")
    assert not log.path.exists()
    for _ in range(2):
        log.add("train", 0, [("a.mp4", "empty"), ("b.mp4", "took more than 1 s")])
    log.add("train", 1, [("a.mp4", "empty")])
    log.add("test", None, [("c.mp4", "empty")] * 30)
    assert len(log) == 4
    assert log.videos("train") == {"a.mp4": "empty", "b.mp4": "took more than 1 s"}
    assert log.path.read_text().splitlines() == [
        "split,epoch,path,reason", "train,0,a.mp4,empty", "train,0,b.mp4,took more than 1 s", "train,1,a.mp4,empty",
        "test,,c.mp4,empty",
    ]  # fmt: skip
    again = UnreadableLog(log.path)
    again.add("train", 1, [("a.mp4", "empty")])  # a resumed run comes upon it again
    assert again.rows == log.rows
    assert len(log.path.read_text().splitlines()) == 5


def test_odd_names_and_a_torn_line(tmp_path):
    path = tmp_path / "u.csv"
    names = [
        'a "b", c.mp4',
        "line\nbreak.mp4",
        "line\rbreak.mp4",
        b"no utf-8 \xff.mp4".decode("utf-8", "surrogateescape"),
    ]
    log = UnreadableLog(path)
    log.add("val", 2, [(name, f"{name}: empty") for name in names])
    for torn in (b"val,3,cut off", b'val,3,"cut'):
        with open(path, "ab") as file:
            file.write(torn)
        log = UnreadableLog(path)
        log.add("test", None, [(torn.decode(), "empty")])
        assert set(UnreadableLog(path).videos("val")) == set(names)
        assert UnreadableLog(path).rows == log.rows
    assert len(log) == 6


def test_a_log_in_memory():
    log = UnreadableLog(None)
    log.add("test", None, [("a.mp4", "empty")])
    log.reload()
    assert len(log) == 1


def append(path: Path, rank: int) -> None:
    log = UnreadableLog(path)
    for number in range(200):
        log.add("train", 0, [(f"{rank} {number}.mp4", "x" * 200)])


def test_processes_append_to_one_file(tmp_path):
    path = tmp_path / "u.csv"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=append, args=(path, rank)) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    log = UnreadableLog(path)
    assert set(log.videos("train")) == {f"{rank} {number}.mp4" for rank in range(3) for number in range(200)}
    assert {len(line) for line in path.read_text().splitlines()[1:]} <= {
        len("train,0,0 0.mp4,") + 200 + i for i in range(3)
    }


@pytest.mark.parametrize("content", ["", "split,epoch,path,reason\n", "split,epoch"])
def test_an_empty_log(tmp_path, content):
    (tmp_path / "u.csv").write_text(content)
    assert len(UnreadableLog(tmp_path / "u.csv")) == 0
