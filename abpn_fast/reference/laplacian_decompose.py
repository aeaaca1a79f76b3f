"""The image pyramid P_I and the high-frequency pyramid P_H (Sec. 4.1)."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.reference.pixels import to_unit
from abpn_fast.reference.pyramid_down import pyramid_down
from abpn_fast.reference.upsample import upsample


def laplacian_decompose(image: Tensor, levels: int, *, filter: str = "binomial") -> tuple[list[Tensor], list[Tensor]]:
    """``I_{i+1} = reduce(I_i)`` and ``H_i = I_i - up(I_{i+1})``; then ``I_i == H_i + up(I_{i+1})``.

    Args:
        image: I_0, (N, C, H, W), floating, or uint8 or uint16 (white at 255, 65535; in float32).
        levels: l >= 0.

    Returns:
        ``([I_0, ..., I_l], [H_0, ..., H_{l-1}])``; I_0 is ``image`` itself.
    """
    gaussian, high = [image], []
    for _ in range(levels):
        finer = to_unit(gaussian[-1])
        coarser = pyramid_down(finer, filter=filter)
        high.append(finer - upsample(coarser, (finer.shape[-2], finer.shape[-1])))
        gaussian.append(coarser)
    return gaussian, high
