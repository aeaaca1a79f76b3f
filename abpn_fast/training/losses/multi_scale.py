"""L_mse of Eq. 6, and its kin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def multi_scale(
    retouched: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[Tensor], power: int
) -> Tensor:
    """``sum_i mean(w_i |R_i - R_gt_i|^power)``; with power 2 and unit weights, L_mse of Eq. 6 per pixel and channel."""
    levels = zip(retouched, targets, weights, strict=True)
    return torch.stack([(weight * (r - gt).abs().pow(power)).mean() for r, gt, weight in levels]).sum()
