"""The adaptive blend module, ABM (Eq. 2 and 3)."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.reference.pixels import to_pixels, to_unit


def polynomial(image: Tensor, coefficients: Tensor) -> Tensor:
    """``sum_i c_i g(I, i)`` with ``g(I, i) = I^i`` (Eq. 2), by Horner's rule."""
    c = coefficients.to(image.dtype)
    return c[0] + image * (c[1] + image * c[2])


def adaptive_blend(image: Tensor, blend: Tensor, j: Tensor, k: Tensor, *, strength: float = 1.0) -> Tensor:
    """``R = sum_i (j_i B + k_i) I^i`` (Eq. 3), with ``strength * B`` for B.

    Args:
        image: I, (N, 3, H, W), uint8, uint16 or the dtype of ``blend``.
        blend: B, (N, 3, H, W), floating.
        j, k: (3,), the coefficients.

    Returns:
        R in the dtype of ``image``; integers are clamped and rounded half to even.
    """
    x = to_unit(image, blend.dtype)
    return to_pixels(polynomial(x, j) * (strength * blend) + polynomial(x, k), image.dtype)
