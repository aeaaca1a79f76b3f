"""What a stored pixel means: uint8 0..255 or floating, sRGB-encoded, with white at 1."""

from __future__ import annotations

import torch
from torch import Tensor


def to_unit(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A uint8 image as ``dtype`` with white at 1; a floating image as it is."""
    return image.to(dtype) / 255 if image.dtype == torch.uint8 else image


def to_pixels(image: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating image as ``dtype``; for uint8 clamped to [0, 1], rounded half to even, NaN stored as 0."""
    if dtype != torch.uint8:
        return image.to(dtype)
    return (image.nan_to_num(nan=0.0).clamp(0, 1) * 255).round().to(torch.uint8)
