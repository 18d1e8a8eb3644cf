"""From decoded frames to a network's clip: crop, resize, augment, lay out, normalise.

Frames come as uint8 (T, H, W, C) and leave as float (C, T, H, W). Each transform first finds the part of the frame that
the crop shows, cuts it out and only then resizes it, in uint8: no pixel is resized or converted that is not used. All
steps but the last are taken in uint8, so that clips can be handed from process to process before they are normalised.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

__all__ = ["Crop", "EvalTransform", "TrainTransform", "crop_size_pair", "lay_out", "normalise"]

Box = tuple[int, int, int, int]
"""Part of a frame: top, left, height, width in pixels."""


class Crop(NamedTuple):
    """A part of frames, and the size that it is resized to.

    Args:
        box: the part.
        size: (height, width) in pixels.
    """

    box: Box
    size: tuple[int, int]

    def cut(self, frames: torch.Tensor) -> torch.Tensor:
        """The part of frames, or of one of them, as a view: (..., H, W, C) to (..., box height, box width, C)."""
        top, left, height, width = self.box
        return frames[..., top : top + height, left : left + width, :]

    def resize(self, parts: torch.Tensor) -> torch.Tensor:
        """Parts at the crop's size: uint8 (..., box height, box width, C) to (..., C, *size)."""
        # The permuted view is channels-last memory, which the uint8 resize works on directly.
        clip = parts.movedim(-1, -3)
        return clip if self.box[2:] == self.size else functional.resize(clip, list(self.size), antialias=True)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Cut and resize."""
        return self.resize(self.cut(frames))


RAND_AUGMENT_FILL = 114  # what a rotated or sheared frame uncovers is shown as mid grey, near the usual mean


class TrainTransform:
    """Random view of a clip; every frame of the clip gets the same one. Draws from torch's global random state.

    Args:
        short_side: (least, most) pixels that the frame's short side is scaled to, drawn uniformly; an int fixes it.
        crop_size: pixels of the random crop, one number or (height, width).
        stretch: where above 0, a part of the frame with at least this share of its height and of its width is resized
            to the crop, whatever its shape; for actions that fill the frame. short_side then plays no role.
        flip: probability of a left-right flip; 0 where direction is the label.
        color_jitter: brightness, contrast and saturation are each multiplied by a factor in 1 +- color_jitter.
        rand_augment: RandAugment operations per clip; 0 is off.
        rand_augment_magnitude: RandAugment strength, 0 to 30.
        mean: per channel, on pixels in 0 .. 1.
        std: per channel, on pixels in 0 .. 1.

    Shape:
        uint8 (T, H, W, C) to float32 (C, T, crop height, crop width).

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        *,
        short_side: int | Sequence[int] = (256, 320),
        crop_size: int | Sequence[int] = 224,
        stretch: float = 0.0,
        flip: float = 0.5,
        color_jitter: float = 0.0,
        rand_augment: int = 0,
        rand_augment_magnitude: int = 9,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
    ) -> None:
        _check_unit("stretch", stretch)
        _check_unit("flip", flip)
        _check_unit("color_jitter", color_jitter)
        self.short_side = _short_side_range(short_side)
        self.crop_size = crop_size_pair(crop_size, None if stretch else self.short_side[0])
        self.stretch = stretch
        self.flip = flip
        self.color_jitter = color_jitter
        self.rand_augment = _rand_augment(rand_augment, rand_augment_magnitude)
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Transform the frames of one clip."""
        _check_frames(frames)
        return normalise(lay_out(self.augment(self.draw_crop(*frames.shape[1:3])(frames))), self.mean, self.std)

    def draw_crop(self, height: int, width: int) -> Crop:
        """Draw a clip's crop for frames of this size."""
        box_height, box_width = self._draw_size(height, width)
        top = int(torch.randint(height - box_height + 1, ()).item())
        left = int(torch.randint(width - box_width + 1, ()).item())
        return Crop((top, left, box_height, box_width), self.crop_size)

    def augment(self, clip: torch.Tensor) -> torch.Tensor:
        """Flip the crops of a clip and change their colours: uint8 (T, C, ...) to the same."""
        if self.flip > 0 and torch.rand(()).item() < self.flip:
            clip = clip.flip(-1)
        if self.color_jitter > 0:
            clip = _jitter_color(clip, self.color_jitter)
        if self.rand_augment is not None:
            clip = self.rand_augment(clip)
        return clip

    def _draw_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the part of the frame that the crop shows."""
        if self.stretch:
            down, right = (self.stretch + (1 - self.stretch) * torch.rand(2)).tolist()
            return max(round(down * height), 1), max(round(right * width), 1)
        low, high = self.short_side
        return _visible_size(height, width, int(torch.randint(low, high + 1, ()).item()), self.crop_size)


class EvalTransform:
    """Fixed view of a clip: the centre crop, or one of several crops spread evenly along the longer side.

    Args:
        short_side: pixels that the frame's short side is scaled to.
        crop_size: pixels of the crop, one number or (height, width).
        stretch: where above 0, the whole frame is resized to the crop, whatever its shape.
        num_crops: crops per clip; the first and the last touch the two ends of the longer side.
        mean: per channel, on pixels in 0 .. 1.
        std: per channel, on pixels in 0 .. 1.

    Shape:
        uint8 (T, H, W, C) to float32 (C, T, crop height, crop width).

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        *,
        short_side: int = 256,
        crop_size: int | Sequence[int] = 224,
        stretch: float = 0.0,
        num_crops: int = 1,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
    ) -> None:
        if num_crops < 1:
            raise ValueError(f"num_crops should be at least 1, but it is {num_crops}.")
        self.short_side = _short_side_range(short_side)[0]
        _check_unit("stretch", stretch)
        if stretch and num_crops > 1:
            raise ValueError(f"num_crops should be 1 where stretch shows the whole frame, but it is {num_crops}.")
        self.crop_size = crop_size_pair(crop_size, None if stretch else self.short_side)
        self.stretch = stretch
        self.num_crops = num_crops
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, frames: torch.Tensor, crop: int = 0) -> torch.Tensor:
        """Transform the frames of one clip; crop is the number of the crop, 0 to num_crops - 1."""
        _check_frames(frames)
        _, height, width, _ = frames.shape
        return normalise(lay_out(self.crop(height, width, crop)(frames)), self.mean, self.std)

    def crop(self, height: int, width: int, number: int = 0) -> Crop:
        """One of the crops of frames of this size.

        Raises:
            ValueError: no such crop.
        """
        if not 0 <= number < self.num_crops:
            raise ValueError(f"crop should be 0 to {self.num_crops - 1}, but it is {number}.")
        if self.stretch:
            return Crop((0, 0, height, width), self.crop_size)
        box = _view_box(height, width, self.short_side, self.crop_size, number, self.num_crops)
        return Crop(box, self.crop_size)

    def crops(self, frame: torch.Tensor) -> list[torch.Tensor]:
        """All crops of one frame, uint8 (H, W, C) to (C, ...) each, in memory of their own."""
        frame_height, frame_width, _ = frame.shape
        crops = [self.crop(frame_height, frame_width, number) for number in range(self.num_crops)]
        (top, left, height, width), (last_top, last_left, _, _) = crops[0].box, crops[-1].box
        if (height, width) != self.crop_size:
            return [crop(frame) for crop in crops]
        # Nothing is resized: the crops are parts of one copy, in which each channel lies together.
        shown = frame.numpy()[top : last_top + height, left : last_left + width]
        planes = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))
        starts = [(crop.box[0] - top, crop.box[1] - left) for crop in crops]
        return [planes[:, down : down + height, right : right + width] for down, right in starts]


def lay_out(frames: torch.Tensor | Sequence[torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
    """Lay the frames of a clip channels before time.

    Args:
        frames: of one clip.
        out: memory for the result; None takes new one.

    Shape:
        uint8 (T, C, H, W), or T of (C, H, W), to uint8 (C, T, H, W), contiguous where it is new.
    """
    num_channels, height, width = frames[0].shape
    clip = torch.empty(num_channels, len(frames), height, width, dtype=torch.uint8) if out is None else out
    # NumPy takes a third of torch's time to part the channels of pixels.
    target = clip.numpy()
    for place, frame in enumerate(frames):
        np.copyto(target[:, place], frame.numpy())
    return clip


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Turn pixels into network input: ``(pixel / 255 - mean) / std``, on the device where they are.

    Args:
        pixels: one clip, or a batch of clips.
        mean: per channel, on pixels in 0 .. 1.
        std: per channel, on pixels in 0 .. 1.

    Shape:
        uint8 (C, T, H, W) or (N, C, T, H, W) to contiguous float32 of the same shape.
    """
    shift = torch.tensor(mean, dtype=torch.float32).mul_(255).view(-1, 1, 1, 1).to(pixels.device)
    scale = torch.tensor(std, dtype=torch.float32).mul_(255).reciprocal_().view(-1, 1, 1, 1).to(pixels.device)
    if pixels.device.type != "cpu":
        return pixels.to(torch.float32).sub_(shift).mul_(scale)
    result = torch.empty(pixels.shape)
    # A frame at a time stays in the processor's cache.
    for clip, floats in zip(_clips(pixels), _clips(result), strict=True):
        for place, frame in enumerate(clip.split(1, dim=1)):
            floats[:, place : place + 1].copy_(frame).sub_(shift).mul_(scale)
    return result


def _clips(batch: torch.Tensor) -> Sequence[torch.Tensor]:
    return batch.unbind() if batch.ndim == 5 else (batch,)


def crop_size_pair(crop_size: int | Sequence[int], short_side: int | None) -> tuple[int, int]:
    """Crop as (height, width) in pixels, checked against the short side that it is cut from, if it is.

    Raises:
        ValueError: not one or two positive numbers, or both larger than the short side.
    """
    pair = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"crop_size should be one positive number or (height, width), but it is {crop_size}.")
    if short_side is not None and min(pair) > short_side:
        raise ValueError(
            f"crop_size {crop_size} is larger than the short side of {short_side} pixels that it is cut from. "
            "Take a smaller crop_size or a larger short side."
        )
    return pair[0], pair[1]


def _check_unit(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} should be between 0 and 1, but it is {value}.")


def _check_frames(frames: torch.Tensor) -> None:
    if frames.ndim != 4 or frames.dtype != torch.uint8:
        raise ValueError(f"frames should be uint8 (T, H, W, C), but they are {frames.dtype} {tuple(frames.shape)}.")


def _short_side_range(short_side: int | Sequence[int]) -> tuple[int, int]:
    pair = (short_side, short_side) if isinstance(short_side, int) else tuple(short_side)
    if len(pair) != 2 or not 1 <= pair[0] <= pair[1]:
        raise ValueError(f"short_side should be one positive number or (least, most), but it is {short_side}.")
    return pair[0], pair[1]


def _rand_augment(num_ops: int, magnitude: int) -> v2.RandAugment | None:
    if num_ops < 0:
        raise ValueError(f"rand_augment should be a number of operations, 0 or more, but it is {num_ops}.")
    if not 0 <= magnitude <= 30:
        raise ValueError(f"rand_augment_magnitude should be between 0 and 30, but it is {magnitude}.")
    return v2.RandAugment(num_ops, magnitude, fill=RAND_AUGMENT_FILL) if num_ops else None


def _visible_size(height: int, width: int, short_side: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Pixels (height, width) of the frame that a crop shows once the short side is scaled to short_side.

    A crop wider than the scaled frame (a wide crop of an upright video) shows as much as fits, in the crop's shape.
    """
    scale = min(height, width) / short_side
    scale = min(scale, height / crop[0], width / crop[1])
    return max(min(round(crop[0] * scale), height), 1), max(min(round(crop[1] * scale), width), 1)


def _view_box(height: int, width: int, short_side: int, crop: tuple[int, int], view: int, num_views: int) -> Box:
    """Part of the frame that crop number ``view`` shows: centred across, spread evenly along the longer side."""
    box_height, box_width = _visible_size(height, width, short_side, crop)
    room_down, room_right = height - box_height, width - box_width
    top, left = room_down // 2, room_right // 2
    if num_views > 1 and height > width:
        top = view * room_down // (num_views - 1)
    elif num_views > 1:
        left = view * room_right // (num_views - 1)
    return top, left, box_height, box_width


def _jitter_color(clip: torch.Tensor, strength: float) -> torch.Tensor:
    adjustments = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for adjust, draw in zip(adjustments, torch.rand(len(adjustments)).tolist(), strict=True):
        clip = adjust(clip, 1 + strength * (2 * draw - 1))
    return clip
