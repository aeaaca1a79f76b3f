"""The reverse adaptive blend module, R-ABM (Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from abpn_fast.reference.adaptive_blend import polynomial
from abpn_fast.reference.pixels import to_unit


def reverse_adaptive_blend(image: Tensor, retouched: Tensor, j: Tensor, k: Tensor, *, damping: float = 1e-4) -> Tensor:
    """``B = (R - sum_i k_i I^i) d / (d^2 + damping)`` with ``d = sum_i j_i I^i``.

    Eq. 4 divides by d, which vanishes at black and at white. The damped quotient keeps the sign of d, is smooth and
    falls to the neutral 0 there. ``damping=0`` is Eq. 4 to the letter, with 0 where d is 0.

    Args:
        image: I, (N, 3, H, W), uint8, uint16 or floating.
        retouched: R, likewise.
        j, k: (3,), the coefficients.

    Returns:
        B, (N, 3, H, W), floating.
    """
    dtype = image.dtype if image.is_floating_point() else retouched.dtype
    x = to_unit(image, dtype if dtype.is_floating_point else torch.float32)
    d = polynomial(x, j)
    difference = to_unit(retouched, x.dtype) - polynomial(x, k)
    if damping == 0:
        vanishes = d == 0
        return torch.where(vanishes, 0, difference / torch.where(vanishes, 1, d))
    return difference * d / (d * d + damping)
