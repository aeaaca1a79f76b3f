"""The paper's ``up``: bilinear, twice the size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, size: tuple[int, int], scale: int = 2) -> Tensor:
    """Bilinear upsampling by exactly ``scale``: half-pixel centres, edges replicated, cropped to ``size``.

    Args:
        x: (N, C, h, w), floating.
        size: (H, W) with ``ceil(H / scale) == h`` and ``ceil(W / scale) == w``.

    Returns:
        (N, C, H, W).
    """
    height, width = size
    up = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False, recompute_scale_factor=False)
    return up[..., :height, :width]
