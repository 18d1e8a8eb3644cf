"""Thousands of clips through a loader's workers: memory stays flat, and files and processes are given back."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from torch.utils.data import DataLoader

from octvideo.data import VideoDataModule
from octvideo.data.shards import pack_videos

CLIPS = {"num_frames": 4, "frame_stride": 2, "short_side": (48, 56), "test_short_side": 48, "crop_size": 32}
NUM_EPOCHS = 3
NUM_WORKERS = 2
ROOT = Path(__file__).resolve().parents[2]
# Share of the resident memory of all processes, and bytes that one clip may leave behind in their own part of it.
MOST_GROWTH, MOST_BYTES_A_CLIP = 0.03, 2000
# In the first quarter of a run caches and the allocators of workers fill.
SAMPLES, WARM_UP = 96, 24

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


def run(source: Path, num_workers: int, samples: int = SAMPLES) -> list[tuple[int, int, int]]:
    """Three epochs of clips: now and then their number so far, and the memory of this process and its workers."""
    module = VideoDataModule(train=str(source), batch_size=8, num_workers=num_workers, **CLIPS)
    module.setup("fit")
    loader = module.train_dataloader()
    every = max(NUM_EPOCHS * len(loader) // samples, 1)
    found = [(8 * number, *memory()) for number, _ in enumerate(epochs(module, loader), start=1) if number % every == 0]
    del loader  # here, and not in a cycle: a collection ends the threads of its queues first, and torch waits in vain
    return found


def epochs(module: VideoDataModule, loader: DataLoader) -> Iterator[dict]:
    for module.first_epoch in range(NUM_EPOCHS):
        yield from loader


def memory() -> tuple[int, int]:
    """Resident bytes of all processes, and those of them that each has for itself."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    counts = [process.memory_full_info() for process in processes]
    return sum(count.rss for count in counts), sum(count.uss for count in counts)


def held() -> tuple[int, list[int]]:
    """Open files of this process, and its children, once the threads of a loader's queues have closed theirs."""
    gc.collect()
    found: list[tuple[int, list[int]]] = []
    while len(found) < 3 or len({str(one) for one in found[-3:]}) > 1:
        assert len(found) < 100, f"open files and children go on changing: {found[-3:]}"
        children = sorted(child.pid for child in psutil.Process().children(recursive=True))
        found.append((psutil.Process().num_fds(), children))
        time.sleep(0.1)
    return found[-1]


def long_run(first: str, source: str) -> None:
    """In a process of its own: print what `run` finds, and what is held before and after; `first` loads libraries.

    Forked workers share the memory of what ran before in their parent, and take copies of it as they go: beside the
    heap of a whole session of tests nothing could be seen of what a clip leaves behind.
    """
    run(Path(first), NUM_WORKERS)
    before = held()
    found = run(Path(source), NUM_WORKERS)
    print(json.dumps([found, before, held()]))


@pytest.mark.parametrize("kind", ["files", "shards"])
def test_files_and_processes_are_given_back(source_of, kind):
    source = source_of(kind, 40)
    for _ in range(2):  # loads libraries and what they keep open; what earlier tests left goes meanwhile
        run(source, NUM_WORKERS, samples=1)
    before = held()
    run(source, NUM_WORKERS, samples=1)
    assert held() == before
    run(source, 0, samples=1)
    assert held() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "shards"])
def test_memory_stays_flat_over_five_thousand_clips(source_of, kind):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, str(source_of(kind, 40)), str(source_of(kind, 1760))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found, before, after = json.loads(done.stdout)
    assert after == before
    clips, resident, own = np.array(found[WARM_UP:]).T
    third = len(clips) // 3
    first, last = resident[:third].mean(), resident[-third:].mean()
    growth = np.polyfit(clips, own, 1)[0]
    print(f"{kind}: {first / 1e6:.1f} MB, later {last / 1e6:.1f} MB; {growth:.0f} bytes a clip")
    assert clips[-1] >= 5000
    assert last <= (1 + MOST_GROWTH) * first
    assert growth <= MOST_BYTES_A_CLIP


if __name__ == "__main__":
    long_run(*sys.argv[1:])
