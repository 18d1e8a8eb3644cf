"""Clips out of shards: those of the files, each video once in evaluation, epochs that follow from the seed."""

import tarfile
from collections import Counter
from copy import copy
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from octvideo.data import VideoDataModule, VideoDataset, VideoDecodeError
from octvideo.data.batches import ViewBatches
from octvideo.data.scan import scan_videos
from octvideo.data.shards import ShardDataset, ShardError, ShardLoader, open_shards
from octvideo.data.shards.index import INDEX_FILE

CLIPS = {"num_frames": 4, "frame_stride": 2, "short_side": (48, 56), "test_short_side": 48, "crop_size": 32}
VIEWS = {"num_clips": 2, "num_crops": 2}
MODULE = CLIPS | VIEWS | {"batch_size": 3, "num_workers": 0}


def streamed(folder, mode="test", clips=CLIPS, **settings) -> ShardDataset:
    shards = open_shards(folder)
    views = VIEWS if mode == "test" else {}
    dataset = VideoDataset(shards.index.annotations(), mode=mode, **clips, **views)
    return ShardDataset(shards, dataset, **({"batch_size": 3} | settings))


def worker_passes(dataset: ShardDataset, monkeypatch) -> list[list[dict]]:
    """What each worker of a loader would give."""
    passes = []
    for worker in range(dataset.workers):
        info = SimpleNamespace(id=worker)
        monkeypatch.setattr("octvideo.data.shards.dataset.get_worker_info", partial(copy, info))
        passes.append(list(dataset))
    return passes


def videos_of(batches) -> list[int]:
    return [video for batch in batches for video in batch["video"].tolist()]


@pytest.fixture(scope="module")
def unpacked(packed_set, tmp_path_factory) -> VideoDataset:
    """The packed files as a data set of files: the oracle."""
    folder = tmp_path_factory.mktemp("unpacked")
    for path in sorted(packed_set.glob("*.tar")):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    shards = open_shards(packed_set)
    annotations = shards.index.annotations()
    keys = [key for shard in shards.index.shards for key in shard.keys]
    records = tuple(type(record)(str(folder / f"{key}.mp4"), record.label)
                    for key, record in zip(keys, annotations.records, strict=True))  # fmt: skip
    return VideoDataset(type(annotations)(records, annotations.class_names), mode="test", **CLIPS, **VIEWS)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_views_are_those_of_the_files(packed_set, unpacked, num_workers):
    dataset = streamed(packed_set, num_workers=num_workers)
    loader = ShardLoader(dataset, num_workers=num_workers, timeout=60 if num_workers else 0)
    batches = list(loader)
    assert len(loader) == len(batches) == 11
    seen = Counter()
    for batch in batches:
        for clip, label, video, view in zip(*(batch[key] for key in ("clip", "label", "video", "view")), strict=True):
            expected = unpacked[int(video) * 4 + int(view)]
            assert torch.equal(clip, expected["clip"])
            assert label == expected["label"]
            seen[int(video), int(view)] += 1
    assert seen == {(video, view): 1 for video in range(8) for view in range(4)}


@pytest.mark.parametrize("cache_short_side", [None, 24])
def test_a_cached_size_gives_the_same_pixels(packed_set, unpacked, cache_short_side):
    dataset = streamed(packed_set, clips=CLIPS | {"cache_short_side": cache_short_side})
    files = VideoDataset(unpacked.annotations, mode="test", cache_short_side=cache_short_side, **CLIPS, **VIEWS)
    clips = torch.cat([batch["clip"] for batch in dataset])
    assert all(torch.equal(clips[index], files[index]["clip"]) for index in range(0, 32, 5))
    assert len(dataset.clips.cache) <= 1


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("num_workers", [0, 2, 3])
def test_every_video_comes_once_with_all_views_from_one_worker(packed_set, monkeypatch, world_size, num_workers):
    seen, owners = Counter(), {}
    for rank in range(world_size):
        dataset = streamed(packed_set, num_workers=num_workers, rank=rank, world_size=world_size)
        passes = worker_passes(dataset, monkeypatch)
        assert sum(map(len, passes)) == len(dataset)
        for worker, batches in enumerate(passes):
            views = [(v, w) for b in batches for v, w in zip(b["video"].tolist(), b["view"].tolist(), strict=True)]
            assert views == sorted(views)
            seen.update(views)
            for video, _ in views:
                assert owners.setdefault(video, (rank, worker)) == (rank, worker)
    assert seen == {(video, view): 1 for video in range(8) for view in range(4)}


@pytest.mark.parametrize("world_size", [2, 3, 11])
def test_processes_that_work_in_step_give_equally_many_batches(packed_set, world_size):
    ranks = [streamed(packed_set, "val", batch_size=2, rank=r, world_size=world_size, equal=True)
             for r in range(world_size)]  # fmt: skip
    given = [videos_of(dataset) for dataset in ranks]
    assert {len(dataset) for dataset in ranks} == {-(-4 // world_size)}
    assert {len(videos) for videos in given} == {2 * -(-4 // world_size)}
    assert set(chain(*given)) == set(range(8))


def batches_of(dataset, monkeypatch) -> list[tuple[tuple[int, int], ...]]:
    return [
        tuple(zip(batch["video"].tolist(), batch["view"].tolist(), strict=True))
        for batch in chain(*worker_passes(dataset, monkeypatch))
    ]


@pytest.mark.parametrize("done", [(), (0, 3, 4, 5), (1, 2, 7), range(8)])
def test_batches_are_those_of_the_files_whatever_is_done(packed_set, monkeypatch, done):
    seen = []
    for rank in range(2):
        seen += batches_of(streamed(packed_set, num_workers=2, rank=rank, world_size=2, done=done), monkeypatch)
    files = [tuple(divmod(item, 4) for item in batch) for batch in ViewBatches(8, 4, 3, done=done)]
    assert seen == files
    assert {video for batch in seen for video, _ in batch} >= set(range(8)) - set(done)


def same(one, two) -> bool:
    return one["unreadable"] == two["unreadable"] and all(torch.equal(one[k], two[k]) for k in ("clip", "video"))


def epoch_of(dataset, epoch, monkeypatch, first=0):
    dataset.begin(epoch, first)
    return worker_passes(dataset, monkeypatch)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_follow_from_the_seed(packed_set, monkeypatch, num_workers):
    settings = {"num_workers": num_workers, "batch_size": 2, "buffer": 3}
    first = epoch_of(streamed(packed_set, "train", **settings), 0, monkeypatch)
    again = epoch_of(streamed(packed_set, "train", **settings), 0, monkeypatch)
    for one, two in zip(chain(*first), chain(*again), strict=True):
        assert same(one, two)
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (0, 2), (1, 0)):
        passes = epoch_of(streamed(packed_set, "train", seed=seed, **settings), epoch, monkeypatch)
        orders.append(tuple(videos_of(chain(*passes))))
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert any(order != tuple(sorted(order)) for order in orders)


def test_a_videos_clip_depends_on_seed_epoch_and_video_alone(packed_set, monkeypatch):
    def clips(epoch=0, **settings):
        dataset = streamed(packed_set, "train", **({"batch_size": 1} | settings))
        return {int(batch["video"]): batch["clip"] for batch in chain(*epoch_of(dataset, epoch, monkeypatch))}

    one = clips()
    for other in (clips(num_workers=3, buffer=1), clips(buffer=2), clips(num_workers=2, world_size=2, rank=1)):
        assert all(torch.equal(clip, one[video]) for video, clip in other.items())
    assert not any(torch.equal(clip, one[video]) for video, clip in clips(epoch=1).items())
    assert not any(torch.equal(clip, one[video]) for video, clip in clips(seed=1).items())


@pytest.mark.parametrize("num_workers", [0, 2, 3])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 3), (2, 3), (3, 1), (2, 100)])
def test_training_processes_give_as_many_whole_batches_of_their_own(
    packed_set, monkeypatch, num_workers, world_size, batch_size
):
    settings = {"num_workers": num_workers, "world_size": world_size, "batch_size": batch_size, "buffer": 2}
    videos, lengths = [], set()
    for rank in range(world_size):
        dataset = streamed(packed_set, "train", rank=rank, **settings)
        batches = list(chain(*epoch_of(dataset, 3, monkeypatch)))
        assert {len(batch["video"]) for batch in batches} == {min(batch_size, 8 // world_size)}
        assert len(batches) == len(dataset)
        lengths.add(len(batches))
        videos += videos_of(batches)
    assert len(lengths) == 1
    assert len(set(videos)) == len(videos) >= 6 // min(batch_size, 6) * min(batch_size, 6)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("first", [0, 1, 3, 4, 8])
def test_an_epoch_goes_on_within(packed_set, num_workers, first):
    settings = {"num_workers": num_workers, "batch_size": 1, "buffer": 2}
    dataset = streamed(packed_set, "train", **settings)

    def batches(first):
        return list(ShardLoader(dataset, lambda: (1, first), num_workers=num_workers, timeout=60 if num_workers else 0))

    straight, resumed = batches(0), batches(first)
    assert len(resumed) == 8 - first
    for one, two in zip(straight[first:], resumed, strict=True):
        assert same(one, two)


def test_workers_that_live_on_read_the_next_epoch(packed_set):
    epochs = iter([0, 1, 0])
    dataset = streamed(packed_set, "train", num_workers=1, batch_size=2)
    loader = ShardLoader(dataset, lambda: (next(epochs), 0), num_workers=1, persistent_workers=True, timeout=60)
    one, two, three = (videos_of(loader) for _ in range(3))
    assert one != two
    assert one == three


@pytest.fixture
def spoiled(packed_set, tmp_path) -> Path:
    """The packed set with the second video of the first shard overwritten."""
    for path in packed_set.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path / "list-000000.tar", 1)
    return tmp_path


def spoil(path: Path, number: int) -> None:
    with tarfile.open(path) as archive:
        member = [member for member in archive if member.name.endswith(".mp4")][number]
    content = bytearray(path.read_bytes())
    content[member.offset_data : member.offset_data + member.size] = bytes(member.size)
    path.write_bytes(content)


def cut(path: Path, number: int) -> None:
    with tarfile.open(path) as archive:
        member = [member for member in archive if member.name.endswith(".mp4")][number]
    path.write_bytes(path.read_bytes()[: member.offset_data + 100])


def left_out(batches) -> list[tuple[int, str, str]]:
    return [(clip.video, clip.path, clip.reason) for batch in batches for clip in batch["unreadable"]]


def test_a_bad_video_is_named_or_left_out_and_listed(spoiled):
    with pytest.raises(VideoDecodeError, match=r"list-000000.tar, member \d+.mp4: cannot be opened as a video"):
        list(streamed(spoiled))
    dataset = streamed(spoiled, unreadable="skip")
    batches = list(dataset)
    assert len(batches) == len(dataset) == 11
    assert Counter(videos_of(batches)) == {video: 4 for video in range(8) if video != 1}
    path = open_shards(spoiled).index.annotations().records[1].path
    unreadable = left_out(batches)
    assert [(video, name) for video, name, _ in unreadable] == [(1, path)] * 4
    assert all("list-000000.tar, member" in reason and "cannot be opened" in reason for *_, reason in unreadable)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_has_one_clip_less_for_a_bad_video(spoiled, num_workers):
    dataset = streamed(spoiled, "train", unreadable="skip", num_workers=num_workers, batch_size=2)
    batches = list(ShardLoader(dataset, num_workers=num_workers, timeout=60 if num_workers else 0))
    assert sorted(len(batch["video"]) for batch in batches) == [1, 2, 2, 2]
    assert sorted(videos_of(batches)) == sorted(set(range(8)) - {1})
    assert [video for video, *_ in left_out(batches)] == [1]


@pytest.mark.parametrize("first", [1, 2, 3])
def test_an_epoch_with_bad_videos_goes_on_within(spoiled, first):
    dataset = streamed(spoiled, "train", unreadable="skip", batch_size=2, buffer=3)
    straight = list(ShardLoader(dataset, lambda: (1, 0)))
    resumed = list(ShardLoader(dataset, lambda: (1, first)))
    assert len(resumed) == 4 - first
    assert all(same(one, two) for one, two in zip(straight[first:], resumed, strict=True))


def test_a_cut_shard_costs_what_follows_the_cut(packed_set, tmp_path):
    for path in packed_set.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dataset = streamed(tmp_path, unreadable="skip")
    cut(tmp_path / "list-000001.tar", 1)  # while it is read
    batches = list(dataset)
    assert Counter(videos_of(batches)) == dict.fromkeys((0, 1, 2, 3, 6, 7), 4)
    unreadable = left_out(batches)
    assert Counter(video for video, *_ in unreadable) == {4: 4, 5: 4}
    assert all("list-000001.tar: breaks off or is no tar file after 1 of 3" in reason for *_, reason in unreadable)
    with pytest.raises(ShardError, match=r"list-000001.tar: is \d+ bytes, but index.json says \d+. It breaks off"):
        streamed(tmp_path)
    (tmp_path / "list-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"list-000001.tar: no such shard, but index.json beside it lists it"):
        streamed(tmp_path)


def test_samples_of_a_video_share_its_frames_and_its_batch(packed_set, monkeypatch):
    dataset = streamed(packed_set, "train", clips=CLIPS | {"num_samples": 3}, batch_size=2, num_workers=2)
    for batch in chain(*epoch_of(dataset, 0, monkeypatch)):
        one, two = batch["video"][::3].tolist()
        assert batch["video"].tolist() == [one] * 3 + [two] * 3
        assert not torch.equal(batch["clip"][0], batch["clip"][1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unreadable": "ignore"}, "unreadable should be one of error, skip, but it is 'ignore'"),
        ({"buffer": 0}, "shuffle_buffer should be at least 1 video, but it is 0"),
        ({"world_size": 9}, "8 videos are too few for 9 processes"),
    ],
)
def test_settings_are_checked(packed_set, settings, message):
    with pytest.raises(ValueError, match=message):
        streamed(packed_set, "train", **settings)


def test_the_data_module_reads_shards_as_it_reads_files(packed_set, unpacked):
    source = str(packed_set)
    pattern = f"{packed_set}/list-{{000000..000002}}.tar"
    module = VideoDataModule(train=source, val=pattern, test=source, **MODULE)
    module.setup()
    assert module.class_names == ("0", "1")
    train, val, test = module.train_dataloader(), module.val_dataloader(), module.test_dataloader()
    assert (len(train), len(val), len(test)) == (2, 3, 11)
    assert len(set(videos_of(train))) == 6
    assert videos_of(val) == list(range(8))
    clips = torch.cat([batch["clip"] for batch in test])
    assert all(torch.equal(clips[index], unpacked[index]["clip"]) for index in (0, 13, 31))
    assert [record.path for record in module.annotations("test").records][:1] == ["bend/clip 4.mp4"]
    epochs = []
    for module.first_epoch in (0, 1, 0):
        epochs.append(videos_of(train))
    assert epochs[0] == epochs[2] != epochs[1]


def test_a_part_of_the_shards_is_a_set_of_its_own(packed_set):
    module = VideoDataModule(test=str(packed_set / "list-000001.tar"), **MODULE)
    assert videos_of(module.test_dataloader())[::4] == [0, 1, 2]
    whole = open_shards(packed_set).index
    assert module.annotations("test").records == whole.annotations().records[3:6]


def test_classes_are_matched_by_name(packed_set, tmp_path):
    module = VideoDataModule(test=str(packed_set), class_names=["x", "1", "0"], **MODULE)
    assert [record.label for record in module.annotations("test").records] == [
        2 - record.label for record in open_shards(packed_set).index.annotations().records
    ]
    labels = torch.cat([batch["label"] for batch in module.test_dataloader()]).tolist()[::4]
    assert labels == [record.label for record in module.annotations("test").records]
    (tmp_path / "names.txt").write_text("1\nx\n")
    wrong = VideoDataModule(test=str(packed_set), class_names=str(tmp_path / "names.txt"), **MODULE)
    with pytest.raises(ShardError, match=r"the shards' class '0' is not one of the 2 given ones"):
        wrong.setup("test")


def test_what_shards_cannot_do_is_said(packed_set, tmp_path):
    manifest = tmp_path / "manifest.csv"
    scan_videos([], manifest)
    with pytest.raises(ValueError, match=r"test: the manifest .*manifest.csv says nothing of videos in the shards"):
        VideoDataModule(test=str(packed_set), manifest=str(manifest), **MODULE).setup("test")
    module = VideoDataModule(train=str(packed_set), **MODULE)
    module.trainer = SimpleNamespace(overfit_batches=1, current_epoch=0, global_rank=0, world_size=1)
    with pytest.raises(ValueError, match="overfit_batches is not available for shards"):
        module.train_dataloader()
    with pytest.raises(ValueError, match=r"val_fraction can't divide the shards"):
        VideoDataModule(train=str(packed_set), val_fraction=0.2, **MODULE).setup("fit")
    for name in ("list-000000.tar", "list-000001.tar"):
        (tmp_path / name).write_bytes((packed_set / name).read_bytes())
    with pytest.raises(ShardError, match=rf"{INDEX_FILE}: no such index. octvideo data pack writes it beside"):
        VideoDataModule(test=str(tmp_path), **MODULE).setup("test")


def test_multigrid_and_precise_statistics_read_shards(packed_set):
    module = VideoDataModule(
        train=str(packed_set), multigrid=[[1, 2, 2, 16]], **MODULE | {"batch_size": 4, "num_samples": 2}
    )
    assert (module.num_train_batches(0), module.num_train_batches(1), module.num_train_batches(1, 2)) == (2, 4, 2)
    for module.first_epoch, shape in ((0, (8, 3, 2, 16, 16)), (1, (4, 3, 4, 32, 32))):
        batches = list(module.train_dataloader())
        assert len(batches) == module.num_train_batches(module.first_epoch)
        assert {tuple(batch["clip"].shape) for batch in batches} == {shape}
    few, again = (list(module.precise_loader(3)) for _ in range(2))
    assert len(few) == 3
    assert all(same(one, two) for one, two in zip(few, again, strict=True))
    shares = [videos_of(module.precise_loader(3, rank, 2)) for rank in range(2)]
    assert len(shares[0]) == len(shares[1]) == 2 * 2 * 2
    assert not set(shares[0]) & set(shares[1])


def test_the_data_module_goes_on_within_an_epoch(packed_set):
    settings = MODULE | {"batch_size": 2, "num_workers": 2}
    straight, resumed = (VideoDataModule(train=str(packed_set), **settings) for _ in range(2))
    straight.first_epoch = 1
    resumed.first_epoch, resumed.first_batch = 1, 2
    all_batches, rest = list(straight.train_dataloader()), list(resumed.train_dataloader())
    assert (len(all_batches), len(rest)) == (4, 2)
    assert all(same(one, two) for one, two in zip(all_batches[2:], rest, strict=True))
