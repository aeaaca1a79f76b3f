"""What a stored pixel means: integer with white at the greatest, uint8 or uint16, or floating with white at 1; sRGB."""

from __future__ import annotations

import torch
from torch import Tensor

# By integer dtype.
WHITE = {torch.uint8: 255, torch.uint16: 65535}


def to_unit(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """An integer image as ``dtype`` with white at 1; a floating image as it is."""
    if image.dtype not in WHITE:
        return image
    # Half precision holds every uint8, but not every uint16.
    whole = dtype if image.dtype == torch.uint8 else torch.promote_types(dtype, torch.float32)
    return (image.to(whole) / WHITE[image.dtype]).to(dtype)


def to_pixels(image: Tensor, dtype: torch.dtype) -> Tensor:
    """A floating image as ``dtype``; for integers clamped to [0, 1], rounded half to even, NaN stored as 0."""
    if dtype not in WHITE:
        return image.to(dtype)
    if dtype != torch.uint8:
        image = image.to(torch.promote_types(image.dtype, torch.float32))
    return (image.nan_to_num(nan=0.0).clamp(0, 1) * WHITE[dtype]).round().to(dtype)
