"""One step up the blend pyramid, Eq. 5."""

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
    out: Tensor,
) -> None:
    """Fill ``out`` with B_i in one launch."""
    refine.launch(blend_low, image, image_low, (weight1, bias1, weight2, bias2), out)
