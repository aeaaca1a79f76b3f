"""The error of every picture by itself, on the scale on which PSNR is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decibels(retouched: Sequence[Tensor], targets: Sequence[Tensor], regions: Sequence[Tensor], floor: float) -> Tensor:
    """``mean_in log10(floor + mse)`` over levels i and pictures n, mse that of R_i against R_gt_i inside the region.

    A tenth of their mean PSNR, negated, where mse is far above ``floor``. To halve a small error pays as much as to
    halve a large one, so that no picture is left alone for the sake of others.

    Args:
        retouched, targets: ``[R_0, ...]`` and ``[R_gt_0, ...]``, (N, 3, H, W) each.
        regions: of each level, (N, 1, H, W), 0 or 1; a picture without region counts 0.
        floor: squared error below which less is no longer better.
    """
    levels = zip(retouched, targets, regions, strict=True)
    return torch.stack([_level(r - gt, region, floor) for r, gt, region in levels]).mean()


def _level(error: Tensor, region: Tensor, floor: float) -> Tensor:
    pixels = region.sum((1, 2, 3))
    mean = (error.square() * region).sum((1, 2, 3)) / (error.shape[1] * pixels).clamp(min=1)
    return ((mean + floor).log10() * (pixels > 0)).mean()
