"""Whatever bytes a list holds, reading it gives annotations or one line that names the file; nothing else, and soon."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from octvideo.data import Annotations, read_annotations

HEADER = b"label,youtube_id,time_start,time_end,split,is_cc\n"
LISTS = ("list.txt", "list.csv", "list.json", "trainlist01.txt", "wave_test_split1.txt", "train_split1")
CLASS_FILES = ("names.txt", "classInd.txt", "labels.json")
LONGEST_MESSAGE = 1500
FUZZ = settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

# Pieces that the forms are made of, so that many lists are nearly right.
TOKENS = st.sampled_from(
    [b"a.mp4", b"b.webm", b"wave/v.avi", b"path,label", HEADER[:-1], b"wave", b"x,1,2", b",", b'"', b"[", b"]", b"{",
     b"}", b'"id":', b'"7"', b'"template":', b'"Closing [something]"', b" ", b"\t", b"\n", b"\r\n", b"\r", b"#", b"0",
     b"1", b"-1", b"2", b"99999999999999999999", b"1e9", b"\xef\xbb\xbf", b"\xff", b"\x00", b"\x0b", b"\x85",
     b"\xe2\x80\xa8", b"\\ud800", b"\x1b[2J", b"/", b"..", b"~"]
)  # fmt: skip
CONTENT = st.one_of(st.binary(max_size=300), st.lists(TOKENS, max_size=40).map(b"".join))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a few files in the place of videos."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("a.mp4", "b.webm", "wave/v.avi", "x_000001_000002.mp4", "7.webm"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def read_or_refuse(source: Path, culprit: str, **settings) -> Annotations | None:
    """The annotations; None where they are refused with one line that names the culprit."""
    try:
        return read_annotations(source, missing="skip", **settings)
    except (ValueError, FileNotFoundError) as caught:
        error = caught
    assert type(error) in (ValueError, FileNotFoundError)  # no UnicodeError, which is a ValueError, too
    message = str(error)
    assert culprit in message
    assert message.isprintable()
    assert len(message) < LONGEST_MESSAGE
    return None


def check(annotations: Annotations | None) -> None:
    """Every record is a file, with a class of its own or none."""
    for record in annotations.records if annotations else ():
        assert Path(record.path).is_file()
        assert record.label is None or 0 <= record.label < annotations.num_classes
    for name in annotations.class_names if annotations else ():
        assert name.encode().decode().splitlines() in ([name], [])


@pytest.mark.parametrize("name", LISTS)
@given(content=CONTENT)
@example(content=b"")
@example(content=b"\xef\xbb\xbf")
@example(content=b"a.mp4 999999999999\n")
@example(content=b"a.mp4 -999999999999999999999999\n")
@example(content=b"a.mp4 " + 70_000 * b"9")
@example(content=b"a.mp4 \xff\n")
@example(content=b"a.mp4\x00 1\n")
@example(content=b"\xff\xfea\x00.\x00m\x00p\x004\x00 \x001\x00")
@example(content=b'path,label\n"a.mp4,1\nb.webm,2\n')
@example(content=b'path,label\n"a\nb.mp4",1\n')
@example(content=b'path,label\na.mp4,"1\n2"\n')
@example(content=b"path,label\na.mp4," + 140_000 * b"x")
@example(content=b"path,label\r\ra.mp4,1\r")
@example(content=HEADER + b"wave,x,1,1e999,train,0\n")
@example(content=HEADER + b"wave,x,nan,-1,train,0\n")
@example(content=HEADER + b"wave,../../x,1,2,train,0\n")
@example(content=HEADER + b"wave,x,1,2,train,0\nwave\n")
@example(content=100_000 * b"[")
@example(content=100_000 * b'{"a":')
@example(content=b"[1" + 5000 * b"0" + b"]")
@example(content=b'[{"id": "\\ud800", "template": "\\udfff"}]')
@example(content=b'[{"id": true}]')
@example(content=b'[{"id": {"id": "7"}, "template": ["wave"]}]')
@example(content=b'[{"id": "7", "template": "a\\nb"}]')
@example(content=b'{"id": "7"}')
@example(content=b"[NaN, Infinity]")
@example(content=b"wave/v.avi 0\n")
@example(content=b"wave/v.avi 1\nbend/w.avi 1\n")
@example(content=b"a.mp4 1\na.mp4 0\na.mp4 3\n")
@FUZZ
def test_any_bytes_as_a_list(folder, name, content):
    source = folder / name
    (folder / "wave_test_split1.txt" if name == "train_split1" else source).write_bytes(content)
    check(read_or_refuse(source, "split1" if name == "train_split1" else name))


@pytest.mark.parametrize("name", CLASS_FILES)
@given(content=CONTENT)
@example(content=b"")
@example(content=b"wave\n\xff\n")
@example(content=b"wave\nwave\n")
@example(content=b"wa\x1b[2Jve\n")
@example(content=b"1 wave\n1 bend\n")
@example(content=b"2 wave\n1 bend\n")
@example(content=b"0 wave\n")
@example(content=b'{"wave": "0", "bend": "1"}')
@example(content=b'{"wave": "0", "bend": 2}')
@example(content=b'{"wave": [0], "bend": null}')
@example(content=b'["wave"]')
@example(content=b'{"\\ud800": 0}')
@example(content=100_000 * b"\n")
@FUZZ
def test_any_bytes_as_class_names(folder, name, content):
    (folder / "plain.list").write_bytes(b"a.mp4 0\n")
    names = folder / "classes" / name
    names.parent.mkdir(exist_ok=True)
    names.write_bytes(content)
    check(read_or_refuse(folder / "plain.list", name, class_names=names))


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
VIDEO_IDS = st.text("abcXYZ019-_", min_size=11, max_size=11)


@given(rows=st.lists(st.tuples(NAMES, st.integers(0, 5)), min_size=1, max_size=5))
@settings(FUZZ, max_examples=60)
def test_any_file_name_is_read_from_a_csv_file(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("names")
    rows = [(f"a{name}b", label) for name, label in rows]  # a cell's own white space at its ends is left out
    for name, _ in rows:
        (folder / name).touch()
    quoted = ['"{}",{}'.format(name.replace('"', '""'), label) for name, label in rows]
    (folder / "list.csv").write_bytes("\n".join(["path,label", *quoted]).encode())
    records = read_annotations(folder / "list.csv").records
    assert [(Path(record.path).name, record.label) for record in records] == rows


@given(ids=st.lists(VIDEO_IDS, min_size=1, max_size=5, unique=True), start=st.integers(0, 10**7))
@settings(FUZZ, max_examples=40)
def test_any_kinetics_clip_is_found_by_its_name(tmp_path_factory, ids, start):
    folder = tmp_path_factory.mktemp("kinetics")
    for video in ids:
        (folder / f"{video}_{start:06d}_{start + 10:06d}.mp4").touch()
    lines = [f"wave,{video},{start},{start + 10},train" for video in ids]
    (folder / "train.csv").write_bytes(HEADER + "\n".join(lines).encode())
    annotations = read_annotations(folder / "train.csv")
    assert [Path(record.path).name[:11] for record in annotations.records] == ids


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", b"a.mp4 99999999\n"),
        ("list.txt", 20_000_000 * b"x"),
        ("list.csv", b'path,label\n"' + 20_000_000 * b"x"),
        ("list.csv", b'path,label\n"' + 10_000_000 * b"x\n"),
        ("list.json", 20_000_000 * b"\x00"),
        ("trainlist01.txt", 20_000_000 * b"a"),
        ("trainlist01.txt", b"a/" + 30_000 * b".a" + b" 1 1\n"),
        ("trainlist01.txt", b"a/a.avi" + 60_000 * b" " + b"x\n"),
    ],
)
def test_no_list_makes_memory_or_time_grow(folder, name, content):
    (folder / name).write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=name):
            read_annotations(folder / name)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_objects_of_something_else_are_refused(folder):
    (folder / "list.json").write_text(json.dumps([{"video": i} for i in range(1000)]))
    with pytest.raises(ValueError, match=r"list.json, entry 1: should be an object with an id"):
        read_annotations(folder / "list.json")
