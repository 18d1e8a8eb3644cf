"""Times of several calls in one process, turn by turn, so that a busy moment meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Progress = Callable[[str, int, int], None]
"""Called as work goes on with what is being done, how much is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Timing:
    """Wall time of a call.

    Args:
        median_ms: median over the rounds, in milliseconds.
        iqr_ms: range between the first and the third quartile, in milliseconds.
        min_ms: the least, in milliseconds, which a machine that others use, too, disturbs least.
    """

    median_ms: float
    iqr_ms: float
    min_ms: float


def time_in_turns(
    calls: Mapping[str, Callable[[], Any]],
    *,
    device: torch.device | str = "cpu",
    rounds: int = 7,
    warmup: int = 1,
    progress: Progress = silent,
) -> dict[str, Timing]:
    """Time calls: in every round each one once, one after the other.

    Args:
        calls: by name.
        device: where they run; an accelerator is waited for after each.
        rounds: calls of each that are timed.
        warmup: rounds before the clock counts.
        progress: called after every round.

    Raises:
        ValueError: rounds is below 2.
    """
    if rounds < 2:
        raise ValueError(f"rounds must be 2 or more, for a range; got {rounds}")
    times_ms: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(warmup + rounds):
        for name, call in calls.items():
            elapsed = time_once_ms(call, torch.device(device))
            if done >= warmup:
                times_ms[name].append(elapsed)
        progress("timing", done + 1, warmup + rounds)
    return {name: summarise_times(values) for name, values in times_ms.items()}


def time_once_ms(call: Callable[[], Any], device: torch.device) -> float:
    """Wall time of one call in milliseconds, until the device has done it."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return 1e3 * (time.perf_counter() - start)


def summarise_times(values: Sequence[float]) -> Timing:
    """Median, interquartile range and least of times in milliseconds."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(quartiles[1], quartiles[2] - quartiles[0], min(values))


def _wait(device: torch.device) -> None:
    # Kernels on an accelerator run on after the call has returned.
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
