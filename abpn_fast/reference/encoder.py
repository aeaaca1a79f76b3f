"""The mutual encoder (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, activation: nn.Module, stride: int = 1) -> nn.Sequential:
    """3x3 convolution without bias, batch norm, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), activation
    )


class MutualEncoder(nn.Module):
    """Six blocks of 3x3 convolution with stride 2, batch norm and ReLU.

    Args:
        widths: c_1 .. c_6.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.blocks = nn.ModuleList(
            conv_norm(c, width, nn.ReLU(), stride=2) for c, width in zip(inputs, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The feature pyramid ``[F_skip_0, ..., F_skip_6]``; F_skip_0 is the input.

        Args:
            x: (N, 3, h, w) in [-1, 1], h and w multiples of 64.
        """
        features = [x]
        for block in self.blocks:
            features.append(block(features[-1]))
        return features
