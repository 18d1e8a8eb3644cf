"""A training step, and the memory that it needs."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


def training_step(network: nn.Module, clips: Tensor, num_classes: int, dtype: torch.dtype) -> Callable[[], Any]:
    """A call that takes one step: forward, cross-entropy, backward and SGD with momentum.

    Args:
        network: on the device of the clips; put in training mode.
        clips: (N, 3, T, H, W).
        num_classes: number of the network's logits.
        dtype: of the maps: bfloat16 by autocast, weights staying float32, as Lightning's bf16-mixed does.
    """
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    labels = torch.arange(len(clips), device=clips.device) % num_classes

    def step() -> None:
        with torch.autocast(clips.device.type, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(network(clips).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """How much more memory lies in tensors at the peak of a call than before it.

    Of a training step that is activations, gradients and temporary maps; weights, optimizer state and clips are not in
    it. On a CPU torch's profiler follows every allocation, on a GPU its allocator counts.

    Args:
        call: called once; call it before, so that what it makes only once is there.
        device: where it runs.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    # Else the profiler's library tells of its start and end, and of the GPU that it finds none of.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
