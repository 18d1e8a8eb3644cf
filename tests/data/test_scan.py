"""Scans of a folder with everything in it that can go wrong; scans that are killed and go on."""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import av
import pytest

from octvideo.data import Annotations, Manifest, VideoRecord, decode_frames, probe_video, scan_videos
from octvideo.data.scan import scan as module
from octvideo.data.scan import scan_file
from octvideo.data.scan.report import write_scan_report
from octvideo.data.scan.use import leave_out_bad

NUM_FRAMES = 40


@pytest.fixture(scope="module")
def originals(tmp_path_factory, painted_writer):
    """Whole videos: one that seeks, one that has to be read in sequence, one whose frames are broken in the middle."""
    folder = tmp_path_factory.mktemp("originals")
    painted_writer(folder / "good.mp4", NUM_FRAMES)
    painted_writer(folder / "sequence.avi", NUM_FRAMES, codec="mpeg4")
    painted_writer(folder / "broken.mp4", NUM_FRAMES, codec="mpeg4")
    break_frame(folder / "broken.mp4", 25)
    (folder / "noise.mp4").write_bytes(random.Random(0).randbytes(5000))
    (folder / "empty.mp4").touch()
    return folder


def break_frame(path: Path, number: int) -> None:
    """Zero the packet of a frame and those after it in its group."""
    with av.open(str(path)) as container:
        packets = sorted((p for p in container.demux(video=0) if p.size), key=lambda packet: packet.pts)
        places = [(packet.pos, packet.size) for packet in packets[number : number + 3]]
    content = bytearray(path.read_bytes())
    for start, size in places:
        content[start : start + size] = bytes(size)
    path.write_bytes(content)


@pytest.fixture
def videos(originals, tmp_path):
    """A folder of their copies, and a path that leads nowhere."""
    folder = Path(shutil.copytree(originals, tmp_path / "videos"))
    return [
        str(folder / name) for name in ("good.mp4", "sequence.avi", "broken.mp4", "noise.mp4", "empty.mp4", "no.mp4")
    ]


def statuses(manifest: Manifest) -> dict[str, str]:
    return {Path(entry.path).name: entry.status for entry in manifest.entries()}


EXPECTED = {
    "good.mp4": "ok", "sequence.avi": "ok", "broken.mp4": "damaged", "noise.mp4": "corrupt", "empty.mp4": "corrupt",
    "no.mp4": "missing",
}  # fmt: skip


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_scan_says_what_becomes_of_every_file(videos, tmp_path, num_workers):
    calls = []
    manifest = scan_videos(
        [*videos, videos[0]],
        tmp_path / "new" / "m.csv",
        num_workers=num_workers,
        progress=lambda *call: calls.append(call),
    )
    assert statuses(manifest) == EXPECTED
    assert calls == [(done, 6) for done in range(7)]
    for path in videos[:2]:
        assert manifest.entry(path).info == probe_video(path)
        assert manifest.entry(path).header_frames == NUM_FRAMES
    assert manifest.entry(videos[3]).reason == "cannot be opened as a video (Invalid data found when processing input)."
    assert manifest.entry(videos[4]).reason == "the file is empty."
    assert [manifest.entry(path).container for path in videos[:2]] == ["mov,mp4,m4a,3gp,3g2,mj2", "avi"]


def test_a_damaged_file_ends_before_the_first_frame_that_does_not_decode(videos, painted_reader):
    entry = scan_file(videos[2])
    assert entry.status == "damaged"
    assert f"of {NUM_FRAMES} does not decode" in entry.reason
    num_frames = entry.info.num_frames
    assert probe_video(videos[2]).num_frames == NUM_FRAMES  # which looks at the ends only
    assert 20 <= num_frames <= 25
    assert len(entry.info.times) == num_frames
    assert max(entry.info.keyframes) < num_frames
    everything = list(range(num_frames))
    assert painted_reader(decode_frames(videos[2], everything, info=entry.info)) == everything
    with pytest.raises(IndexError, match=f"frame {num_frames} was asked for, but frames 0 to {num_frames - 1} decode"):
        decode_frames(videos[2], [num_frames], info=entry.info)


def test_seeks_that_go_wrong_are_found_and_not_used(videos, monkeypatch, painted_reader):
    from octvideo.data.decode import READERS

    exact = READERS["pyav"]

    def one_too_early(name, wanted, info, to_rgb):
        return exact(name, [max(index - 1, 0) for index in wanted], info, to_rgb)

    with monkeypatch.context() as patch:
        patch.setitem(READERS, "pyav", one_too_early)
        entry = scan_file(videos[0])
        assert (entry.status, entry.reason) == ("ok", "seeking in it gives wrong frames")
        assert entry.info.seekers == ()
        assert painted_reader(decode_frames(videos[0], [30, 7], info=entry.info)) == [30, 7]
        assert painted_reader(decode_frames(videos[0], [30, 7])) == [29, 6]


def test_only_new_and_changed_files_are_scanned_again(videos, tmp_path, monkeypatch):
    target = tmp_path / "m.csv"
    scan_videos(videos[:3], target)
    scanned = counted_scans(monkeypatch, tmp_path / "scanned")
    scan_videos(videos, target, num_workers=2)
    assert scanned() == Counter({"noise.mp4": 1, "empty.mp4": 1, "no.mp4": 1})
    scan_videos(videos, target)
    assert scanned() == {}
    shutil.copy(videos[0], videos[5])
    Path(videos[0]).write_bytes(b"no video")
    os.utime(videos[1], ns=(5, 5))
    manifest = scan_videos(videos, target)
    assert scanned() == Counter({"good.mp4": 1, "sequence.avi": 1, "no.mp4": 1})
    assert statuses(manifest) == EXPECTED | {"good.mp4": "corrupt", "no.mp4": "ok"}
    assert len(manifest) == 6  # of the old lines nothing is left
    os.remove(videos[1])
    assert statuses(scan_videos(videos[:2], target))["sequence.avi"] == "missing"


def counted_scans(monkeypatch, log: Path):
    """Names that are scanned from now on, in children too; a call gives those since the last one."""
    scan = module.scan_file

    def counted(path):
        with open(log, "a", encoding="utf-8") as file:
            file.write(Path(path).name + "\n")
        return scan(path)

    def since():
        names = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return Counter(names)

    monkeypatch.setattr(module, "scan_file", counted)
    return since


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("sleep", "timed out", "took more than 0.5 s and was stopped"),
        ("spin", "timed out", "took more than 0.5 s and was stopped"),
        ("crash", "crashed", "the process that decoded it was killed by SIGSEGV"),
        ("kill", "crashed", "the process that decoded it was killed by SIGKILL"),
        ("fail", "crashed", "KeyError: 'what a library may raise'"),
    ],
)
def test_a_file_that_hangs_or_kills_its_process_is_recorded_and_the_scan_goes_on(
    videos, tmp_path, monkeypatch, how, status, reason
):
    scan = module.scan_file

    def sometimes_stuck(path):
        if path.endswith("sequence.avi"):
            {"sleep": lambda: time.sleep(60), "spin": lambda: ctypes.PyDLL(None).sleep(60),
             "crash": lambda: ctypes.string_at(0), "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
             "fail": lambda: {}["what a library may raise"]}[how]()  # fmt: skip
        return scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "scan_file", sometimes_stuck)
        manifest = scan_videos(
            videos, tmp_path / "m.csv", num_workers=2, timeout_seconds=0.5 if status == "timed out" else 60
        )
    assert statuses(manifest) == EXPECTED | {"sequence.avi": status}
    assert manifest.entry(videos[1]).reason == reason
    scanned = counted_scans(monkeypatch, tmp_path / "scanned")
    assert statuses(scan_videos(videos, tmp_path / "m.csv", timeout_seconds=0.5))["sequence.avi"] == (
        "timed out" if status == "timed out" else "ok"
    )
    assert sum(scanned().values()) == (status == "crashed")
    # With more time it is tried again.
    assert statuses(scan_videos(videos, tmp_path / "m.csv", timeout_seconds=60)) == EXPECTED


def test_a_killed_scan_goes_on_where_it_was(videos, tmp_path, painted_writer, monkeypatch):
    """Killed with SIGKILL again and again, each time after a few files, with a torn last line besides."""
    paths = videos + [shutil.copy(videos[0], tmp_path / "videos" / f"copy {number}.mp4") for number in range(20)]
    target = tmp_path / "m.csv"
    scanned = counted_scans(monkeypatch, tmp_path / "scanned")
    kills = 0
    while True:
        fork = os.fork()
        if fork == 0:
            begun = []

            def die_after_six(done, total, begun=begun):
                begun.append(done)
                if len(begun) > 6:
                    os.kill(os.getpid(), signal.SIGKILL)

            scan_videos(paths, target, num_workers=2, progress=die_after_six)
            os._exit(0)
        _, status = os.waitpid(fork, 0)
        if status == 0:
            break
        kills += 1
        with open(target, "ab") as file:
            file.write(b'"/half a li')
    assert kills >= 3
    counts = scanned()
    assert set(counts) == {Path(path).name for path in paths}
    # Only what was being scanned or written at a kill is scanned again.
    assert sum(counts.values()) <= len(paths) + 2 * kills
    manifest = scan_videos(paths, target)
    assert scanned() == {}
    assert len(manifest) == len(paths)
    assert Counter(statuses(manifest).values()) == Counter({"ok": 22, "damaged": 1, "corrupt": 2, "missing": 1})


def test_the_report_counts_by_class_and_lists_what_is_bad(videos, tmp_path):
    labels = [0, 0, 0, 1, 1, 1]
    records = tuple(VideoRecord(path, label) for path, label in zip(videos, labels, strict=True))
    annotations = Annotations(records, ("bend", "wave | jump", "none"))
    manifest = scan_videos(videos, tmp_path / "m.csv")
    counts = write_scan_report(tmp_path / "report", annotations, manifest)
    assert counts == Counter({"ok": 2, "damaged": 1, "corrupt": 2, "missing": 1})
    page = (tmp_path / "report" / "report.md").read_text()
    assert "6 videos, 3 of use" in page
    assert "| bend | 3 | 2 | 1 |  |  |  |  |" in page
    assert "| wave \\| jump | 3 |  |  | 2 | 1 |  |  |" in page
    assert "| none | 0 |" in page
    assert "| mpeg4 | avi | none: read in sequence | 1 |" in page
    lines = (tmp_path / "report" / "bad.csv").read_text().splitlines()
    assert lines[0] == "path,class,status,num_frames,reason"
    assert [line.split(",")[2] for line in lines[1:]] == ["damaged", "corrupt", "corrupt", "missing"]
    assert (tmp_path / "report" / "report.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="other.mp4: not in .*m.csv. Scan the whole list first"):
        write_scan_report(tmp_path, Annotations((VideoRecord("other.mp4", 0),), ("a",)), manifest)


def test_the_report_takes_any_name_of_a_class(videos, tmp_path):
    names = (r"$\frac{$", "a$b$", "two\nlines", "\udcff")
    records = tuple(VideoRecord(path, number) for number, path in enumerate(videos[: len(names)]))
    manifest = scan_videos(videos, tmp_path / "m.csv")
    write_scan_report(tmp_path, Annotations(records, names), manifest)
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert r"| $\frac{$ | 1 |" in (tmp_path / "report.md").read_text()


def test_what_a_manifest_knows_to_be_bad_is_left_out_and_counted(videos, tmp_path):
    annotations = Annotations(tuple(VideoRecord(path, 0) for path in [*videos, str(tmp_path / "gone.mp4")]), ("a",))
    manifest = scan_videos(videos, tmp_path / "m.csv")
    kept, reasons, notice = leave_out_bad(annotations, manifest)
    assert [record.path for record in kept.records] == videos[:3]
    assert {Path(path).name: reason for path, reason in reasons.items()} == {
        "noise.mp4": "corrupt: cannot be opened as a video (Invalid data found when processing input).",
        "empty.mp4": "corrupt: the file is empty.",
        "no.mp4": "missing: there is no such file",
        "gone.mp4": "missing: there is no such file",
    }
    assert notice == f"by {manifest.path}, 4 of 7 videos are left out (2 corrupt, 2 missing)."
    shutil.copy(videos[0], videos[3])  # repaired
    shutil.copy(videos[0], videos[5])  # there now
    kept, reasons, notice = leave_out_bad(Annotations(annotations.records[:6], ("a",)), manifest)
    assert len(kept) == 5
    assert notice == (
        f"by {manifest.path}, 1 of 6 videos are left out (1 corrupt), "
        "and 2 are looked at before use (2 changed since the scan)."
    )
    assert leave_out_bad(Annotations(annotations.records[:2], ("a",)), manifest)[2] == ""
    with pytest.raises(ValueError, match=r"none of the 1 listed videos is of use: 1 corrupt"):
        leave_out_bad(Annotations(annotations.records[4:5], ("a",)), manifest)


@pytest.mark.parametrize("settings", [{"num_workers": 0}, {"timeout_seconds": 0.0}, {"timeout_seconds": -1.0}])
def test_wrong_settings(tmp_path, settings):
    with pytest.raises(ValueError, match="num_workers and timeout_seconds should be positive, but are"):
        scan_videos(["a.mp4"], tmp_path / "m.csv", **settings)


OTHER_SCAN = """
import sys, time
from octvideo.data import scan_videos

def progress(done, total):
    print("holds it", flush=True)
    time.sleep(60)

scan_videos(["gone.mp4"], sys.argv[1], progress=progress)
"""


@pytest.mark.skipif(os.name != "posix", reason="nothing keeps two scans apart")
def test_two_scans_do_not_write_one_manifest(tmp_path):
    (tmp_path / "scan.py").write_text(OTHER_SCAN)
    command = [sys.executable, str(tmp_path / "scan.py"), str(tmp_path / "m.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "holds it\n"
        with pytest.raises(ValueError, match=r"m.csv: another scan is writing it. Wait for its end, or give"):
            scan_videos(["other.mp4"], tmp_path / "m.csv")
        other.kill()
    assert len(scan_videos(["other.mp4"], tmp_path / "m.csv")) == 1  # a dead one holds nothing
    assert {path.name for path in tmp_path.iterdir()} == {"m.csv", "scan.py"}


@pytest.mark.parametrize("content", ["path,label\na.mp4,0\n", "path,label\na.mp4,", "path,lab", "no line"])
def test_a_file_that_is_no_manifest_is_not_overwritten(tmp_path, content):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(ValueError, match="list.csv: not a manifest of videos"):
        scan_videos(["a.mp4"], tmp_path / "list.csv")
    assert (tmp_path / "list.csv").read_text() == content


def test_a_scan_of_awkward_files(shared_data, tmp_path):
    paths = sorted(map(str, (shared_data / "awkward").iterdir()))
    manifest = scan_videos(paths, tmp_path / "m.csv")
    found = statuses(manifest)
    assert {name for name, status in found.items() if status == "corrupt"} == {
        "empty.mp4", "noise.mp4", "text.mp4", "truncated.mp4",
    }  # fmt: skip
    assert {name for name, status in found.items() if status == "damaged"} == {"corrupted.mp4"}
    assert Counter(found.values())["ok"] == 16
    for entry in manifest.entries():
        if entry.info:
            assert entry.info.num_frames == count_in_sequence(entry.path)


def count_in_sequence(path: str) -> int:
    num_frames = 0
    with av.open(path, metadata_errors="replace") as container, contextlib.suppress(av.error.FFmpegError):
        for _ in container.decode(container.streams.best("video")):
            num_frames += 1
    return num_frames
