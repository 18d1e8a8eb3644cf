"""Reading lists of videos, and what each kind of mistake says."""

from pathlib import Path

import pytest

from octvideo.data import Annotations, VideoRecord, read_annotations, split_annotations


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Folder with empty files in the place of videos: reading a list opens none of them."""
    for name in ("a.mp4", "my clip.avi", "c.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, text: str, name: str = "train.txt") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def labels(annotations: Annotations) -> list[int | None]:
    return [record.label for record in annotations.records]


def test_text_list_with_spaces_comments_blank_lines_and_windows_line_ends(videos):
    source = write(videos, "\ufeff# a comment\r\na.mp4 0\r\n\r\nmy clip.avi\t2\r\n")
    annotations = read_annotations(source)
    assert annotations.records == (VideoRecord(str(videos / "a.mp4"), 0), VideoRecord(str(videos / "my clip.avi"), 2))
    assert annotations.class_names == ("0", "1", "2")
    assert len(annotations) == 2
    assert annotations.num_classes == 3


def test_string_labels_are_sorted(videos):
    annotations = read_annotations(write(videos, "a.mp4 wave\nc.mp4 bend\nmy clip.avi wave\n"))
    assert annotations.class_names == ("bend", "wave")
    assert labels(annotations) == [1, 0, 1]


def test_class_names_beside_the_list_are_kept(videos):
    write(videos, "bend\n\nwave\njump\n", "classes.txt")
    annotations = read_annotations(write(videos, "a.mp4 1\n"))
    assert annotations.class_names == ("bend", "wave", "jump")
    assert labels(annotations) == [1]
    assert labels(read_annotations(write(videos, "a.mp4 jump\n"))) == [2]


def test_given_class_names_as_names_or_as_a_file(videos):
    source = write(videos, "a.mp4 1\nc.mp4 0\n")
    names = write(videos, "zoom\npan left\n", "names.txt")
    assert read_annotations(source, class_names=["zoom", "pan left"]) == read_annotations(source, class_names=names)
    assert read_annotations(source, class_names=str(names)).class_names == ("zoom", "pan left")


def test_labels_that_are_names_of_numbers_are_matched_as_names(videos):
    source = write(videos, "a.mp4 5\nc.mp4 3\n")
    assert labels(read_annotations(source, class_names=["3", "5"])) == [1, 0]


def test_csv_columns_in_any_order(videos):
    source = write(videos, 'label,id,path\n1,x,"my clip.avi"\n0,y,a.mp4\n', "train.csv")
    annotations = read_annotations(source)
    assert [Path(record.path).name for record in annotations.records] == ["my clip.avi", "a.mp4"]
    assert labels(annotations) == [1, 0]


def test_folder_per_class(tmp_path):
    for name in ("wave/b.mp4", "wave/a.MP4", "bend/c.avi", "bend/notes.txt", ".hidden/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    annotations = read_annotations(tmp_path)
    assert annotations.class_names == ("bend", "wave")
    assert [(Path(r.path).name, r.label) for r in annotations.records] == [("c.avi", 0), ("a.MP4", 1), ("b.mp4", 1)]


def test_root_is_where_relative_paths_start(videos, tmp_path_factory):
    lists = tmp_path_factory.mktemp("lists")
    source = write(lists, f"a.mp4 0\n{videos / 'c.mp4'} 0\n")
    records = read_annotations(source, root=videos).records
    assert [record.path for record in records] == [str(videos / "a.mp4"), str(videos / "c.mp4")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 0\nc.mp4\n", r"train.txt, line 2: no label in 'c.mp4'. Write: path label"),
        ("# one\nmy clip.avi\n", r"train.txt, line 2: no label in 'my clip.avi'"),
        ("a.mp4 0\nc.mp4 -1\n", r"train.txt, line 2: label -1 is out of range.*from 0 to 0"),
        ("# only a comment\n", r"train.txt: no videos are listed. Add lines"),
        ("", r"train.txt: no videos are listed"),
    ],
)
def test_mistakes_in_a_text_list_name_file_and_line(videos, text, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(write(videos, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,0\n", r"train.csv, line 1: the header should name the columns path and label, not 'file,"),
        ("path,label\na.mp4,0\nc.mp4,\n", r"train.csv, line 3: no label in this row"),
        ("path,label\na.mp4,0\nc.mp4\n", r"train.csv, line 3: no label in this row"),
        ("path,label\n,1\n", r"train.csv, line 2: no path in this row"),
        ("path,label\n", r"train.csv: no videos are listed. Add rows"),
        ("", r"train.csv, line 1: the header"),
    ],
)
def test_mistakes_in_a_csv_name_file_and_line(videos, text, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(write(videos, text, "train.csv"))


def test_labels_outside_the_class_names(videos):
    with pytest.raises(ValueError, match=r"line 2: label 2 is out of range.*from 0 to 1.*class_names"):
        read_annotations(write(videos, "a.mp4 0\nc.mp4 2\n"), class_names=["bend", "wave"])
    with pytest.raises(ValueError, match=r"line 1: label 'jump' is not one of the 2 class names \(bend, wave\)"):
        read_annotations(write(videos, "a.mp4 jump\n"), class_names=["bend", "wave"])


def test_class_names_have_to_differ_and_exist(videos):
    source = write(videos, "a.mp4 0\n")
    with pytest.raises(ValueError, match=r"names.txt: class names should differ, but 'bend' appears"):
        read_annotations(source, class_names=write(videos, "bend\nbend\n", "names.txt"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.txt: no such file of class names"):
        read_annotations(source, class_names=str(videos / "nowhere.txt"))
    with pytest.raises(ValueError, match="no class names are given"):
        read_annotations(source, class_names=[])


def test_missing_list_and_missing_videos(videos):
    with pytest.raises(FileNotFoundError, match=r"nowhere.txt: no such list or folder"):
        read_annotations(videos / "nowhere.txt")
    text = "a.mp4 0\n" + "".join(f"gone{i}.mp4 0\n" for i in range(5))
    with pytest.raises(FileNotFoundError, match=r"train.txt: 5 of 6 listed videos do not exist: .*gone0.*gone2.*root"):
        read_annotations(write(videos, text))
    with pytest.raises(ValueError, match="one sub-folder per class"):
        read_annotations(videos)


def test_split_takes_its_part_of_every_class_and_repeats_itself():
    records = (*(VideoRecord(f"{i}.mp4", i % 3) for i in range(30)), VideoRecord("single.mp4", 3))
    annotations = Annotations(records, ("a", "b", "c", "d"))
    kept, held_out = split_annotations(annotations, 0.2, seed=7)
    assert sorted(labels(held_out)) == [0, 0, 1, 1, 2, 2]
    assert set(kept.records) | set(held_out.records) == set(records)
    assert not set(kept.records) & set(held_out.records)
    assert (kept, held_out) == split_annotations(annotations, 0.2, seed=7)
    assert held_out != split_annotations(annotations, 0.2, seed=8)[1]


def test_split_errors():
    annotations = Annotations((VideoRecord("a.mp4", 0), VideoRecord("b.mp4", 1)), ("a", "b"))
    with pytest.raises(ValueError, match=r"fraction should lie between 0 and 1, but it is 1.5"):
        split_annotations(annotations, 1.5)
    with pytest.raises(ValueError, match="no class has two videos"):
        split_annotations(annotations, 0.5)
