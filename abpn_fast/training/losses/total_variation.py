"""L_tv of Eq. 6."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def total_variation(blend_layers: Sequence[Tensor]) -> Tensor:
    """``sum_i`` of the mean absolute difference between neighbours of B_i, down and across."""
    return torch.stack([_mean(layer.diff(dim=dim)) for layer in blend_layers for dim in (-1, -2)]).sum()


def _mean(difference: Tensor) -> Tensor:
    """0 of a layer that is one pixel wide or tall."""
    return difference.abs().mean() if difference.numel() else difference.sum()
