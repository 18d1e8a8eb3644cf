"""Videos in shards whose decoding hangs or crashes, and addresses that stall: named or left out, and nothing waits."""

import ctypes
import gc
import http.server
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch

from octvideo.data import VideoDataModule, VideoDataset, VideoDecodeError, decode_frames, iterate_frames
from octvideo.data.shards import ShardDataset, ShardError, ShardLoader, open_shards
from octvideo.data.timed_clips import TimedClips

CLIPS = {"num_frames": 4, "frame_stride": 2, "short_side": (48, 56), "test_short_side": 48, "crop_size": 32}
HOWS = {
    "spin": lambda: ctypes.PyDLL(None).sleep(60),  # in C, with Python's lock
    "crash": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
REASONS = {
    "spin": "decoding took more than 0.5 s and was stopped. Give it more time (timeout_seconds).",
    "crash": "the process that decoded it was killed by SIGSEGV.",
    "kill": "the process that decoded it was killed by SIGKILL.",
}
PATIENT = {"timeout_seconds": 20}  # with which a crash is told as one however slow the machine is
STUCK = 1  # the second video of the first shard


@pytest.fixture
def member(packed_set) -> str:
    """What errors call the stuck video."""
    shards = open_shards(packed_set)
    return f"{shards.urls[0]}, member {shards.index.shards[0].keys[STUCK]}.mp4"


@pytest.fixture
def stick(monkeypatch, member):
    """Makes every decode of the stuck video end badly."""

    def apply(how):
        def guarded(function):
            def decode(source, *args, **kwargs):
                if str(source) == member:
                    HOWS[how]()
                return function(source, *args, **kwargs)

            return decode

        monkeypatch.setattr("octvideo.data.dataset.decode_frames", guarded(decode_frames))
        monkeypatch.setattr("octvideo.data.stream.iterate_frames", guarded(iterate_frames))

    return apply


def module(packed_set, split, **settings) -> VideoDataModule:
    given = {"num_clips": 2, "num_crops": 1, "batch_size": 4, "timeout_seconds": 0.5, **CLIPS}
    return VideoDataModule(**{split: str(packed_set)}, **given | settings)


def loader(module, split):
    return module.train_dataloader() if split == "train" else module.scoring_dataloader(split)


def children() -> set[int]:
    """Processes below this one that live, without those of objects that nobody holds."""
    gc.collect()
    return living()


def living() -> set[int]:
    below = psutil.Process().children(recursive=True)
    return {child.pid for child in below if child.status() != psutil.STATUS_ZOMBIE}


def videos_of(batches) -> list[int]:
    return [video for batch in batches for video in batch["video"].tolist()]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_without_a_video_that_hangs_or_crashes(packed_set, member, stick, how, split, num_workers):
    stick(how)
    data = module(packed_set, split, num_workers=num_workers, unreadable="skip", **({} if how == "spin" else PATIENT))
    batches, start = loader(data, split), time.monotonic()
    num_views = 2 if split == "test" else 1
    path = data.annotations(split).records[STUCK].path
    for _ in range(2):
        epoch = list(batches)
        assert Counter(videos_of(epoch)) == {video: num_views for video in range(8) if video != STUCK}
        left_out = [clip for batch in epoch for clip in batch["unreadable"]]
        assert [(clip.video, clip.view, clip.path) for clip in left_out] == [
            (STUCK, view, path) for view in range(num_views)
        ]
        assert {clip.reason.removesuffix(" ") for clip in left_out} == {f"{member}: {REASONS[how]}"}
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("num_workers", "cache_short_side"), [(0, None), (0, 48), (1, None)])
def test_an_error_names_the_shard_and_the_member(packed_set, member, stick, split, num_workers, cache_short_side):
    stick("spin")
    data = module(packed_set, split, num_workers=num_workers, cache_short_side=cache_short_side)
    start = time.monotonic()
    with pytest.raises(VideoDecodeError) as caught:
        list(loader(data, split))
    assert f"{member}: {REASONS['spin']} Re-encode the file" in str(caught.value)
    assert time.monotonic() - start < 30


def test_all_of_a_batch_may_hang(packed_set, monkeypatch):
    """A batch takes as long as its clips together: no limit of the loader ends it before."""
    for name in ("dataset.decode_frames", "stream.iterate_frames"):
        monkeypatch.setattr(f"octvideo.data.{name}", lambda *args, **kwargs: time.sleep(60))
    data = module(packed_set, "val", num_workers=1, unreadable="skip", batch_size=8, timeout_seconds=0.3)
    [batch] = loader(data, "val")
    assert (len(batch["video"]), len(batch["unreadable"])) == (0, 8)


@pytest.mark.parametrize("mode", ["train", "val", "test"])
@pytest.mark.parametrize("cache_short_side", [None, 48])
def test_clips_are_those_made_without_a_limit(packed_set, mode, cache_short_side):
    def batches(seconds):
        shards = open_shards(packed_set)
        clips = VideoDataset(
            shards.index.annotations(), mode=mode, num_clips=3, num_crops=2, num_samples=2,
            cache_short_side=cache_short_side, **CLIPS,
        )  # fmt: skip
        return list(ShardLoader(ShardDataset(shards, clips, batch_size=3, timeout_seconds=seconds)))

    for one, other in zip(batches(60), batches(0), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("clip", "label", "video", "view"))


def test_a_child_that_died_between_two_clips_of_a_video_is_sent_it_again(packed_set):
    shards = open_shards(packed_set)
    clips = VideoDataset(shards.index.annotations(), mode="test", num_clips=3, **CLIPS)
    dataset = ShardDataset(shards, clips, batch_size=1)
    before, seen = children(), []
    for batch in dataset:
        seen.append(batch["clip"])
        [child] = living() - before
        os.kill(child, signal.SIGKILL)
        while child in living():
            time.sleep(0.01)
    others = list(ShardDataset(shards, clips, batch_size=1))
    assert all(torch.equal(one, other["clip"]) for one, other in zip(seen, others, strict=True))


def test_a_video_is_sent_once_for_all_its_clips(packed_set, monkeypatch):
    sent = []
    ask = TimedClips._process

    def process(self):
        child = ask(self)
        monkeypatch.setattr(child, "ask", lambda request: sent.append(request[0]) or type(child).ask(child, request))
        return child

    monkeypatch.setattr(TimedClips, "_process", process)
    assert len(list(loader(module(packed_set, "test", num_workers=0, timeout_seconds=60), "test"))) == 4
    assert len(sent) == 16
    assert len([source for source in sent if source is not None]) == 8


class Stalls(http.server.BaseHTTPRequestHandler):
    """Gives the index, a whole first shard, and half of any other one; then nothing more."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        content = Path(self.server.folder, Path(self.path).name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        is_whole = self.path.endswith(("index.json", "000000.tar"))
        self.wfile.write(content if is_whole else content[: len(content) // 2])
        if not is_whole:
            self.wfile.flush()
            self.server.is_over.wait(60)


@pytest.fixture
def stalling(packed_set):
    """Address of the packed set on a server that stalls."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalls)
    server.folder, server.is_over = packed_set, threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/list-{{000000..000002}}.tar"
    server.is_over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_address_that_stalls_is_named_or_left_out(stalling, num_workers):
    before, start = children(), time.monotonic()
    with pytest.raises(ShardError, match=r"list-000001.tar: gave nothing for 1 s, and was stopped. Check the address"):
        list(loader(module(stalling, "test", num_workers=num_workers, timeout_seconds=1), "test"))
    data = module(stalling, "test", num_workers=num_workers, timeout_seconds=1, unreadable="skip")
    batches = list(loader(data, "test"))
    assert {0, 1, 2} <= set(videos_of(batches)) < set(range(8))
    reasons = {clip.reason for batch in batches for clip in batch["unreadable"]}
    assert all(reason.endswith("give it more time (timeout_seconds).") for reason in reasons)
    assert len(reasons) == 2  # one for each shard that stalls
    assert time.monotonic() - start < 30
    assert children() <= before


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_transfer_that_nobody_needs_any_more_is_ended(stalling):
    """Only the first video of the shard is asked for; the process that decodes it has the pipe open, too."""
    shards = open_shards(stalling.replace("{000000..000002}", "000001"))
    dataset = VideoDataset(shards.index.annotations(), mode="test", **CLIPS)
    start = time.monotonic()
    [batch] = ShardDataset(shards, dataset, batch_size=1, done=[1, 2])
    assert batch["video"].tolist() == [0]
    assert time.monotonic() - start < 10
