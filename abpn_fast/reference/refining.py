"""The refining module, RM (Eq. 5), with its weights."""

from __future__ import annotations

from torch import Tensor, nn

from abpn_fast.reference.upsample_refine import refine


class RefiningModule(nn.Module):
    """phi_1 (``conv1``, 6 -> 16) and phi_2 (``conv2``, 16 -> 3), shared by all levels unless configured otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 3, 3, padding=1)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``weight1, bias1, weight2, bias2`` in the order of the operators."""
        first, second = self.conv1, self.conv2
        assert first.bias is not None
        assert second.bias is not None
        return first.weight, first.bias, second.weight, second.bias

    def forward(self, blend_up: Tensor, high: Tensor) -> Tensor:
        """B_i from ``up(B_{i+1})`` and H_i, all (N, 3, H, W)."""
        return refine(blend_up, high, *self.weights)
