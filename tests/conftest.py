"""Fixtures shared by every room's tests."""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_finish() -> None:
    """Keep what imports and test files have made out of Python's full collections, which look through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real labelled video beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real video not found at {folder}")
    return folder


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from one random state, and leaks none of it to the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Printed(NamedTuple):
    out: str
    err: str


class WarmPython:
    """Runs commands of Python in processes forked from one that has imported octvideo; see warm_python.py.

    For what would take no notice of the difference: each command has a process of its own, with a main module, signals
    and an end as usual, and is spared some 6 seconds of imports.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "warm_python.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=ROOT,
        )  # fmt: skip

    def run(
        self, *commands: list, variables: list[dict[str, str]] | None = None, seconds: float = 240, code: int = 0
    ) -> Printed:
        """Run commands side by side, each with environment variables of its own; all have to end with this code.

        Returns:
            what all of them printed.
        """
        processes = []
        for number, (command, more) in enumerate(zip(commands, variables or [{}] * len(commands), strict=True)):
            files = {name: str(self.folder / f"{name}.{number}") for name in ("out", "err")}
            given = {"command": list(map(str, command)), "environment": {**os.environ, **more}, "seconds": seconds}
            processes.append(given | files)
        print(json.dumps(processes), file=self.server.stdin, flush=True)
        codes = json.loads(self.server.stdout.readline())
        printed = Printed(*("".join(Path(process[name]).read_text() for process in processes) for name in files))
        assert codes == [code] * len(codes), printed
        return printed

    def run_ranks(self, command: list, ranks: int = 2, seconds: float = 240, code: int = 0) -> Printed:
        """Run a command on so many processes that train or score together, as a cluster's launcher starts them."""
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
        variables = [{**meeting, "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        return self.run(*[command] * ranks, variables=variables, seconds=seconds, code=code)


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    """One WarmPython for all tests."""
    warm = WarmPython(tmp_path_factory.mktemp("warm python"))
    yield warm
    with warm.server as server:
        server.terminate()  # its input has no end while a process lives that was forked from this one


def write_video(path: Path, frames: np.ndarray, fps: int = 25) -> None:
    """Encode (T, H, W, 3) uint8 frames as an H.264 mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def video_writer() -> Callable[..., None]:
    """write_video, for tests that need videos of their own."""
    return write_video


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 12 small videos, dark or bright, with the lists train.txt and test.txt and the classes' names."""
    folder = tmp_path_factory.mktemp("two classes")
    noise = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        lines = []
        for number in range(count):
            name = f"{split} {number}.mp4"
            shade = noise.integers(0, 80, (12 + number, 48, 40, 3)) + 150 * (number % 2)
            write_video(folder / name, shade.astype(np.uint8))
            lines.append(f"{name} {number % 2}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("dark\nbright\n")
    return folder


@pytest.fixture
def lists_with_broken(two_classes: Path, tmp_path: Path) -> Path:
    """Folder of train.txt and test.txt, 8 and 4 videos with 2 and 1 broken ones among them, and _good.txt without."""
    broken = [tmp_path / f"broken {number}.mp4" for number in range(2)]
    for path in broken:
        path.write_bytes(b"no video")
    for split, count, places in (("train", 8, (0, 5)), ("test", 4, (2,))):
        lines = [f"{two_classes / f'{split} {number}.mp4'} {number % 2}\n" for number in range(count)]
        (tmp_path / f"{split}_good.txt").write_text("".join(lines))
        for place, path in zip(places, broken, strict=False):
            lines.insert(place, f"{path} {place % 2}\n")
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    return tmp_path
