"""L_dice of Eq. 6."""

from __future__ import annotations

import torch
from torch import Tensor

from abpn_fast.training.processes import summed


def dice(mask: Tensor, target: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """``1 - (2 sum(w M T) + 1) / (sum(w M^2) + sum(w T^2) + 1)`` over the batch of all processes.

    With w = 1 that of the paper's [34], but for the ones, which give it a value where nothing is changed.
    """
    overlap = (weight * mask * target).sum()
    both = (weight * mask.square()).sum() + (weight * target.square()).sum()
    overlap, both = summed(torch.stack([overlap, both])).unbind()
    return 1 - (2 * overlap + 1) / (both + 1)
