"""Times of several networks in one process, turn by turn, so that a busy moment meets all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from octvideo.analysis.latency import time_once_ms
from octvideo.analysis.macs import evaluating


@dataclass(frozen=True)
class Timing:
    """Wall time of forward passes of one network.

    Args:
        median_ms: median over the rounds, in milliseconds.
        iqr_ms: range between the first and the third quartile, in milliseconds.
    """

    median_ms: float
    iqr_ms: float


def time_in_turns(
    networks: Mapping[str, nn.Module],
    inputs: Tensor,
    *,
    rounds: int = 7,
    warmup: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Timing]:
    """Time forward passes without gradients: in every round each network once, one after the other.

    Args:
        networks: by name, on the device of inputs.
        inputs: one batch for all of them.
        rounds: passes of each network that are timed.
        warmup: rounds before the clock counts.
        progress: called after every round with the number of rounds done.

    Raises:
        ValueError: rounds is below 2.
    """
    if rounds < 2:
        raise ValueError(f"rounds must be 2 or more, for a range; got {rounds}")
    times_ms: dict[str, list[float]] = {name: [] for name in networks}
    with torch.no_grad():
        for done in range(warmup + rounds):
            for name, network in networks.items():
                with evaluating(network):
                    elapsed = time_once_ms(network, inputs, inputs.device)
                if done >= warmup:
                    times_ms[name].append(elapsed)
            progress(done + 1)
    return {name: _timing(values) for name, values in times_ms.items()}


def _timing(values: list[float]) -> Timing:
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(quartiles[1], quartiles[2] - quartiles[0])
