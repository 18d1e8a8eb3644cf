"""Fixtures shared by every room's tests."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch


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
