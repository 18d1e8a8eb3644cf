"""Shards and indexes of strangers: refused with shard and member named, nothing written, little memory."""

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octvideo.data import VideoDataset
from octvideo.data.probe import VideoBytes
from octvideo.data.shards import ShardDataset, ShardError, open_shards
from octvideo.data.shards.index import parse_index
from octvideo.data.shards.reader import parse_video, read_members

MOST_BYTES = 50e6  # that reading any of them may take


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **values) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in values.items():
        setattr(info, key, value)
    return info


def read_all(folder: Path) -> list[VideoBytes]:
    shards = open_shards(folder)
    return [
        parse_video(url, shard, number, contents)
        for shard, url in zip(shards.index.shards, shards.urls, strict=True)
        for number, contents in read_members(url, shard, range(len(shard)))
    ]


SPARSE = header("k.mp4", tarfile.GNUTYPE_SPARSE)
GOOD = {"cls": b"0", "json": b"{}", "mp4": b"video"}
MEMBERS = {
    "absolute": ([("/etc/k.mp4", b"x")], r"member '/etc/k.mp4': names a place outside of the shard"),
    "parent": ([("../k.mp4", b"x")], r"member '../k.mp4': names a place outside"),
    "hidden parent": ([("a/../../k.mp4", b"x")], r"member 'a/../../k.mp4': names a place outside"),
    "backslashes": ([("..\\k.mp4", b"x")], r"names a place outside"),
    "drive": ([("C:\\k.mp4", b"x")], r"names a place outside"),
    "symlink": ([(header("k.mp4", tarfile.SYMTYPE, linkname="/etc/passwd"), b"")], r"member 'k.mp4': is a link"),
    "hard link": ([(header("k.mp4", tarfile.LNKTYPE, linkname="../x"), b"")], r"member 'k.mp4': is a link"),
    "device": ([(header("k.mp4", tarfile.CHRTYPE, devmajor=1, devminor=5), b"")], r"member 'k.mp4': is a link, a dev"),
    "fifo": ([(header("k.mp4", tarfile.FIFOTYPE), b"")], r"member 'k.mp4': is a link, a device or the like"),
    "sparse": ([(SPARSE, b"")], r"member 'k.mp4': is a link, a device or the like|breaks off or is no tar"),
    "long class": ([("k.cls", b"0" * 70_000)], r"member 'k.cls': declares 70000 bytes; 65536 is the most"),
    "long facts": ([("k.JSON", b"0" * 70_000)], r"member 'k.JSON': declares 70000 bytes; 65536 is the most"),
    "twice": ([("k.mp4", b"x"), ("k.mp4", b"y")], r"member k.mp4: comes twice"),
    "two videos": ([("k.cls", b"0"), ("k.mp4", b"x"), ("k.avi", b"y")], r"k: should have one video, but has more"),
    "no video": ([("k.cls", b"0")], r"member k: should have one video, but has none"),
    "no name": ([("k", b"0")], r"member 'k': should be named KEY.ENDING"),
    "no class": ([("k.mp4", b"x")], r"member k.cls: should be class 0, as the index says, but is b''"),
    "class out of range": ([("k.cls", b"7"), ("k.mp4", b"x")], r"member k.cls: should be class 0.*but is b'7'"),
    "odd class": ([("k.cls", b"\xff\x00zero"), ("k.mp4", b"x")], r"member k.cls: should be class 0"),
    "not json": ([("k.cls", b"0"), ("k.json", b"{"), ("k.mp4", b"x")], r"member k.json: is no JSON"),
    "deep json": ([("k.cls", b"0"), ("k.json", b"[" * 60_000), ("k.mp4", b"x")], r"member k.json: is no JSON"),
    "list": ([("k.cls", b"0"), ("k.json", b"[1]"), ("k.mp4", b"x")], r"member k.json: should be an object"),
    "odd length": (
        [("k.cls", b"0"), ("k.json", b'{"num_frames": "many", "rotation_degrees": 0}'), ("k.mp4", b"x")],
        r"member k.json: num_frames should be 1 or more, but it is 'many'",
    ),
    "other video": ([("other.mp4", b"x")], r"its video 0 is 'other', but not in the index"),
    "one more": ([("k.cls", b"0"), ("k.mp4", b"x"), ("l.mp4", b"y")], r"its video 1 is 'l', but not in the index"),
    "none": ([], r"breaks off after 0 of 1 videos"),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMBERS)
def test_odd_members_are_refused_by_name(tmp_path, shard_writer, monkeypatch, name):
    members, message = MEMBERS[name]
    folder = shard_writer(tmp_path / "shards", members, ["k"])
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ShardError, match=message) as caught:
        read_all(folder)
    assert "evil-000000.tar" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_shards_may_hold_beside(tmp_path, shard_writer):
    members = [
        (header("folder", tarfile.DIRTYPE), b""),
        *((f"folder/k.{ending}", content) for ending, content in GOOD.items()),
        ("folder/k.jpg", b"a picture"),
    ]
    [video] = read_all(shard_writer(tmp_path / "shards", members, ["folder/k"]))
    assert (video.data, video.name) == (b"video", f"{tmp_path}/shards/evil-000000.tar, member folder/k.mp4")


def raw_header(name: str, size_field: bytes, kind: bytes = b"0") -> bytes:
    """A header block whose size field is as given."""
    block = bytearray(header(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136], block[156:157] = size_field, kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HUGE = b"\x80" + (2**62).to_bytes(11, "big")
NEGATIVE = b"\xff" + (2**88 - 1024).to_bytes(11, "big")
PAX = b"30 size=99999999999999999999\n"
BLOCKS = {
    "huge video": (raw_header("k.mp4", HUGE), r"member 'k.mp4': declares 4611686018427387904 bytes"),
    "larger than the file": (raw_header("k.mp4", b"%011o\0" % 2**30) + b"x" * 512, "breaks off or is no tar file"),
    "negative": (raw_header("k.mp4", NEGATIVE), r"a header declares -1024 bytes"),
    "long header": (raw_header("k", b"%011o\0" % 2**30, b"x"), r"a header declares 1073741824 bytes"),
    "long name": (raw_header("k", HUGE, b"L"), r"a header declares 4611686018427387904 bytes"),
    "size in a long header": (
        raw_header("k", b"%011o\0" % len(PAX), b"x") + PAX.ljust(512, b"\0") + raw_header("k.mp4", b"%011o\0" % 1),
        r"declares 99999999999999999999 bytes",
    ),
    "noise": (bytes(range(256)) * 8, "breaks off or is no tar file after 0 of 1 videos"),
    "compressed": (gzip.compress(bytes(10_000_000)), "breaks off or is no tar file after 0 of 1 videos"),
    "empty": (b"", "breaks off or is no tar file after 0 of 1 videos"),
    "nothing": (bytes(10240), "breaks off after 0 of 1 videos"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_lies_about_sizes_cost_no_memory(tmp_path, shard_writer, name):
    blocks, message = BLOCKS[name]
    folder = shard_writer(tmp_path / "shards", [], ["k"])
    replace_shard(folder, blocks)
    tracemalloc.start()
    try:
        with pytest.raises(ShardError, match=message):
            read_all(folder)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_a_second_video_is_refused_before_it_is_read(tmp_path, shard_writer):
    endings = ("mp4", "avi", "mkv", "webm", "mov", "mpg")
    members = [("k.cls", b"0"), *((f"k.{ending}", bytes(20_000_000)) for ending in endings)]
    folder = shard_writer(tmp_path / "shards", members, ["k"])
    tracemalloc.start()
    try:
        with pytest.raises(ShardError, match=r"member k: should have one video, but has more. Take it out"):
            read_all(folder)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def replace_shard(folder: Path, content: bytes) -> None:
    """Other content under the same name, with an index that fits its size."""
    (folder / "evil-000000.tar").write_bytes(content)
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0]["num_bytes"] = len(content)
    (folder / "index.json").write_text(json.dumps(index))


def test_a_cut_shard_is_named_wherever_it_ends(tmp_path, packed_set):
    """A download that broke off: the file's size tells it at once, and the end where sizes are not known."""
    whole = (packed_set / "list-000000.tar").read_bytes()
    for path in packed_set.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = open_shards(tmp_path).index.shards[0]
    path = tmp_path / "list-000000.tar"
    ends = {0, 1, 511, 512, 600, len(whole) // 2, len(whole) // 2 // 512 * 512, *range(512, 9000, 1536)}
    for end in sorted(ends):
        path.write_bytes(whole[:end])
        with pytest.raises(ShardError, match=rf"list-000000.tar: is {end} bytes, but index.json says {len(whole)}"):
            open_shards(tmp_path)
        with pytest.raises(ShardError, match=r"list-000000.tar: breaks off .*after [012] of 3 videos.*Fetch it again"):
            list(read_members(str(path), shard, range(3)))


INDEX = {
    "format": "octvideo shards 1",
    "class_names": ["a", "b"],
    "shards": [{"name": "s-0.tar", "num_bytes": 10, "keys": ["k"], "labels": [1], "paths": ["p"]}],
}


def changed(**values):
    return INDEX | {"shards": [INDEX["shards"][0] | values]}


INDEXES = {
    "no json": ("{", r"index.json: is no JSON"),
    "deep": ("[" * 100_000, r"index.json: is no JSON"),
    "list": ([], r"index.json: is no index of shards; its format should be 'octvideo shards 1'"),
    "format": (INDEX | {"format": 2}, "is no index of shards"),
    "classes": (INDEX | {"class_names": "ab"}, "class_names should be a list of names"),
    "repeated classes": (INDEX | {"class_names": ["a", "a"]}, "class_names should be a list of distinct names"),
    "odd classes": (INDEX | {"class_names": ["a", 1]}, "class_names should be a list of names"),
    "no shards": (INDEX | {"shards": []}, "shards should be a list"),
    "odd shard": (INDEX | {"shards": [1]}, "shard 0: it should be an object"),
    "twice": (INDEX | {"shards": INDEX["shards"] * 2}, "shards should be a list of distinct names"),
    "parent": (changed(name="../s.tar"), "shard 0: name should be a plain file name, NAME.tar"),
    "absolute": (changed(name="/s.tar"), "name should be a plain file name"),
    "command": (changed(name="pipe:touch x;.tar"), "name should be a plain file name"),
    "option": (changed(name="-o.tar"), "name should be a plain file name"),
    "line": (changed(name="s.tar\n"), "name should be a plain file name"),
    "number": (changed(name=1), "name should be a plain file name"),
    "bytes": (changed(num_bytes=-1), "num_bytes should be a number of bytes"),
    "digits": (changed(sha256="0" * 63), "sha256 should be 64 hexadecimal digits"),
    "no digits": (changed(sha256=0), "sha256 should be 64 hexadecimal digits"),
    "yes": (changed(num_bytes=True), "num_bytes should be a number of bytes"),
    "label": (changed(labels=[2]), "labels should be a list of classes, 0 to 1"),
    "negative label": (changed(labels=[-1]), "labels should be a list of classes, 0 to 1"),
    "fraction": (changed(labels=[0.5]), "labels should be a list of classes, 0 to 1"),
    "fewer": (changed(labels=[]), "the number of keys, labels and paths should be the same"),
    "repeated key": (changed(keys=["k", "k"]), "keys should be a list of distinct names"),
    "no keys": (changed(keys=[], labels=[], paths=[]), "keys should be a list of names"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_odd_indexes_are_refused(tmp_path, name):
    content, message = INDEXES[name]
    (tmp_path / "index.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (tmp_path / "s-0.tar").write_bytes(b"0123456789")
    with pytest.raises(ShardError, match=message) as caught:
        open_shards(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_index_of_these_tests_is_good(tmp_path):
    index = parse_index(json.dumps(INDEX), "index.json")
    assert parse_index(index.to_json(), "index.json") == index


def error_of(call) -> str | None:
    """The message of the one error that there may be."""
    try:
        call()
    except ShardError as error:
        return str(error)
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["name", "num_bytes", "keys", "labels", "paths", "sha256"]


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(["format", "class_names", "shards", *KEYS]), value=JSON)
def test_any_value_in_an_index_is_read_or_refused(key, value):
    content = changed(**{key: value}) if key in KEYS else INDEX | {key: value}
    message = error_of(lambda: parse_index(json.dumps(content), "index.json"))
    assert message is None or "index.json" in message


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_an_index_or_refused(data):
    with pytest.raises(ShardError, match=r"index.json"):
        parse_index(data, "index.json")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=12)), max_size=4),
    end=st.integers(0, 10**6) | st.none(),
)
def test_any_change_of_a_shard_is_read_or_refused(tmp_path, packed_set, changes, end):
    content = bytearray((packed_set / "list-000000.tar").read_bytes())
    length = len(content)
    for position, patch in changes:
        start = (position * 4 if position % 2 else position) % length
        content[start : start + len(patch)] = patch
    path = tmp_path / "list-000000.tar"
    path.write_bytes(content if end is None else content[: end % length])
    shard = open_shards(packed_set).index.shards[0]
    message = error_of(
        lambda: [parse_video(str(path), shard, *found) for found in read_members(str(path), shard, range(3))]
    )
    assert message is None or str(path) in message
    assert sorted(os.listdir(tmp_path)) == ["list-000000.tar"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), patch=st.binary(min_size=1, max_size=40))
def test_any_change_of_a_video_gives_clips_or_a_skip(packed_set, tmp_path_factory, position, patch):
    folder = tmp_path_factory.mktemp("changed")
    for path in packed_set.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / "list-000001.tar"
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.name.endswith(".mp4")]
    content = bytearray(path.read_bytes())
    member = members[position % 3]
    start = member.offset_data + position % member.size
    patch = patch[: member.offset_data + member.size - start]
    content[start : start + len(patch)] = patch
    path.write_bytes(content)
    shards = open_shards(folder)
    clips = VideoDataset(
        shards.index.annotations(), num_frames=2, frame_stride=2, mode="val", test_short_side=48, crop_size=32
    )
    batches = list(ShardDataset(shards, clips, batch_size=3, unreadable="skip"))
    videos = [video for batch in batches for video in batch["video"].tolist()]
    assert len(videos) + sum(len(batch["unreadable"]) for batch in batches) == 8
    assert set(range(8)) - set(videos) <= {3, 4, 5}


def test_nothing_of_this_is_extracted(tmp_path, packed_set, monkeypatch):
    for name in ("extract", "extractall", "makefile"):
        monkeypatch.setattr(tarfile.TarFile, name, lambda *args, **values: pytest.fail("extracted"))
    assert len(read_all(packed_set)) == 8
    assert io.BytesIO(read_all(packed_set)[0].data).read(8)[4:] == b"ftyp"
