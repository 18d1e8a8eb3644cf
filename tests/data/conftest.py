"""Videos whose frames say which frame they are: frame i is painted with the bits of i."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

HEIGHT, WIDTH, NUM_BITS = 48, 64, 8
BLOCK_HEIGHT, BLOCK_WIDTH = 24, 16  # two rows of four blocks, the lowest bit first; coarse enough for any codec


def paint(index: int) -> np.ndarray:
    """RGB frame that shows the bits of index as black and white blocks."""
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for bit in range(NUM_BITS):
        row, column = divmod(bit, 4)
        top, left = row * BLOCK_HEIGHT, column * BLOCK_WIDTH
        frame[top : top + BLOCK_HEIGHT, left : left + BLOCK_WIDTH] = 255 * (index >> bit & 1)
    return frame


def read_painted(frames: torch.Tensor) -> list[int]:
    """Index that each frame (T, H, W, C) shows, at any size."""
    result = []
    for frame in frames.float().numpy().mean(axis=-1):
        step_down, step_right = frame.shape[0] / 2, frame.shape[1] / 4
        middles = [
            frame[int((bit // 4 + 0.5) * step_down), int((bit % 4 + 0.5) * step_right)] for bit in range(NUM_BITS)
        ]
        result.append(sum(int(value > 127) << bit for bit, value in enumerate(middles)))
    return result


def write_painted(
    path: Path,
    num_frames: int,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    max_b_frames: int = 2,
    gop_size: int = 12,
    fps: int = 25,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pix_fmt: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
) -> Path:
    """Write a video of painted frames 0 .. num_frames - 1, at a steady rate or at the given times."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        stream.codec_context.gop_size = gop_size
        stream.codec_context.max_b_frames = max_b_frames
        stream.codec_context.thread_count = 1
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(paint(index), format="rgb24").reformat(size[1], size[0], pix_fmt)
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def painted_writer() -> Callable[..., Path]:
    """write_painted, for tests that need a file of their own."""
    return write_painted


@pytest.fixture(scope="session")
def painted_reader() -> Callable[[torch.Tensor], list[int]]:
    """read_painted."""
    return read_painted


@pytest.fixture(scope="session")
def painted_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 mp4 of 100 painted frames at 25 frames per second."""
    return write_painted(tmp_path_factory.mktemp("painted") / "a video.mp4", 100)


@pytest.fixture(scope="session")
def painted_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two classes with four painted videos each, of 20 to 27 frames; list.txt labels them by number."""
    folder = tmp_path_factory.mktemp("painted_set")
    lines = []
    for number in range(8):
        name = f"{('bend', 'wave')[number % 2]}/clip {number}.mp4"
        (folder / name).parent.mkdir(exist_ok=True)
        write_painted(folder / name, 20 + number)
        lines.append(f"{name} {number % 2}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder
