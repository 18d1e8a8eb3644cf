"""Packing: every video once, whole shards only, what cannot be read listed, and a call that goes on."""

import csv
import hashlib
import json
import os
import signal
import tarfile
import time
from pathlib import Path

import psutil
import pytest
import webdataset

from octvideo.cli import main
from octvideo.data import decode_frames, read_annotations
from octvideo.data.probe import VideoBytes
from octvideo.data.shards import open_shards, pack_videos
from octvideo.data.shards.workers import ListedVideo, PackedVideo, Recipe, pack_each
from octvideo.files import partials_of

COPY = Recipe(256, 16, 23, copy=True)
SMALL = {"shard_size": 3, "num_workers": 0, "gop": 8}
DEADLINE_SECONDS = 60


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_webdataset_reads_every_video_once(painted_set, packed_set, painted_reader):
    annotations = read_annotations(painted_set / "list.txt")
    assert sorted(path.name for path in packed_set.iterdir()) == [
        "index.json", "list-000000.tar", "list-000001.tar", "list-000002.tar",
    ]  # fmt: skip
    urls = [str(path) for path in sorted(packed_set.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    keys = [sample["__key__"] for sample in samples]
    assert sorted(keys) == [f"{number:08d}" for number in range(8)] != keys
    for sample in samples:
        record = annotations.records[int(sample["__key__"])]
        facts = json.loads(sample["json"])
        video = VideoBytes("video", sample["mp4"])
        assert int(sample["cls"]) == record.label
        assert record.path.endswith(facts["path"])
        assert facts["num_frames"] == video.info.num_frames == 20 + int(sample["__key__"])
        assert painted_reader(decode_frames(video, range(facts["num_frames"]))) == list(range(facts["num_frames"]))


def test_the_index_says_what_the_shards_hold(painted_set, packed_set):
    shards = open_shards(packed_set)
    index, annotations = shards.index, read_annotations(painted_set / "list.txt")
    assert [len(shard) for shard in index.shards] == [3, 3, 2]
    assert index.starts == [0, 3, 6]
    assert list(index.class_names) == ["0", "1"]
    for shard, url in zip(index.shards, shards.urls, strict=True):
        assert shard.num_bytes == os.path.getsize(url)
        assert shard.sha256 == hashlib.sha256(Path(url).read_bytes()).hexdigest()
        with tarfile.open(url) as archive:
            assert [name for name in archive.getnames() if name.endswith(".mp4")] == [
                f"{key}.mp4" for key in shard.keys
            ]
    for number, record in enumerate(index.annotations().records):
        key = [key for shard in index.shards for key in shard.keys][number]
        source = annotations.records[int(key)]
        assert (os.path.join(painted_set, record.path), record.label) == (source.path, source.label)


def test_the_same_call_gives_the_same_bytes_and_a_finished_one_does_nothing(painted_set, packed_set, tmp_path):
    pack_videos(painted_set / "list.txt", tmp_path / "again", **SMALL)
    assert contents(tmp_path / "again") == contents(packed_set)
    calls = []
    index = pack_videos(
        painted_set / "list.txt", tmp_path / "again", **SMALL, progress=lambda *call: calls.append(call)
    )
    assert calls == []
    assert len(index) == 8


def test_what_cannot_be_read_is_listed(painted_set, tmp_path):
    (tmp_path / "noise, and more.mp4").write_bytes(b"no video")
    lines = [f"{painted_set}/bend/clip 0.mp4 bend\n", f"{tmp_path}/noise, and more.mp4 wave\n"]
    (tmp_path / "list.txt").write_text("".join(lines))
    calls = []
    output = tmp_path / "out"
    index = pack_videos(tmp_path / "list.txt", output, num_workers=0, progress=lambda *call: calls.append(call))
    assert (len(index), index.packed_with["num_unreadable"]) == (1, 1)
    assert calls == [(0, 2), (1, 2), (2, 2)]
    assert list(index.class_names) == ["bend", "wave"]
    with open(tmp_path / "out" / "unreadable.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["path"] == "noise, and more.mp4"
    assert "cannot be opened as a video" in row["reason"]
    (tmp_path / "bad.txt").write_text(lines[1])
    with pytest.raises(ValueError, match=r"none of the 1 videos can be read; the first: .*noise, and more.mp4"):
        pack_videos(tmp_path / "bad.txt", tmp_path / "bad", num_workers=0)
    assert not (tmp_path / "bad" / "index.json").exists()


def test_files_can_be_taken_as_they_are(tmp_path, painted_writer):
    (tmp_path / "a").mkdir()
    painted_writer(tmp_path / "a" / "old.AVI", 12, codec="mpeg4")
    painted_writer(tmp_path / "a" / "old.mkv", 9)
    (tmp_path / "list.csv").write_text("path,label\na/old.AVI,x\na/old.mkv,y\n")
    index = pack_videos(tmp_path / "list.csv", tmp_path / "out", num_workers=0, copy=True)
    with tarfile.open(tmp_path / "out" / "list-000000.tar") as archive:
        for key, name in (("00000000.avi", "old.AVI"), ("00000001.mkv", "old.mkv")):
            file = archive.extractfile(key)
            assert file is not None
            assert file.read() == (tmp_path / "a" / name).read_bytes()
    assert sorted(index.shards[0].paths) == ["a/old.AVI", "a/old.mkv"]


KILLED_CALL = """
import os, signal, sys
import psutil
from octvideo.data.shards import pack_videos

def progress(done, total):
    if done == 5:
        print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    pack_videos(sys.argv[1], sys.argv[2], shard_size=3, num_workers=1, gop=8, progress=progress)
"""


def test_a_killed_call_goes_on_and_leaves_no_process(painted_set, packed_set, tmp_path, warm_python):
    (tmp_path / "call.py").write_text(KILLED_CALL)
    output = tmp_path / "out"
    command = [tmp_path / "call.py", painted_set / "list.txt", output]
    printed = warm_python.run(command, seconds=DEADLINE_SECONDS, code=-signal.SIGKILL).out.split()
    [partial] = partials_of(output / "list-000001.tar")
    assert {path.name for path in output.iterdir()} == {"list-000000.tar", partial.name, "packing.jsonl"}
    with open(output / "packing.jsonl", "ab") as file:
        file.write(b'{"shard": {"name"')  # half a line
    calls = []
    pack_videos(painted_set / "list.txt", output, **SMALL, progress=lambda *call: calls.append(call))
    assert calls == [(done, 8) for done in range(3, 9)]
    assert contents(output) == contents(packed_set)
    left = [psutil.Process(int(pid)) for pid in printed if psutil.pid_exists(int(pid))]
    assert len(printed) >= 1
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in left):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_shard_that_changed_is_made_again(painted_set, packed_set, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        pack_videos(painted_set / "list.txt", tmp_path, **SMALL, progress=interrupt_at(7))
    assert (tmp_path / "list-000001.tar").is_file()
    assert not list(tmp_path.glob("*.partial"))
    (tmp_path / "list-000001.tar").write_bytes(b"")
    pack_videos(painted_set / "list.txt", tmp_path, **SMALL)
    assert contents(tmp_path) == contents(packed_set)


def interrupt_at(number):
    def progress(done, total):
        if done == number:
            raise KeyboardInterrupt

    return progress


class Deadly(str):
    """A path that kills the process that it comes to."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_video_that_kills_its_process_costs_only_itself(painted_set, num_workers):
    """More videos than are begun at a time, and a consumer that is slower than the processes."""
    lines = (painted_set / "list.txt").read_text().splitlines() * 2
    files = [str(painted_set / line.rsplit(" ", 1)[0]) for line in lines]
    files[1] = Deadly(files[1])
    videos = [ListedVideo(str(key), file, "path", 0) for key, file in enumerate(files)]
    found = []
    for video, packed in pack_each(videos, COPY, num_workers, DEADLINE_SECONDS):
        found.append((video.key, packed.facts["num_frames"] if isinstance(packed, PackedVideo) else packed))
        time.sleep(0.2)
    expected = [(str(key), 20 + key % 8) for key in range(16)]
    expected[1] = ("1", "the process that read it ended with exit code 1")
    assert found == expected


@pytest.mark.parametrize("num_workers", [1, 3])
def test_any_number_of_processes_writes_the_same_bytes(painted_set, packed_set, tmp_path, num_workers):
    pack_videos(painted_set / "list.txt", tmp_path, **SMALL | {"num_workers": num_workers})
    assert contents(tmp_path) == contents(packed_set)


class Stuck(str):
    """A path that holds up the process that it comes to."""

    def __reduce__(self):
        return time.sleep, (3600,)


def test_a_video_that_hangs_is_left_out(painted_set, tmp_path, monkeypatch):
    def listed(key, file, path, label):
        return ListedVideo(key, Stuck(file) if path == "wave/clip 3.mp4" else file, path, label)

    monkeypatch.setattr("octvideo.data.shards.pack.ListedVideo", listed)
    start = time.monotonic()
    index = pack_videos(painted_set / "list.txt", tmp_path / "out", num_workers=2, timeout_seconds=2)
    assert time.monotonic() - start < DEADLINE_SECONDS
    assert (len(index), index.packed_with["num_unreadable"]) == (7, 1)
    with open(tmp_path / "out" / "unreadable.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert row == {
        "path": "wave/clip 3.mp4",
        "reason": "it took more than 2 s and was stopped. Pack into another folder with more time (timeout_seconds)",
    }


def test_other_settings_and_other_files_are_not_mixed(painted_set, packed_set, tmp_path):
    with pytest.raises(FileExistsError, match=r"holds shards made with gop 8, not 12: give another folder"):
        pack_videos(painted_set / "list.txt", packed_set, shard_size=3, num_workers=0, gop=12)
    with pytest.raises(FileExistsError, match="holds shards made with other videos or classes"):
        pack_videos(painted_set, packed_set, **SMALL)
    (tmp_path / "mine.tar").write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"holds .tar files that this command did not write"):
        pack_videos(painted_set / "list.txt", tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 8}, "short_side should be at least 16, but it is 8"),
        ({"gop": 0}, "gop should be at least 1"),
        ({"quality": 52}, "quality should be at most 51, but it is 52"),
        ({"shard_size": 0}, "shard_size should be at least 1"),
        ({"num_workers": -1}, "num_workers should be at least 0"),
        ({"timeout_seconds": 0}, "timeout_seconds should be positive, but it is 0"),
    ],
)
def test_settings_are_checked_first(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        pack_videos("gone.txt", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_the_command(painted_set, packed_set, tmp_path, capsys):
    command = ["data", "pack", str(painted_set / "list.txt"), "--output", str(tmp_path / "out")]
    options = ["--shard_size", "3", "--num_workers", "0", "--gop", "8"]
    assert main([*command, *options]) == 0
    assert contents(tmp_path / "out") == contents(packed_set)
    assert "8 videos in 3 shards" in capsys.readouterr().out
    assert main([*command, *options, "--quality", "10"]) == 1
    assert "holds shards made with quality 23, not 10" in capsys.readouterr().err
