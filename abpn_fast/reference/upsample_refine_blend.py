"""The finest level: the refining module, then the adaptive blend (Eq. 5 and 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from abpn_fast.reference.adaptive_blend import adaptive_blend
from abpn_fast.reference.upsample import upsample
from abpn_fast.reference.upsample_refine import upsample_refine


def mask_scale(image_size: tuple[int, int], mask_size: tuple[int, int]) -> int | None:
    """The power of two s with ``mask_size == ceil(image_size / s)``, or None; a 1x1 mask fits every size."""
    scale = 1
    while scale <= 2 * max(image_size):
        if all(-(-full // scale) == part for full, part in zip(image_size, mask_size, strict=True)):
            return scale
        scale *= 2
    return None


def keep_below(image: Tensor, result: Tensor, mask: Tensor, mask_threshold: float) -> Tensor:
    """``result``, but the pixels of ``image`` where the bilinearly upsampled ``mask`` is below the threshold."""
    size = (image.shape[-2], image.shape[-1])
    scale = mask_scale(size, (mask.shape[-2], mask.shape[-1]))
    if scale is None:
        raise ValueError(f"a mask of {tuple(mask.shape[-2:])} fits no image of {size} by a power of two")
    below = upsample(mask, size, scale) < mask_threshold
    if image.dtype == torch.uint16:
        # torch.where takes none before PyTorch 2.12.
        return torch.where(below, image.view(torch.int16), result.view(torch.int16)).view(torch.uint16)
    return torch.where(below, image, result)


def upsample_refine_blend(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    j: Tensor,
    k: Tensor,
    *,
    strength: float = 1.0,
    mask: Tensor | None = None,
    mask_threshold: float | None = None,
) -> Tensor:
    """R_0 from B_1, I_0 and I_1; the arguments are those of ``upsample_refine`` and ``adaptive_blend``.

    Args:
        mask: M, (N, 1, ceil(H / s), ceil(W / s)) for a power of two s, floating.
        mask_threshold: pixels whose upsampled mask is below it keep the bits of ``image``.

    Returns:
        R_0, (N, 3, H, W), dtype of ``image``.
    """
    blend = upsample_refine(blend_low, image, image_low, weight1, bias1, weight2, bias2)
    result = adaptive_blend(image, blend, j, k, strength=strength)
    if mask is None or mask_threshold is None:
        return result
    return keep_below(image, result, mask, mask_threshold)
