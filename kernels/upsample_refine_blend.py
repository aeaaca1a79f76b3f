"""The finest level: Eq. 5, then Eq. 3."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.kernels import refine


def launch(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    j: Tensor,
    k: Tensor,
    strength: float,
    mask: Tensor | None,
    mask_threshold: float | None,
    out: Tensor,
) -> None:
    """Fill ``out`` with R_0 in one launch."""
    refine.launch(
        blend_low,
        image,
        image_low,
        (weight1, bias1, weight2, bias2),
        out,
        blend=(j, k, strength),
        mask=mask,
        mask_threshold=mask_threshold,
    )
