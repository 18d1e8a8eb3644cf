"""Arguments of the benchmarks, checked before anything is built: an error names one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from octvideo.layers.resize import check_alpha
from octvideo.models.build import view_size


def check_choices(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError that names the argument unless all words are known ones."""
    if set(given) - set(known):
        raise ValueError(f"{name} must be of {', '.join(known)}; got {list(given)}")


def check_at_least(least: int, **given: int | Sequence[int] | None) -> None:
    """Raise a ValueError that names the argument unless numbers are that or more; None is left to others."""
    for name, value in given.items():
        numbers = [value] if isinstance(value, int) else value or ()
        if any(number < least for number in numbers):
            raise ValueError(f"{name} must be {least} or more; got {value if isinstance(value, int) else [*numbers]}")


def check_timing(rounds: int, threads: int = 1) -> None:
    """Raise a ValueError that names the argument unless there are rounds for a range, and threads."""
    check_at_least(2, rounds=rounds)
    check_at_least(1, threads=threads)


def check_alphas(alphas: Sequence[float]) -> None:
    """Raise a ValueError unless all are shares of channels."""
    for alpha in alphas:
        check_alpha(alpha)


def check_views(clips: Sequence[int], crops: Sequence[int], **given: int | Sequence[int]) -> None:
    """Raise a ValueError that names the argument unless clips and crops pair and all these are 1 or more."""
    check_at_least(1, clips=clips, crops=crops, **given)
    if len(clips) != len(crops):
        raise ValueError(f"crops must be as many numbers as clips, {len(clips)}; got {list(crops)}")


def check_videos(videos: Sequence[str], hd: bool) -> None:
    """Raise a ValueError unless there is something to time."""
    if not (videos or hd):
        raise ValueError("videos must be given where hd is false; got none")


@contextmanager
def suiting(model: str, size: Sequence[int]) -> Iterator[None]:
    """Run a network within this, and an error names the views that do not suit it: torch's tells of a map somewhere.

    Args:
        model: a builder's name.
        size: of the views, (T, H, W) or (H, W).

    Raises:
        ValueError: in place of what the network raises, other than for want of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        frames = f"num_frames {size[0]} and " if len(size) == 3 else ""
        made_for = "x".join(map(str, view_size(model)))
        raise ValueError(
            f"{frames}crop {size[-2]}x{size[-1]} should suit {model}, which is made for {made_for}, but it fails on "
            f"them, as it does where a map gets too small: {error}"
        ) from error
