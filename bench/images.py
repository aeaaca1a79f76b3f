"""The photo that everything is measured on: the example portrait with dark spots, so that there is work to be done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# Down and across, in parts of the height and the width; radius and edge in parts of the longer side.
_SPOTS = ((0.3, 0.5), (0.5, 0.45), (0.6, 0.6), (0.45, 0.3))
_RADIUS, _EDGE, _DEPTH = 3 / 256, 0.5 / 256, 0.8
_PORTRAIT = Path(__file__).parents[1] / "examples" / "portrait.jpg"


def photo(height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Cut and resized: (1, 3, H, W), contiguous; floating ones are the bytes / 255."""
    with Image.open(_PORTRAIT) as portrait:
        fitted = ImageOps.fit(portrait.convert("RGB"), (width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(fitted).transpose(2, 0, 1)[None].copy())
    for down, across in _SPOTS:
        _darken(pixels, down * height, across * width, max(height, width))
    return pixels if dtype == torch.uint8 else (pixels / 255).to(dtype)


def _darken(pixels: Tensor, y: float, x: float, side: int) -> None:
    """A spot around (y, x), in place."""
    reach = (_RADIUS + _EDGE) * side
    top, left = max(int(y - reach), 0), max(int(x - reach), 0)
    part = pixels[..., top : int(y + reach) + 1, left : int(x + reach) + 1]
    rows, columns = (torch.arange(part.shape[i]) + first - at for i, first, at in ((2, top, y), (3, left, x)))
    outside = (torch.hypot(rows[:, None], columns[None]) / side - _RADIUS) / _EDGE
    part.copy_((part * (1 - _DEPTH * (1 - outside).clamp(0, 1))).round())
