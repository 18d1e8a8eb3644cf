"""Official lists of Kinetics, Something-Something V2, UCF101 and HMDB51, over folders as users have them."""

import json
import os
from pathlib import Path

import pytest

from octvideo.data import VideoDataModule, VideoDataset, read_annotations

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def touch(folder: Path, *names: str) -> None:
    """Empty files in the place of videos: reading a list opens none of them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def found(annotations, root: Path) -> list[tuple[str, str | None]]:
    """Path below the root and name of the class of each record."""
    return [
        (os.path.relpath(r.path, root), None if r.label is None else annotations.class_names[r.label])
        for r in annotations.records
    ]


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    """train.csv in annotations/, its videos below videos/ in every way in which they are stored."""
    rows = [
        '"air drumming",-0_abcDEF12,5,15,train,0',
        "abseiling,--xyz1234567,0,10,train,1",
        '"massaging person\'s head",fghijklmnop,120,130,train,0',
        "zumba,zzzzzzzzzzz,999999,1000009,train,0",
    ]
    write(tmp_path / "annotations" / "train.csv", HEADER + "\r\n".join(rows))
    touch(
        tmp_path / "videos",
        "train/air_drumming/-0_abcDEF12_000005_000015.mkv",  # below a folder with underscores
        "--xyz1234567_000000_000010.MP4",  # flat
        "massaging person's head/fghijklmnop_000120_000130.webm",  # below the label
        "zumba/zzzzzzzzzzz_999999_1000009.mp4",
        "zumba/zzzzzzzzzzz_999999_1000009.json",
        "zumba/unlisted0000_000000_000010.mp4",
    )
    return tmp_path


def test_kinetics_finds_its_videos_wherever_they_lie(kinetics):
    annotations = read_annotations(kinetics / "annotations/train.csv", root=kinetics / "videos")
    assert found(annotations, kinetics / "videos") == [
        ("train/air_drumming/-0_abcDEF12_000005_000015.mkv", "air drumming"),
        ("--xyz1234567_000000_000010.MP4", "abseiling"),
        ("massaging person's head/fghijklmnop_000120_000130.webm", "massaging person's head"),
        ("zumba/zzzzzzzzzzz_999999_1000009.mp4", "zumba"),
    ]
    assert annotations.class_names == ("abseiling", "air drumming", "massaging person's head", "zumba")
    assert annotations.num_missing == 0


def test_of_files_of_one_name_the_one_in_the_labels_folder_is_taken(tmp_path):
    name = "abcdefghijk_000001_000011"
    touch(tmp_path, f"a/{name}.mp4", f"z/waving_hand/{name}.avi", f"z/waving_hand/{name}.mp4", f"zz/{name}.mp4")
    source = write(tmp_path / "train.csv", HEADER + "waving hand,abcdefghijk,1,11,train,0\n")
    assert found(read_annotations(source), tmp_path) == [(f"z/waving_hand/{name}.avi", "waving hand")]
    source = write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split\nabcdefghijk,1,11,test\n")
    assert found(read_annotations(source, class_names="kinetics400"), tmp_path) == [(f"a/{name}.mp4", None)]


def test_a_clip_may_be_listed_twice_and_links_lead_to_it(tmp_path):
    touch(tmp_path, "disk/abcdefghijk_000001_000011.mp4", "disk/.abcdefghijk_000001_000011.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "root")  # a circle
    (tmp_path / "root" / "abcdefghijk_000001_000011.avi").symlink_to(tmp_path / "nowhere.avi")
    (tmp_path / "root" / "itself").symlink_to(tmp_path / "root" / "itself")
    source = write(tmp_path / "train.csv", HEADER + 2 * "waving hand,abcdefghijk,1,11,train,0\n")
    records = read_annotations(source, root=tmp_path / "root").records
    assert [os.path.realpath(record.path) for record in records] == 2 * [
        os.path.realpath(tmp_path / "disk" / "abcdefghijk_000001_000011.mp4")
    ]


def test_test_lists_of_kinetics_have_no_labels(kinetics):
    source = write(kinetics / "test.csv", "youtube_id,time_start,time_end,split\n--xyz1234567,0,10,test\n")
    with pytest.raises(ValueError, match=r"test.csv: has no labels.*Give class_names, a file or one of kinetics400"):
        read_annotations(source, root=kinetics / "videos")
    annotations = read_annotations(source, root=kinetics / "videos", class_names="kinetics400")
    assert [record.label for record in annotations.records] == [None]
    assert (annotations.num_classes, annotations.is_labelled) == (400, False)
    module = VideoDataModule(test=str(source), root=str(kinetics / "videos"), class_names="kinetics400")
    with pytest.raises(ValueError, match=r"test: .*test.csv has no labels, so nothing can be learned from it or"):
        module.setup("test")


def test_kinetics_splits_share_their_classes(kinetics):
    write(kinetics / "annotations/val.csv", HEADER + "zumba,zzzzzzzzzzz,999999,1000009,val,0\n")
    lists = {split: str(kinetics / "annotations" / f"{split}.csv") for split in ("train", "val")}
    module = VideoDataModule(**lists, root=str(kinetics / "videos"), class_names="kinetics400")
    official = module.class_names
    assert len(official) == 400
    assert module.annotations("val").labels.tolist() == [official.index("zumba")] == [399]
    assert module.annotations("train").class_names == official
    own = VideoDataModule(**lists, root=str(kinetics / "videos"))
    assert own.annotations("val").labels.tolist() == [3]


def test_a_kinetics_list_trains(tmp_path, painted_writer):
    for number, name in enumerate(("abseiling/aaaaaaaaaaa", "zumba/bbbbbbbbbbb")):
        (tmp_path / name).parent.mkdir()
        painted_writer(tmp_path / f"{name}_000000_000010.mp4", 20 + number)
    rows = "abseiling,aaaaaaaaaaa,0,10,train,0\nzumba,bbbbbbbbbbb,0,10,train,0\n"
    annotations = read_annotations(write(tmp_path / "train.csv", HEADER + rows), class_names="kinetics700")
    dataset = VideoDataset(annotations, num_frames=4, frame_stride=2, mode="val", test_short_side=48, crop_size=32)
    assert [dataset[i]["clip"].shape for i in range(2)] == 2 * [(3, 4, 32, 32)]
    assert [dataset[i]["label"] for i in range(2)] == [0, 699]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "label,youtube_id,time_start\n",
            r"line 1: the header should name the columns path and label, not 'label,yout",
        ),
        (HEADER, r"train.csv: no videos are listed"),
        (HEADER + "zumba,abc,1,2.5,train,0\n", r"line 2: times should be whole seconds, not '2.5'"),
        (HEADER + "zumba,abc,-1,2,train,0\n", r"line 2: times should be whole seconds, not '-1'"),
        (HEADER + "zumba,abc,1,11,train,0\n,abc,1,11,train,0\n", r"line 3: no label in this row"),
        (HEADER + "zumba,,1,11,train,0\n", r"line 2: no youtube_id in this row. Fill the columns youtube_id, time_st"),
        (HEADER + "zumba,abc\n", r"line 2: no time_start in this row"),
        (HEADER + '"zumba,abc,1,11,train,0\n', r"line 2: not a row of a CSV file \(unexpected end of data\)"),
    ],
)
def test_mistakes_in_a_kinetics_list(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(write(tmp_path / "train.csv", text))


def sthv2_entry(number: str, template: str, *placeholders: str) -> dict:
    sentence = template
    for placeholder in placeholders:
        sentence = sentence.replace("[something]", placeholder, 1)
    return {"id": number, "label": sentence.lower(), "template": template, "placeholders": placeholders}


@pytest.fixture
def something(tmp_path: Path) -> Path:
    """Something-Something V2's files under their official names, and videos below 20bn/."""
    entries = [
        sthv2_entry("78687", "Holding [something] next to [something]", "potato", "bottle"),
        sthv2_entry("42326", "Closing [something]", "a box"),
        sthv2_entry("7", "Closing [something]", "a door"),
    ]
    write(tmp_path / "something-something-v2-train.json", json.dumps(entries))
    write(tmp_path / "something-something-v2-test.json", json.dumps([{"id": "7"}]))
    touch(tmp_path / "20bn", "78687.webm", "42326.mp4", "more/7.webm")
    return tmp_path


def test_something_something_takes_templates_without_brackets(something):
    source = something / "something-something-v2-train.json"
    annotations = read_annotations(source, root=something / "20bn")
    assert found(annotations, something / "20bn") == [
        ("78687.webm", "Holding something next to something"),
        ("42326.mp4", "Closing something"),
        ("more/7.webm", "Closing something"),
    ]
    assert annotations.class_names == ("Closing something", "Holding something next to something")
    official = read_annotations(source, root=something / "20bn", class_names="sthv2")
    assert official.labels.tolist() == [19, 5, 5]


@pytest.mark.parametrize("name", ["labels.json", "something-something-v2-labels.json"])
def test_something_somethings_own_file_of_classes(something, name):
    numbers = {"Holding something next to something": "0", "Opening something": "1", "Closing something": "2"}
    path = write(something / name, json.dumps(numbers))
    for split, labels in (("train", [0, 2, 2]), ("test", [None])):
        source = something / f"something-something-v2-{split}.json"
        annotations = read_annotations(source, root=something / "20bn")
        assert annotations.class_names == tuple(numbers)
        assert [record.label for record in annotations.records] == labels
    elsewhere = path.rename(something / "20bn" / "classes.json")
    assert read_annotations(source, root=something / "20bn", class_names=elsewhere).class_names == tuple(numbers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"Closing something": "0"}, r"should hold a list of objects with id and template"),
        ([{"id": 7, "label": "closing a box"}], r"entry 1: no template"),
        ([{"id": 7, "template": "Closing [something]"}, {"id": 8}], r"entry 2: no label, but other rows have one"),
        ([{"template": "Closing [something]"}], r"entry 1: should be an object with an id"),
        ([{"id": 7, "template": 3}], r"entry 1: no template"),
        ([], r"no videos are listed. Add objects with id and template"),
    ],
)
def test_mistakes_in_a_something_something_list(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(write(tmp_path / "train.json", json.dumps(content)))


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Two classes of UCF101: lists and classInd.txt in lists/, the videos in UCF-101/."""
    train = "HandstandPushups/v_HandStandPushups_g08_c01.avi 37\r\nHammering/v_Hammering_g08_c02.avi 35\r\n"
    write(tmp_path / "lists" / "trainlist01.txt", train)
    write(tmp_path / "lists" / "testlist01.txt", "Hammering/v_Hammering_g01_c01.avi\n")
    touch(tmp_path / "UCF-101", "HandstandPushups/v_HandStandPushups_g08_c01.avi", "v_Hammering_g08_c02.mp4")
    touch(tmp_path / "UCF-101", "Hammering/v_Hammering_g01_c01.avi")
    return tmp_path


def test_ucf101_counts_its_classes_from_1(ucf):
    names = (Path(__file__).parents[2] / "octvideo/data/annotations/class_names/ucf101.txt").read_text().split()
    train = read_annotations(ucf / "lists/trainlist01.txt", root=ucf / "UCF-101", class_names="ucf101")
    assert train.class_names == tuple(names)
    assert train.labels.tolist() == [36, 34]
    assert found(train, ucf / "UCF-101") == [
        ("HandstandPushups/v_HandStandPushups_g08_c01.avi", "HandstandPushups"),
        ("v_Hammering_g08_c02.mp4", "Hammering"),
    ]
    write(ucf / "lists/classInd.txt", "".join(f"{number} {name}\r\n" for number, name in enumerate(names, start=1)))
    assert read_annotations(ucf / "lists/trainlist01.txt", root=ucf / "UCF-101") == train
    test = read_annotations(ucf / "lists/testlist01.txt", root=ucf / "UCF-101")
    assert test.labels.tolist() == [34]
    given = read_annotations(ucf / "lists/testlist01.txt", root=ucf, class_names=ucf / "lists/classInd.txt")
    assert given.class_names == tuple(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bend/a.avi 0\n", r"line 1: number 0 does not fit class 'bend'.*one number, from 1"),
        ("bend/a.avi 1\nwave/b.avi 1\n", r"line 2: number 1 does not fit class 'wave'"),
        ("bend/a.avi 1\nbend/b.avi 2\n", r"line 2: number 2 does not fit class 'bend'"),
        ("/data/bend/a.avi 1\n", r"line 1: '/data/bend/a.avi 1' is not of UCF101's form.*another name"),
        ("bend/a.avi 1 2\n", r"line 1: .* is not of UCF101's form"),
    ],
)
def test_mistakes_in_a_ucf101_list(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(write(tmp_path / "trainlist01.txt", text))


@pytest.fixture
def hmdb(tmp_path: Path) -> Path:
    """Two classes of HMDB51: the official files in splits/, the videos in hmdb51/."""
    wave = "#20_Rhythm_wave_u_nm_np1_fr_goo_0.avi 1 \nB(ank!_wave_0.avi 2 \nunused_wave_0.avi 0 \n"
    write(tmp_path / "splits" / "wave_test_split1.txt", wave)
    write(tmp_path / "splits" / "brush_hair_test_split1.txt", "same_0.avi 1 \nother_0.avi 2 \n")
    write(tmp_path / "splits" / "wave_test_split2.txt", "unused_wave_0.avi 1\n")
    touch(
        tmp_path / "hmdb51", "wave/#20_Rhythm_wave_u_nm_np1_fr_goo_0.avi", "wave/B(ank!_wave_0.mp4", "wave/same_0.avi"
    )
    touch(tmp_path / "hmdb51", "brush_hair/same_0.avi", "brush_hair/other_0.avi", "wave/unused_wave_0.avi")
    return tmp_path


def test_hmdb51_puts_the_files_of_a_split_together(hmdb):
    train = read_annotations(hmdb / "splits/train_split1", root=hmdb / "hmdb51")
    assert found(train, hmdb / "hmdb51") == [
        ("brush_hair/same_0.avi", "brush_hair"),
        ("wave/#20_Rhythm_wave_u_nm_np1_fr_goo_0.avi", "wave"),
    ]
    test = read_annotations(hmdb / "splits/test_split1", root=hmdb / "hmdb51")
    assert found(test, hmdb / "hmdb51") == [
        ("brush_hair/other_0.avi", "brush_hair"),
        ("wave/B(ank!_wave_0.mp4", "wave"),
    ]
    assert train.class_names == test.class_names == ("brush_hair", "wave")
    official = read_annotations(hmdb / "splits/test_split1", root=hmdb / "hmdb51", class_names="hmdb51")
    assert official.labels.tolist() == [0, 50]
    lists = {split: str(hmdb / "splits" / f"{split}_split1") for split in ("train", "test")}
    assert VideoDataModule(**lists, root=str(hmdb / "hmdb51")).annotations("test").labels.tolist() == [0, 1]


def test_mistakes_in_hmdb51_lists(hmdb):
    with pytest.raises(ValueError, match=r"one class's part of HMDB51's lists. Give .*train_split1 or .*test_split1"):
        read_annotations(hmdb / "splits/wave_test_split1.txt")
    with pytest.raises(FileNotFoundError, match=r"train_split3: no such list"):
        read_annotations(hmdb / "splits/train_split3")
    with pytest.raises(ValueError, match=r"test_split2: no videos are listed.*video.avi 2"):
        read_annotations(hmdb / "splits/test_split2")
    write(hmdb / "splits" / "wave_test_split1.txt", "a.avi 1\na.avi 3\n")
    with pytest.raises(ValueError, match=r"wave_test_split1.txt, line 2: 'a.avi 3' is not of HMDB51's form"):
        read_annotations(hmdb / "splits/train_split1")
    with pytest.raises(ValueError, match=r"hmdb51/wave/same_0.avi: not a list of videos"):
        read_annotations(hmdb / "hmdb51/wave/same_0.avi")
