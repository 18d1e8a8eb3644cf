"""Mixing the clips of a batch: MixUp and CutMix, with soft labels."""

import torch

__all__ = ["CutMix", "MixUp"]


class MixUp:
    """Blend each clip with another one of its batch.

    ``clip = weight * clip + (1 - weight) * partner``, labels alike, with one weight ~ Beta(alpha, alpha) per batch
    (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018). Draws from torch's global random state.

    Args:
        alpha: of the Beta distribution, positive; small values mix little.
        num_classes: columns of the soft labels.

    Shape:
        clips (N, C, T, H, W) and labels (N,) to clips of the same shape and soft labels (N, num_classes).

    Raises:
        ValueError: alpha not positive, or num_classes below 1.
    """

    def __init__(self, alpha: float, num_classes: int) -> None:
        _check(alpha, num_classes)
        self.alpha, self.num_classes = alpha, num_classes

    def __call__(self, clips: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix one batch; the given tensors stay as they are."""
        weight = _draw_weight(self.alpha)
        partner = torch.randperm(len(clips)).to(clips.device)
        return torch.lerp(clips[partner], clips, weight), _mix_labels(labels, partner, weight, self.num_classes)


class CutMix:
    """Replace a rectangle of each clip, in all of its frames, by that of another clip of its batch.

    The rectangle covers about ``1 - weight`` of the frame, weight ~ Beta(alpha, alpha); labels are mixed by the area
    that was replaced (Yun et al., "CutMix", ICCV 2019). Draws from torch's global random state.

    Args:
        alpha: of the Beta distribution, positive.
        num_classes: columns of the soft labels.

    Shape:
        clips (N, C, T, H, W) and labels (N,) to clips of the same shape and soft labels (N, num_classes).

    Raises:
        ValueError: alpha not positive, or num_classes below 1.
    """

    def __init__(self, alpha: float, num_classes: int) -> None:
        _check(alpha, num_classes)
        self.alpha, self.num_classes = alpha, num_classes

    def __call__(self, clips: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix one batch; the given tensors stay as they are."""
        height, width = clips.shape[-2:]
        side = (1 - _draw_weight(self.alpha)) ** 0.5
        top, bottom = _draw_interval(height, side)
        left, right = _draw_interval(width, side)
        partner = torch.randperm(len(clips)).to(clips.device)
        mixed = clips.clone()
        mixed[..., top:bottom, left:right] = clips[partner][..., top:bottom, left:right]
        weight = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, _mix_labels(labels, partner, weight, self.num_classes)


def _check(alpha: float, num_classes: int) -> None:
    if alpha <= 0:
        raise ValueError(f"alpha should be positive, but it is {alpha}; leave mixing out for none.")
    if num_classes < 1:
        raise ValueError(f"num_classes should be at least 1, but it is {num_classes}.")


def _draw_weight(alpha: float) -> float:
    concentration = torch.tensor(float(alpha))
    return torch.distributions.Beta(concentration, concentration).sample().item()


def _draw_interval(length: int, part: float) -> tuple[int, int]:
    """Pixels [start, end) of an interval of about part * length around a uniform centre, cut off at the edges."""
    centre = int(torch.randint(length, ()).item())
    half = part * length / 2
    return max(round(centre - half), 0), min(round(centre + half), length)


def _mix_labels(labels: torch.Tensor, partner: torch.Tensor, weight: float, num_classes: int) -> torch.Tensor:
    hard = torch.nn.functional.one_hot(labels, num_classes).to(torch.float32)
    return torch.lerp(hard[partner], hard, weight)
