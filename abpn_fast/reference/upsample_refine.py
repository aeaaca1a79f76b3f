"""One step up the blend pyramid: the refining module (Eq. 5)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu

from abpn_fast.reference.pixels import to_unit
from abpn_fast.reference.upsample import upsample


def refine(blend_up: Tensor, high: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """``B_i = phi_2(h(phi_1(Cat(up(B_{i+1}), H_i)))) + up(B_{i+1})`` (Eq. 5).

    phi_1 (6 -> 16) and phi_2 (16 -> 3) are 3x3 convolutions, zero-padded; h is the leaky ReLU with slope 0.2.
    """
    hidden = leaky_relu(conv2d(torch.cat([blend_up, high], 1), weight1, bias1, padding=1), 0.2)
    return conv2d(hidden, weight2, bias2, padding=1) + blend_up


def upsample_refine(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    """B_i from B_{i+1}, I_i and I_{i+1}, with ``H_i = I_i - up(I_{i+1})``.

    Args:
        blend_low: B_{i+1}, (N, 3, ceil(H / 2), ceil(W / 2)), floating.
        image: I_i, (N, 3, H, W), uint8, uint16 or the dtype of ``blend_low``.
        image_low: I_{i+1}, shaped and typed as ``blend_low``.
        weight1, bias1: (16, 6, 3, 3) and (16,), phi_1.
        weight2, bias2: (3, 16, 3, 3) and (3,), phi_2.

    Returns:
        B_i, (N, 3, H, W), dtype of ``blend_low``.
    """
    size = (image.shape[-2], image.shape[-1])
    high = to_unit(image, blend_low.dtype) - upsample(image_low, size)
    return refine(upsample(blend_low, size), high, weight1, bias1, weight2, bias2)
