"""Manifests: what is written is what is read, whatever a crash leaves of the file."""

import os
import pickle
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octvideo.data import Manifest, VideoDecodeError, VideoInfo
from octvideo.data.scan.manifest import (
    STATUSES,
    ManifestEntry,
    append_entry,
    drop_torn_line,
    file_state,
    write_manifest,
)

ABSENT = "/nowhere/a video.mp4"
STEADY = VideoInfo(10, 29.97, 48, 64, "h264", 90, ("pyav", "decord"), range(1024, 11264, 1024), range(0, 10, 5))


def entry(path=ABSENT, **values):
    return ManifestEntry(
        path, **({"status": "ok", "container": "mov,mp4", "header_frames": 12, "info": STEADY} | values)
    )


def write(path: Path, *entries) -> Path:
    drop_torn_line(path)
    with open(path, "ab", buffering=0) as file:
        for one in entries:
            append_entry(file, one)
    return path


names = st.text(st.characters(blacklist_characters="\0"), min_size=1).filter(lambda name: name not in (".", ".."))
increasing = st.lists(st.integers(1, 2**40), max_size=30).map(lambda steps: np.cumsum([-5, *steps]).tolist())


@settings(max_examples=60, deadline=None)
@given(names=st.lists(names, min_size=1, max_size=4), reason=st.text(), times=increasing)
def test_every_entry_comes_back(tmp_path_factory, names, reason, times):
    """Names with commas, quotes, line breaks and bytes that are no UTF-8; times with any steps."""
    encoded = [
        name.encode("utf-8", "surrogatepass").replace(b"/", b"_").decode("utf-8", "surrogateescape") for name in names
    ]
    paths = [os.path.abspath(f"/nowhere/{name}") for name in encoded]
    info = VideoInfo(len(times), 25.0, 48, 64, "vp9", 0, ("pyav",), times, times[:1])
    written = [entry(path, reason=reason, info=info, seconds=0.25, mtime_ns=2**60, num_bytes=3) for path in paths]
    manifest = Manifest(write(tmp_path_factory.mktemp("m") / "manifest.csv", *written))
    for one in written:
        found = manifest.entry(one.path)
        assert found is not None
        assert list(found.info.times) == times
        assert (found.path, found.reason, found.num_bytes, found.mtime_ns) == (one.path, reason, 3, 2**60)
    assert {one.path for one in manifest.entries()} == set(paths)


def test_numbers_are_kept_in_little_room(tmp_path):
    irregular = VideoInfo(4, 25.0, 48, 64, "h264", 0, ("pyav",), [0, 5, 11, 16], [0])
    bad = entry("/nowhere/bad.mp4", status="corrupt", reason="no frame of it decodes", info=None)
    path = write(tmp_path / "m.csv", entry(), entry("/nowhere/irregular.mp4", info=irregular), bad)
    assert ",1024 1024x9,0 5x1\n" in path.read_text()
    manifest = Manifest(path)
    assert manifest.entry(ABSENT) == entry()
    assert manifest.entry("/nowhere/irregular.mp4").info.times == array("q", [0, 5, 11, 16])
    assert manifest.entry("/nowhere/bad.mp4") == bad
    assert bad.is_bad
    assert not entry().is_bad
    assert manifest.entry("/nowhere/unknown.mp4") is None


def test_a_crash_at_any_byte_loses_at_most_the_line_that_was_being_written(tmp_path):
    whole = write(
        tmp_path / "m.csv", entry("/a\nb.mp4"), entry("/c.mp4", reason='said "no",\nthen nothing')
    ).read_bytes()
    header, first = whole.index(b"\n") + 1, whole.index(b'"/a\nb.mp4"')
    second = whole.index(b"/c.mp4")
    for length in range(len(whole) + 1):
        path = tmp_path / "cut.csv"
        path.write_bytes(whole[:length])
        if length >= header:
            assert [one.path for one in Manifest(path).entries()] == ["/a\nb.mp4", "/c.mp4"][
                : (length >= second) + (length == len(whole))
            ]
        grown = Manifest(write(path, entry("/d.mp4")))
        assert [one.path for one in grown.entries()][-1] == "/d.mp4"
        assert len(grown) == 1 + (length >= second) + (length == len(whole))
    assert first == header


def test_the_last_line_of_a_video_counts_and_a_rewritten_file_has_one(tmp_path):
    path = write(tmp_path / "m.csv", entry("/a.mp4"), entry("/b.mp4"), entry("/a.mp4", status="damaged"))
    manifest = Manifest(path)
    assert manifest.has_superseded_lines
    assert manifest.entry("/a.mp4").status == "damaged"
    write_manifest(path, manifest.entries())
    again = Manifest(path)
    assert [(one.path, one.status) for one in again.entries()] == [("/a.mp4", "damaged"), ("/b.mp4", "ok")]
    assert not again.has_superseded_lines
    assert manifest.entry("/b.mp4").status == "ok"  # the old file lives on for those that have it open
    assert [child.name for child in tmp_path.iterdir()] == ["m.csv"]


def test_what_is_known_of_a_file_holds_until_it_changes(tmp_path):
    video = tmp_path / "v.mp4"
    video.write_bytes(b"1234")
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    write(good, entry(str(video), **dict(zip(("num_bytes", "mtime_ns"), file_state(str(video)), strict=True))))
    broken = {"status": "timed out", "reason": "took more than 1 s", "info": None}
    write(bad, entry(str(video), **broken, **dict(zip(("num_bytes", "mtime_ns"), file_state(str(video)), strict=True))))
    assert Manifest(good).video_info(video) == STEADY
    with pytest.raises(VideoDecodeError, match=r"v.mp4: timed out \(took more than 1 s\), says .*bad.csv"):
        Manifest(bad).video_info(video)
    os.utime(video, ns=(1, 1))
    assert Manifest(good).video_info(video) is None
    assert Manifest(bad).video_info(video) is None
    assert Manifest(good).video_info(tmp_path / "other.mp4") is None


def test_a_manifest_goes_to_another_process_by_its_path(tmp_path, monkeypatch):
    manifest = Manifest(write(tmp_path / "m.csv", entry(str(tmp_path / "v.mp4"))))
    monkeypatch.chdir(tmp_path)
    assert len(pickle.dumps(manifest)) < 300
    assert pickle.loads(pickle.dumps(manifest)).entry("v.mp4").info == STEADY


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.csv: no such manifest. Write one with: octvideo data scan"):
        Manifest(tmp_path / "gone.csv")
    for content in ("", "path,label\na.mp4 0\n", "path 0"):
        (tmp_path / "list.csv").write_text(content)
        with pytest.raises(ValueError, match="list.csv: not a manifest of videos"):
            Manifest(tmp_path / "list.csv")
    assert set(STATUSES) > {"ok", "damaged"}
