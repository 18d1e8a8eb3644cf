"""Where shards may lie: folders, paths with braces, addresses; and what is refused."""

import functools
import http.server
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from octvideo.data import VideoDataModule
from octvideo.data.shards import ShardError, are_shards, open_shards
from octvideo.data.shards.address import open_address
from octvideo.data.shards.reader import read_members

NEEDS_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word; "broken" in a path ends the transfer halfway."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        if "/broken/" not in self.path:
            return super().do_GET()
        content = Path(self.directory, Path(self.path).name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.path.endswith(".json") else content[: len(content) // 2])
        return None


@pytest.fixture
def address(packed_set):
    """Address of the packed set."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(packed_set)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def read_all(shards):
    return [found for shard, url in zip(shards.index.shards, shards.urls, strict=True)
            for found in read_members(url, shard, range(len(shard)))]  # fmt: skip


@NEEDS_CURL
def test_an_address_reads_as_the_folder_does(packed_set, address):
    shards = open_shards(f"{address}/list-{{000000..000002}}.tar")
    assert shards.index == open_shards(packed_set).index
    assert read_all(shards) == read_all(open_shards(packed_set))
    first = next(read_members(shards.urls[0], shards.index.shards[0], [0]))
    assert first[0] == 0
    part = open_shards(f"{address}/list-000002.tar")
    assert [len(shard) for shard in part.index.shards] == [2]


@NEEDS_CURL
def test_a_transfer_that_fails_is_named(address):
    with pytest.raises(
        ShardError, match=rf"{address}/gone/index.json: cannot be read; the transfer ended with status 22"
    ):
        open_shards(f"{address}/gone/list-000000.tar")
    shards = open_shards(f"{address}/broken/list-000000.tar")
    with pytest.raises(ShardError, match=r"broken/list-000000.tar: cannot be read; the transfer ended with status 18"):
        read_all(shards)


@pytest.fixture
def silent():
    """Address of a server that takes connections and says nothing, after a first word where the path asks for one."""

    class Silent(Handler):
        def do_GET(self):
            if "/word/" in self.path:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{")
            over.wait()

    over = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def read_address(url, timeout_seconds):
    with open_address(url, timeout_seconds) as file:
        return b"".join(iter(lambda: file.read(1 << 16), b""))


@NEEDS_CURL
@pytest.mark.skipif(os.name != "posix", reason="pipes cannot be waited for")
@pytest.mark.parametrize("folder", ["x", "word"])
def test_a_server_that_says_nothing_is_left_in_time(silent, folder):
    url = f"{silent}/{folder}/list-000000.tar"
    start, before = time.monotonic(), psutil.Process().children(recursive=True)
    with pytest.raises(ShardError, match=rf"{silent}/{folder}/index.json: gave nothing for 1 s, and was stopped"):
        open_shards(url, timeout_seconds=1)
    with pytest.raises(ShardError, match=rf"{url}: gave nothing for 1 s"):
        read_address(url, timeout_seconds=1)
    assert time.monotonic() - start < 20
    assert psutil.Process().children(recursive=True) == before


@NEEDS_CURL
@pytest.mark.skipif(os.name != "posix", reason="pipes cannot be waited for")
def test_the_data_modules_limit_is_the_shards(silent):
    data = VideoDataModule(test=f"{silent}/x/list-{{000000..000001}}.tar", timeout_seconds=1)
    with pytest.raises(ShardError, match=r"x/index.json: gave nothing for 1 s"):
        data.setup("test")


def test_commands_do_not_run(packed_set, tmp_path):
    ran = tmp_path / "ran"
    command = f"pipe:touch {ran}; cat {packed_set}/list-{{000000..000002}}.tar"
    assert are_shards(command)
    with pytest.raises(ShardError, match=r"pipe:touch .*: would run a command, which no address may"):
        open_shards(command)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing://host/a.tar", r"nothing://host/index.json: addresses should be paths or begin with file, .*https"),
        ("gone/list-000000.tar", r"gone/index.json: no such index. octvideo data pack writes it beside the shards"),
        ("https://host/folder/", r"https://host/folder/: should name a shard, NAME.tar, or a folder of shards"),
        ("gone/list-{0..99999999999}.tar", "spells out more than 100000 shards"),
        ("gone/{000000..000009.tar", "braces should be of the form {000000..000009}"),
        ("gone/{0..100000}.tar", "spells out more than 100000 shards"),
        ("gone/{0..400}{0..400}.tar", "spells out more than 100000 shards"),
        ("{" * 1500 + "}" * 1500 + ".tar", "braces should be of the form"),
    ],
)
def test_what_is_no_address_is_said(source, message):
    assert are_shards(source)
    with pytest.raises(ShardError, match=message):
        open_shards(source)


def test_shards_that_the_index_does_not_know(packed_set, tmp_path):
    with pytest.raises(ShardError, match=r"list-000003.tar: should be one of the 3 shards of index.json.*each once"):
        open_shards(f"{packed_set}/list-{{000002..000003}}.tar")
    with pytest.raises(ShardError, match=r"list-000001.tar: should be one of the 3 shards"):
        open_shards(f"{packed_set}/list-{{000001,000001}}.tar")


def test_lists_and_folders_of_videos_are_no_shards(packed_set, painted_set, tmp_path):
    assert are_shards(packed_set)
    assert are_shards("shards/train-{000000..000009}.tar")
    for source in (painted_set, painted_set / "list.txt", "train.csv", "gone", tmp_path, "C:\\videos\\list.txt"):
        assert not are_shards(source)


def test_webdataset_is_asked_for(packed_set, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset.gopen", None)
    with pytest.raises(ImportError, match=r"shards need webdataset: pip install 'octvideo\[streaming\]'"):
        open_shards(packed_set)
