"""Latency of one forward pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from octvideo.analysis.macs import nested_tensors
from octvideo.analysis.timing import summarise_times, time_once_ms
from octvideo.layers.calls import call, evaluating


@dataclass(frozen=True)
class LatencyReport:
    """Wall time of single forward passes.

    Args:
        median_ms: median over the runs, in milliseconds.
        iqr_ms: range between the first and the third quartile, in milliseconds.
        threads: threads that torch used on the CPU.
        device: name of the device that ran.
    """

    median_ms: float
    iqr_ms: float
    threads: int
    device: str


def measure_latency(model: nn.Module, inputs: Any, *, warmup: int = 3, runs: int = 20) -> LatencyReport:
    """Time forward passes in evaluation mode without gradients, waiting for the device after each.

    Args:
        model: the network, on the device of inputs; its training flags are put back afterwards.
        inputs: a tuple is passed as positional arguments, all else as the one argument.
        warmup: passes before the clock runs.
        runs: passes that are timed.

    Raises:
        ValueError: runs is below 2, warmup below 0, or inputs hold no tensor or lie on the meta device.
    """
    if runs < 2 or warmup < 0:
        raise ValueError(f"runs should be at least 2 and warmup at least 0, got {runs} and {warmup}. Time more runs.")
    device = next((tensor.device for tensor in nested_tensors(inputs)), None)
    if device is None or device.type == "meta":
        raise ValueError(f"inputs should hold a tensor on a real device, got device {device}. Use the CPU or a GPU.")
    with evaluating(model), torch.no_grad():
        for _ in range(warmup):
            call(model, inputs)
        times_ms = [time_once_ms(lambda: call(model, inputs), device) for _ in range(runs)]
    timing = summarise_times(times_ms)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return LatencyReport(timing.median_ms, timing.iqr_ms, torch.get_num_threads(), name)
