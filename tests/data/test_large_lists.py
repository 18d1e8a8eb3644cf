"""Lists of many rows: flat arrays that behave as the records do, load soon and are shared by workers."""

import itertools
import multiprocessing
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from octvideo.data import Annotations, EpochSampler, VideoRecord, read_annotations, split_annotations
from octvideo.data.annotations.packed import CHUNK, PackedStrings
from octvideo.data.batches import ViewBatches

resource = pytest.importorskip("resource", reason="memory is not counted on this system")
NUM_ROWS = 200_000
NUM_FILES = 2000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 2,000 empty files in 20 classes, and lists that name each of them 100 times, in mixed order."""
    folder = tmp_path_factory.mktemp("large")
    names = [f"class {number % 20}/abcdefgh{number:03x}_{number:06d}_{number + 10:06d}" for number in range(NUM_FILES)]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.mp4").touch()
    order = np.random.default_rng(0).permutation(NUM_ROWS) % NUM_FILES
    (folder / "list.txt").write_text("".join(f"{names[i]}.mp4 {i % 20}\n" for i in order))
    rows = (f'"class {i % 20}",abcdefgh{i:03x},{i},{i + 10},train\n' for i in order)
    (folder / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + "".join(rows))
    return folder


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in KiB as Linux does")
@pytest.mark.parametrize("name", ["list.txt", "train.csv"])
def test_many_rows_are_read_in_seconds_and_little_memory(large, name):
    before, start = peak_mib(), time.perf_counter()
    annotations = read_annotations(large / name)
    assert time.perf_counter() - start < 20  # about one on a quiet machine
    assert peak_mib() - before < 200  # 35 MiB of paths
    assert len(annotations) == NUM_ROWS
    numbers = [int(Path(record.path).stem[-6:]) - 10 for record in annotations.records[:100]]
    expected = np.random.default_rng(0).permutation(NUM_ROWS)[:100] % NUM_FILES
    assert numbers == expected.tolist()
    assert [annotations.class_names[i] for i in annotations.labels[:3]] == [
        str(i % 20) if name == "list.txt" else f"class {i % 20}" for i in expected[:3]
    ]


def own_memory_growth_mib(records, queue) -> None:
    """Memory that belongs to this process alone, after each record was touched less before."""
    before = own_memory_mib()
    for index in range(len(records)):
        assert records[index].path
    queue.put(own_memory_mib() - before)


def own_memory_mib() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say what is shared")
def test_forked_workers_share_the_records(large):
    annotations = read_annotations(large / "list.txt")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    growth = []
    for records in (annotations.records, list(annotations.records)):
        worker = context.Process(target=own_memory_growth_mib, args=(records, queue))
        worker.start()
        growth.append(queue.get(timeout=120))
        worker.join()
    shared, copied = growth
    assert shared < 4
    assert copied > 8  # the same in a list of objects, so that the measure is known to see it


def test_records_are_a_sequence():
    plain = [VideoRecord(f"ü {number}.mp4", None if number % 3 == 0 else number) for number in range(2 * CHUNK + 5)]
    annotations = Annotations(plain, ("a",))
    records = annotations.records
    assert list(records) == plain
    assert records == plain
    assert records == tuple(plain)
    assert records == Annotations(tuple(plain), ("a",)).records
    assert records != plain[:-1]
    assert records != [*plain[:-1], VideoRecord("x", 1)]
    assert [records[0], records[-1], records[CHUNK]] == [plain[0], plain[-1], plain[CHUNK]]
    assert records[5:20:3] == plain[5:20:3]
    assert records[::-1] == plain[::-1]
    assert plain[7] in records
    assert records.index(plain[7]) == 7
    assert repr(records) == "VideoRecords of 8,197"
    assert pickle.loads(pickle.dumps(annotations)) == annotations
    assert not annotations.is_labelled
    with pytest.raises(IndexError, match=r"index should be -8197 to 8196, but it is 8197"):
        records[len(plain)]


def test_packed_strings_keep_any_text():
    texts = ["", "a", "", "\udcff\ud800", "日本", "\0", "a\nb"]
    packed = PackedStrings(texts)
    assert list(packed) == texts
    assert [packed[index] for index in range(-7, 7)] == 2 * texts
    assert packed.take(np.array([4, 4, 0])) == ["日本", "日本", ""]
    assert packed != texts[:-1]
    assert packed != "a"
    assert PackedStrings() == []
    assert packed == PackedStrings(iter(texts))


def test_splitting_many_videos_takes_seconds():
    labels = np.arange(NUM_ROWS) % 700
    records = [VideoRecord(str(number), int(label)) for number, label in enumerate(labels)]
    start = time.perf_counter()
    kept, held_out = split_annotations(Annotations(records, tuple(map(str, range(700)))), 0.1)
    assert time.perf_counter() - start < 20
    assert len(kept) + len(held_out) == NUM_ROWS
    assert np.bincount(held_out.labels, minlength=700).tolist() == [round(0.1 * n) for n in np.bincount(labels)]
    numbers = [int(record.path) for record in held_out.records]
    assert numbers == sorted(set(numbers))
    assert (labels[numbers] == held_out.labels).all()


def test_a_million_videos_are_dealt_out_in_seconds():
    start = time.perf_counter()
    batches = ViewBatches(10**6, num_views=30, batch_size=8, num_workers=8, rank=1, world_size=2)
    items = list(itertools.chain.from_iterable(itertools.islice(batches, 1000)))
    assert time.perf_counter() - start < 60
    assert len(batches) == 10**6 * 30 // 8 // 2
    assert len(set(items)) == 8000


def test_an_epoch_is_drawn_by_its_seed():
    sampler = EpochSampler(10_000, seed=3, epoch=lambda: 2)
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 2)
    order = torch.randperm(10_000, generator=generator).tolist()
    seeds = torch.randint(2**62, (10_000,), generator=generator).tolist()
    assert list(sampler) == list(zip(order, seeds, strict=True))
