"""The local retouching branch, LRB (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from abpn_fast.config import ABPNConfig
from abpn_fast.reference.attention import LocalAttentiveModule, ProbabilisticContextBlock


class LocalRetouchingBranch(nn.Module):
    """Six attentive modules up from F_skip_6; the last has the image as its skip and three channels out."""

    def __init__(self, config: ABPNConfig) -> None:
        super().__init__()
        widths = (3, *config.encoder_widths)
        self.blocks = nn.ModuleList(
            _block(config, widths[level], widths[level - 1], last=level == 1) for level in range(6, 0, -1)
        )

    def forward(self, features: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """(N, 3, h, w), before the output mapping, from the encoder's seven features and M."""
        x = features[6]
        for block, skip in zip(self.blocks, features[5::-1], strict=True):
            x = block(x, skip, mask)
        return x


def _block(config: ABPNConfig, features: int, skip: int, *, last: bool) -> nn.Module:
    if config.attention == "pcb":
        return ProbabilisticContextBlock(features, skip, skip, last=last)
    keep = config.attention == "lam"
    return LocalAttentiveModule(features, skip, skip, masked=config.mask_branch, keep=keep, last=last)
