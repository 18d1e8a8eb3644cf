"""Hold a part of a data set out for validation."""

import itertools

import numpy as np
import torch

from octvideo.data.annotations import Annotations

__all__ = ["split_annotations"]


def split_annotations(annotations: Annotations, fraction: float, *, seed: int = 0) -> tuple[Annotations, Annotations]:
    """Split a data set in two, class by class, the same way for the same seed.

    Of a class with ``n`` videos, ``round(fraction * n)`` are held out, but at least one and never all of them;
    a class with a single video keeps it.

    Args:
        annotations: the data set.
        fraction: part to hold out, between 0 and 1, both excluded.
        seed: of the random choice.

    Returns:
        What remains and what is held out, each in the order of the data set.

    Raises:
        ValueError: fraction out of its range, or no class has two videos.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction should lie between 0 and 1, but it is {fraction}.")
    generator = torch.Generator().manual_seed(seed)
    is_held_out = np.zeros(len(annotations), dtype=bool)
    by_class = np.argsort(annotations.labels, kind="stable")
    bounds = np.searchsorted(annotations.labels[by_class], np.arange(annotations.num_classes + 1))
    for start, end in itertools.pairwise(bounds):
        members = by_class[start:end]
        if len(members) > 1:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            order = torch.randperm(len(members), generator=generator)[:count]
            is_held_out[members[order.numpy()]] = True
    if not is_held_out.any():
        raise ValueError("no class has two videos, so none can be held out. Give a separate validation list.")
    return annotations.take(np.flatnonzero(~is_held_out)), annotations.take(np.flatnonzero(is_held_out))
