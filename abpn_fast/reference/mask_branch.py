"""The mask prediction branch, MPB (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from abpn_fast.reference.encoder import conv_norm


class MaskPredictionBranch(nn.Module):
    """Four blocks up from F_skip_6, each joined by the next finer skip, and a 1x1 classification head.

    Args:
        widths: c_1 .. c_6 of the encoder.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        below = (widths[5], widths[4], widths[3], widths[2])
        skips = (widths[4], widths[3], widths[2], widths[1])
        self.blocks = nn.ModuleList(
            conv_norm(f + skip, skip, nn.LeakyReLU(0.2)) for f, skip in zip(below, skips, strict=True)
        )
        self.head = nn.Conv2d(widths[1], 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """M, (N, 1, h / 4, w / 4) in [0, 1], from the encoder's seven features."""
        x = features[6]
        for block, skip in zip(self.blocks, (features[5], features[4], features[3], features[2]), strict=True):
            x = block(torch.cat([interpolate(x, scale_factor=2, mode="nearest"), skip], 1))
        return torch.sigmoid(self.head(x))
