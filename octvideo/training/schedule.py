"""Learning-rate schedule and parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

OPTIMIZERS = ("sgd", "adamw")


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, warmup_start: float) -> float:
    """Factor on the learning rate: linear from warmup_start to 1, then half a cosine to 0 (SlowFast's schedule).

    Args:
        step: optimizer steps taken.
        total_steps: of the whole run.
        warmup_steps: of these, how many warm up.
        warmup_start: factor at step 0, in [0, 1].
    """
    if step < warmup_steps:
        return warmup_start + (1 - warmup_start) * step / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def cosine_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_steps: int, warmup_start: float
) -> LambdaLR:
    """`warmup_cosine` as a scheduler that advances by optimizer steps."""
    return LambdaLR(optimizer, lambda step: warmup_cosine(step, total_steps, warmup_steps, warmup_start))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: weights of convolutions and linear layers with weight decay; norms and biases without."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def build_optimizer(
    name: str, groups: Iterable[dict], lr: float, momentum: float
) -> torch.optim.SGD | torch.optim.AdamW:
    """SGD with Nesterov momentum, or AdamW.

    Raises:
        ValueError: for another name.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999))
    raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}")
