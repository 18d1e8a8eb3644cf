"""Thousands of clips through a loader's workers: memory stays flat, and files and processes are given back."""

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from torch.utils.data import DataLoader

from octvideo.data import VideoDataModule
from octvideo.data.shards import pack_videos

CLIPS = {"num_frames": 4, "frame_stride": 2, "short_side": (48, 56), "test_short_side": 48, "crop_size": 32}
NUM_EPOCHS = 3
NUM_WORKERS = 2
MOST_GROWTH = 0.03
# Shares of a run: in the first one caches, buffers and the allocators of workers fill.
WARM_UP, SAMPLES = 0.25, 40

pytest.importorskip("webdataset")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="counts Unix file descriptors")


@pytest.fixture(scope="module")
def source_of(painted_set, tmp_path_factory) -> Callable[[str, int], Path]:
    """A list of so many entries, or shards of them; the entries are those of painted_set over and over."""
    lines = (painted_set / "list.txt").read_text().splitlines()

    def make(kind: str, num_videos: int) -> Path:
        folder = tmp_path_factory.mktemp("long_run")
        path = folder / "list.txt"
        path.write_text("".join(f"{painted_set}/{lines[n % len(lines)]}\n" for n in range(num_videos)))
        if kind == "shards":
            pack_videos(path, folder / "shards", copy=True, num_workers=0, shard_size=50)
            return folder / "shards"
        return path

    return make


def run(source: Path, num_workers: int) -> list[int]:
    """Resident memory of this process and its workers, some times while they make three epochs of clips."""
    module = VideoDataModule(train=str(source), batch_size=8, num_workers=num_workers, **CLIPS)
    module.setup("fit")
    loader = module.train_dataloader()
    every = max(NUM_EPOCHS * len(loader) // SAMPLES, 1)
    memory = []
    for number, _ in enumerate(epochs(module, loader), start=1):
        if number % every == 0:
            memory.append(sum(map(resident, [psutil.Process(), *psutil.Process().children(recursive=True)])))
    return memory


def epochs(module: VideoDataModule, loader: DataLoader) -> Iterator[dict]:
    for module.first_epoch in range(NUM_EPOCHS):
        yield from loader


def resident(process: psutil.Process) -> int:
    """Bytes that lie in memory for this process alone; pages that forked workers share do not count again in each."""
    return process.memory_full_info().uss


def held() -> tuple[int, set[int]]:
    """Open files of this process, and its children."""
    gc.collect()
    return psutil.Process().num_fds(), {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("kind", ["files", "shards"])
def test_files_and_processes_are_given_back(source_of, kind):
    source = source_of(kind, 40)
    run(source, NUM_WORKERS)  # loads libraries and what they keep open
    before = held()
    memory = run(source, NUM_WORKERS)
    assert held() == before
    assert len(memory) > 10
    run(source, 0)
    assert held() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "shards"])
def test_memory_stays_flat_over_five_thousand_clips(source_of, kind):
    source = source_of(kind, 1680)
    run(source_of(kind, 40), NUM_WORKERS)
    before = held()
    memory = run(source, NUM_WORKERS)
    assert held() == before
    settled = memory[int(WARM_UP * len(memory)) :]
    third = len(settled) // 3
    first, last = (sum(part) / len(part) for part in (settled[:third], settled[-third:]))
    print(
        f"{kind}: {first / 1e6:.1f} MB, then {last / 1e6:.1f} MB; {min(settled) / 1e6:.1f} to {max(settled) / 1e6:.1f}"
    )
    assert last <= (1 + MOST_GROWTH) * first
