"""Clips that workers hand over as pixels: the data set's own, to the last bit, in memory that is used again."""

import itertools
import time
from types import SimpleNamespace

import pytest
import torch

from octvideo.data import GuardedDataset, UnreadableClip, VideoDataModule, VideoDataset, normalise, read_annotations
from octvideo.data.handover import PREFETCH_FACTOR, SLOT, ClipLoader, HandOver

SETTINGS = {"num_frames": 4, "frame_stride": 3, "short_side": (48, 56), "crop_size": 32, "test_short_side": 48}
COLOURS = {"mean": (0.1, 0.45, 0.8), "std": (0.2, 0.225, 0.5)}
AUGMENTED = {"color_jitter": 0.4, "rand_augment": 2, "num_samples": 2}


@pytest.fixture(scope="module")
def annotations(painted_set):
    return read_annotations(painted_set / "list.txt")


def views(annotations) -> VideoDataset:
    return VideoDataset(annotations, mode="test", num_clips=2, num_crops=2, **SETTINGS, **COLOURS)


def loader_of(dataset, num_workers, **options) -> ClipLoader:
    hand_over = HandOver.of(dataset, num_workers)
    items = GuardedDataset(dataset.as_pixels())
    return ClipLoader(items, hand_over, collate_fn=hand_over.collate, num_workers=num_workers, batch_size=3, **options)


def assert_all_views(batches, dataset) -> None:
    assert torch.equal(torch.cat([batch["clip"] for batch in batches]), torch.stack([item["clip"] for item in dataset]))
    places = torch.cat([batch["video"] * dataset.num_views + batch["view"] for batch in batches])
    assert places.tolist() == list(range(len(dataset)))
    assert all(SLOT not in batch for batch in batches)


@pytest.mark.parametrize("mode", ["train", "val", "test"])
@pytest.mark.parametrize("cache_short_side", [None, 48])
def test_pixels_are_the_clips_before_normalisation(annotations, mode, cache_short_side):
    dataset = VideoDataset(
        annotations, mode=mode, num_clips=2, num_crops=2, cache_short_side=cache_short_side,
        **SETTINGS, **COLOURS, **AUGMENTED,
    )  # fmt: skip
    for index in ((3, 5), (6, 7)) if mode == "train" else (3, 6):
        pixels, floats = dataset.as_pixels().__getitems__([index]), dataset.__getitems__([index])
        assert len(pixels) == len(floats) == dataset.num_samples
        for one, other in zip(pixels, floats, strict=True):
            assert one["clip"].dtype == torch.uint8
            assert other["clip"].dtype == torch.float32
            assert torch.equal(normalise(one["clip"], **COLOURS), other["clip"])
            for channel in range(3):
                expected = one["clip"][channel].double() / 255 - COLOURS["mean"][channel]
                torch.testing.assert_close(
                    other["clip"][channel].double(), expected / COLOURS["std"][channel], atol=1e-6, rtol=1e-6
                )


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_batches_hold_the_clips_of_the_data_set(annotations, num_workers, persistent):
    if persistent and not num_workers:
        return
    dataset = views(annotations)
    loader = loader_of(dataset, num_workers, persistent_workers=persistent)
    for _ in range(2):
        assert_all_views(list(loader), dataset)  # all of them kept while others are made


@pytest.mark.parametrize("persistent", [False, True])
def test_passes_that_are_broken_off_leave_nothing_behind(annotations, persistent):
    dataset = views(annotations)
    loader = loader_of(dataset, 2, persistent_workers=persistent)
    for length in (1, 3, 2):
        list(itertools.islice(loader, length))
    assert_all_views(list(loader), dataset)


def test_two_passes_at_once_do_not_share_memory(annotations):
    dataset = views(annotations)
    both = list(zip(*[loader_of(dataset, 2)] * 2, strict=True))
    for batches in zip(*both, strict=True):
        assert_all_views(batches, dataset)


def test_workers_that_are_spawned(annotations):
    dataset = views(annotations)
    assert_all_views(list(loader_of(dataset, 1, multiprocessing_context="spawn")), dataset)


def test_a_slow_reader_gets_every_batch_whole(annotations):
    """Workers are ahead as far as they may be whenever a batch is taken."""
    dataset = views(annotations)
    batches = []
    for batch in loader_of(dataset, 2):
        time.sleep(0.05)
        batches.append(batch)
    assert_all_views(batches, dataset)


@pytest.fixture
def in_worker(monkeypatch):
    monkeypatch.setattr("octvideo.data.handover.get_worker_info", lambda: SimpleNamespace(id=1))


def items_of(value, count=2, size=4):
    shape = (3, 2, size, size)
    return [
        {"clip": torch.full(shape, value, dtype=torch.uint8), "label": 7, "video": n, "view": 0} for n in range(count)
    ]


def test_a_slot_serves_again_once_its_batch_is_taken(in_worker):
    hand_over = HandOver((0.0,) * 3, (1.0,) * 3, num_workers=2)
    hand_over.begin(new_workers=True)
    sent = [hand_over.collate(items_of(value)) for value in range(PREFETCH_FACTOR + 3)]
    slots = [batch.get(SLOT) for batch in sent]
    assert slots == [(1, slot) for slot in range(PREFETCH_FACTOR + 1)] + [None, None]  # then memory of their own
    places = [batch["clip"].data_ptr() for batch in sent]
    assert len(set(places)) == len(places)
    taken = list(hand_over.receive(iter(sent)))
    assert [round(255 * batch["clip"].max().item()) for batch in taken] == list(range(len(sent)))
    again = hand_over.collate(items_of(200))
    assert again["clip"].data_ptr() == places[0]
    assert taken[0]["clip"].max() == taken[0]["clip"].min() == 0
    assert taken[0]["video"].tolist() == [0, 1]


def test_batches_of_any_size_share_a_slot(in_worker):
    hand_over = HandOver((0.0,) * 3, (1.0,) * 3, num_workers=2)
    hand_over.begin(new_workers=True)
    bad = UnreadableClip(5, 0, "bad.mp4", "broken")
    for count, size in ((2, 4), (1, 4), (3, 4), (1, 6), (4, 2)):
        batch = hand_over.collate([*items_of(9, count, size), bad])
        assert batch[SLOT] == (1, 0)
        [taken] = hand_over.receive(iter([batch]))
        assert taken["clip"].shape == (count, 3, 2, size, size)
        assert torch.equal(taken["clip"], torch.full_like(taken["clip"], 9) / 255)
        assert taken["unreadable"] == [bad]


def test_a_batch_without_clips_takes_no_slot(in_worker):
    hand_over = HandOver((0.0,) * 3, (1.0,) * 3, num_workers=2)
    hand_over.begin(new_workers=True)
    bad = UnreadableClip(5, 0, "bad.mp4", "broken")
    batch = hand_over.collate([bad])
    assert SLOT not in batch
    [taken] = hand_over.receive(iter([batch]))
    assert [len(taken[key]) for key in ("clip", "label", "video", "view")] == [0, 0, 0, 0]


def test_batches_are_normalised_where_they_are_wanted(painted_set):
    module = VideoDataModule(val=str(painted_set / "list.txt"), num_workers=0, batch_size=3, **SETTINGS)
    [batch, *_] = module.scoring_dataloader("val", device="meta")
    assert batch["clip"].device.type == "meta"
    assert batch["clip"].dtype == torch.float32
    assert batch["clip"].shape == (3, 3, 4, 32, 32)
    [batch, *_] = module.val_dataloader()
    assert batch["clip"].device.type == "cpu"
