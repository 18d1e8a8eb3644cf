"""Draw a textured object over a textured background, all frames of a video at once."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from octvideo.data.motion.states import MotionStates

__all__ = ["render_frames"]

_OBJECT_PIXELS = 48
_BLADES = 3
_OBJECT_RADIUS = 0.40  # short sides at log_scale 0


def _noise(cells: tuple[int, ...], size: tuple[int, int], generator: np.random.Generator) -> torch.Tensor:
    """Smooth colour noise (3, H, W) in about (0, 1): random grids of the given cell counts, enlarged and summed."""
    total = torch.zeros(3, *size)
    for count in cells:
        grid = torch.from_numpy(generator.uniform(-1.0, 1.0, (1, 3, count, count)).astype(np.float32))
        total += F.interpolate(grid, size=size, mode="bicubic", align_corners=False)[0]
    return total


def _draw_object(generator: np.random.Generator) -> torch.Tensor:
    """An object (4, S, S): colours times opacity, then opacity; its outline is a circle with random bumps."""
    axis = (np.arange(_OBJECT_PIXELS) + 0.5) / _OBJECT_PIXELS * 2.0 - 1.0
    y, x = np.meshgrid(axis, axis, indexing="ij")
    y = y / generator.uniform(0.6, 0.9)
    bearing, distance = np.arctan2(y, x), np.hypot(x, y)
    outline = np.ones_like(bearing)
    for order in (1, 2, 3):
        outline += generator.uniform(0.05, 0.2) * np.cos(order * bearing + generator.uniform(0, 2 * np.pi))
    outline *= 0.92 / outline.max()
    opacity = np.clip((outline - distance) * _OBJECT_PIXELS / 4.0, 0.0, 1.0)
    alpha = torch.from_numpy(opacity.astype(np.float32))
    base = torch.from_numpy(generator.uniform(0.75, 1.0, (3, 1, 1)).astype(np.float32))
    # Each blade of the pinwheel fades from its front to its back: what turns grows bright at once and dark slowly, or
    # the other way round, wherever it is seen, as the outline of what approaches or retreats does.
    blades = torch.from_numpy(((bearing / (2.0 * np.pi) * _BLADES) % 1.0).astype(np.float32))
    texture = 0.12 * _noise((3, 6), (_OBJECT_PIXELS, _OBJECT_PIXELS), generator)
    colours = (base * (1.0 - 0.8 * blades) + texture).clamp(0.0, 1.0)
    return torch.cat((colours * alpha, alpha[None]))


def _draw_background(size: tuple[int, int], generator: np.random.Generator) -> torch.Tensor:
    base = torch.from_numpy(generator.uniform(0.1, 0.4, (3, 1, 1)).astype(np.float32))
    return (base + 0.10 * _noise((6, 14), size, generator)).clamp(0.0, 1.0)


def _sample(texture: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Bilinear samples (T, C, H, W) of a texture (C, h, w) at grid (T, H, W, 2) in -1 to 1, nothing outside."""
    textures = texture.expand(grid.shape[0], *texture.shape)
    return F.grid_sample(textures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def render_frames(states: MotionStates, *, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Render a video: (T, H, W, 3) uint8."""
    short = min(height, width)
    y = (torch.arange(height) + 0.5 - height / 2) / short
    x = (torch.arange(width) + 0.5 - width / 2) / short
    values = torch.from_numpy(states.values.astype(np.float32))[:, :, None, None]  # (T, 4, 1, 1)
    shift_x, shift_y = x[None, None, :] - values[:, 0], y[None, :, None] - values[:, 1]
    cos, sin = torch.cos(values[:, 2]), torch.sin(values[:, 2])
    radius = _OBJECT_RADIUS * torch.exp(values[:, 3])
    local = torch.stack(((cos * shift_x + sin * shift_y) / radius, (cos * shift_y - sin * shift_x) / radius), dim=-1)
    drawn = _sample(_draw_object(generator), local)  # (T, 4, H, W)
    extent = 2.0  # short sides that the background texture covers
    offset = torch.from_numpy(states.background.astype(np.float32))
    grid = torch.stack(
        (
            (x[None, None, :] - offset[:, 0, None, None]).expand(-1, height, -1),
            (y[None, :, None] - offset[:, 1, None, None]).expand(-1, -1, width),
        ),
        dim=-1,
    ) * (2.0 / extent)
    backdrop = _sample(_draw_background((2 * short, 2 * short), generator), grid)
    frames = drawn[:, :3] + (1.0 - drawn[:, 3:]) * backdrop
    return (frames * 255.0).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
