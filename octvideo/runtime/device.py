"""Where networks run."""

from __future__ import annotations

import torch

__all__ = ["check_device"]


def check_device(device: str) -> None:
    """Check that torch can run here on a device.

    Args:
        device: torch's name of it, such as cpu, cuda or cuda:1.

    Raises:
        ValueError: there is no such device, or it computes nothing.
    """
    try:
        computes = torch.empty(0, device=device).device.type != "meta"
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):  # by torch's build and the driver
        computes = False
    if not computes:
        others = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(f"device is {device!r}, on which torch cannot run here: use {' or '.join(others)}")
