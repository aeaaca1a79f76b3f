"""L_tv of Eq. 6."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def total_variation(blend_layers: Sequence[Tensor]) -> Tensor:
    """``sum_i`` of the mean absolute difference between neighbours of B_i, down and across."""
    return torch.stack(
        [layer.diff(dim=-1).abs().mean() + layer.diff(dim=-2).abs().mean() for layer in blend_layers]
    ).sum()
