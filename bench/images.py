"""The photo that everything is measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_PORTRAIT = Path(__file__).parents[1] / "examples" / "portrait.jpg"


def photo(height: int, width: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """The example portrait, cut and resized: (1, 3, H, W), contiguous; floating ones are the bytes / 255."""
    with Image.open(_PORTRAIT) as portrait:
        fitted = ImageOps.fit(portrait.convert("RGB"), (width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(fitted).transpose(2, 0, 1)[None].copy())
    return pixels if dtype == torch.uint8 else (pixels / 255).to(dtype)
