"""The lists of class names that come with the package, by name and where an official list takes one by itself."""

import itertools
from pathlib import Path

import pytest

from octvideo.data import CLASS_LISTS, VideoDataModule, read_annotations

SIZES = {"kinetics400": 400, "kinetics600": 600, "kinetics700": 700, "ucf101": 101, "hmdb51": 51, "sthv2": 174}


@pytest.fixture
def one_video(tmp_path: Path) -> Path:
    """List of one video, of class 0."""
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    return tmp_path / "list.txt"


def names_of(name: str, source: Path) -> tuple[str, ...]:
    return read_annotations(source, class_names=name).class_names


@pytest.mark.parametrize("name", CLASS_LISTS)
def test_lists_are_whole_and_sorted(one_video, name):
    names = names_of(name, one_video)
    assert len(names) == len(set(names)) == SIZES[name]
    # UCF101's authors sorted without regard to case: Hammering is 35, HammerThrow 36.
    assert list(names) == sorted(names, key=str.lower if name == "ucf101" else None)


def test_some_places_are_those_of_the_data_sets_authors(one_video):
    expected = {
        "kinetics400": {0: "abseiling", 1: "air drumming", 399: "zumba"},
        "kinetics600": {0: "abseiling", 599: "zumba"},
        "kinetics700": {0: "abseiling", 699: "zumba"},
        "ucf101": {0: "ApplyEyeMakeup", 34: "Hammering", 36: "HandstandPushups", 100: "YoYo"},
        "hmdb51": {0: "brush_hair", 50: "wave"},
        "sthv2": {5: "Closing something", 41: "Moving something away from the camera"},
    }
    for name, places in expected.items():
        names = names_of(name, one_video)
        assert {place: names[place] for place in places} == places


@pytest.mark.parametrize("name", CLASS_LISTS)
def test_lists_are_those_of_the_shared_data(one_video, shared_data, name):
    assert names_of(name, one_video) == tuple((shared_data / "labels" / f"{name}.txt").read_text().splitlines())


def test_numbers_and_names_with_underscores_fit_a_list(one_video):
    one_video.write_text("a.mp4 air_drumming\na.mp4 zumba\na.mp4 bowling\n")
    assert read_annotations(one_video, class_names="kinetics400").labels.tolist() == [1, 399, 31]
    one_video.write_text("a.mp4 399\n")
    assert read_annotations(one_video, class_names="kinetics400").labels.tolist() == [399]
    with pytest.raises(ValueError, match=r"line 1: label 399 is out of range; with 174 class"):
        read_annotations(one_video, class_names="sthv2")


def test_folders_with_underscores_are_classes_of_a_list(tmp_path):
    (tmp_path / "air_drumming").mkdir()
    (tmp_path / "air_drumming" / "a.mp4").touch()
    assert read_annotations(tmp_path, class_names="kinetics600").labels.tolist() == [3]


def test_names_with_underscores_stay_themselves(one_video):
    one_video.write_text("a.mp4 jump_up\na.mp4 wave\n")
    assert read_annotations(one_video, class_names=["jump up", "jump_up", "wave"]).labels.tolist() == [1, 2]


def test_a_data_module_takes_a_lists_name(one_video):
    module = VideoDataModule(train=str(one_video), class_names="hmdb51")
    assert module.num_classes == 51
    assert module.annotations("train").labels.tolist() == [0]


def test_an_unknown_name_is_a_missing_file(one_video):
    with pytest.raises(FileNotFoundError, match="kinetics500: no such file of class names.*kinetics400, kinetics600"):
        read_annotations(one_video, class_names="kinetics500")


def kinetics_csv(folder: Path, names) -> Path:
    (folder / "abcdefghijk_000000_000010.mp4").touch()
    rows = "".join(f"{name},abcdefghijk,0,10,train\n" for name in names)
    (folder / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    return folder / "train.csv"


@pytest.mark.parametrize("name", ["kinetics400", "kinetics600", "kinetics700"])
def test_an_official_list_with_nearly_all_classes_has_them_all(one_video, name):
    names = names_of(name, one_video)
    some = names[: len(names) // 10 * 9]
    annotations = read_annotations(kinetics_csv(one_video.parent, reversed(some)))
    assert annotations.class_names == names
    assert annotations.labels.tolist() == list(range(len(some)))[::-1]


def test_other_official_lists_have_their_own_classes(one_video):
    names = names_of("kinetics400", one_video)
    fewer = names[: 400 // 10 * 9 - 1]
    assert read_annotations(kinetics_csv(one_video.parent, fewer)).class_names == fewer
    more = (*names, "zzz")
    assert read_annotations(kinetics_csv(one_video.parent, more)).class_names == more
    one_video.write_text("".join(f"a.mp4 {name.replace(' ', '_')}\n" for name in names))
    assert read_annotations(one_video).class_names[1] == "air_drumming"  # a plain list takes no list by itself


def test_no_labels_can_have_nearly_all_classes_of_two_lists(one_video):
    for one, other in itertools.combinations(["kinetics400", "kinetics600", "kinetics700"], 2):
        first, second = (set(names_of(name, one_video)) for name in (one, other))
        assert len(first & second) < 0.9 * max(len(first), len(second))


def test_ucf101_lists_are_in_the_authors_order_without_classind(one_video):
    names = names_of("ucf101", one_video)
    folder = one_video.parent
    (folder / "v.avi").touch()
    (folder / "testlist02.txt").write_text("".join(f"{name}/v.avi\n" for name in names))
    assert read_annotations(folder / "testlist02.txt").labels.tolist() == list(range(101))
