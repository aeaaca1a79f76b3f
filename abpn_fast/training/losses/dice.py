"""L_dice of Eq. 6."""

from __future__ import annotations

import torch
from torch import Tensor

from abpn_fast.training.processes import summed


def dice(mask: Tensor, target: Tensor) -> Tensor:
    """``1 - (2 sum(M T) + 1) / (sum(M^2) + sum(T^2) + 1)`` over the batch of all processes (the paper's [34])."""
    overlap, both = summed(torch.stack([(mask * target).sum(), mask.square().sum() + target.square().sum()])).unbind()
    return 1 - (2 * overlap + 1) / (both + 1)
