"""The losses of Eq. 6 that need nothing but the network's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from abpn_fast.reference import adaptive_blend, pyramid_down
from abpn_fast.reference.blending import PolynomialBlend


def changed_region(image: Tensor, target: Tensor, threshold: float = 0.02) -> Tensor:
    """M_gt: where the pair differs, ``max_c |I - R_gt| > threshold`` (Sec. 4.2).

    Args:
        image, target: (N, 3, H, W) in [0, 1].

    Returns:
        (N, 1, H, W), 0 or 1, in the dtype of ``image``.
    """
    return ((image - target).abs().amax(1, keepdim=True) > threshold).to(image.dtype)


def target_pyramid(target: Tensor, levels: int, *, filter: str = "binomial") -> list[Tensor]:
    """``[R_gt_0, ..., R_gt_l]``, reduced as the image pyramid is."""
    pyramid = [target]
    for _ in range(levels):
        pyramid.append(pyramid_down(pyramid[-1], filter=filter))
    return pyramid


def retouched_pyramid(
    pyramid: Sequence[Tensor], blend_layers: Sequence[Tensor], low_res: Tensor, blend: PolynomialBlend
) -> list[Tensor]:
    """``[R_0, ..., R_l]``: Eq. 3 at every level above the thumbnail, as the multi-scale loss asks for."""
    finer = [
        adaptive_blend(image, layer, blend.j, blend.k)
        for image, layer in zip(pyramid[:-1], blend_layers[:-1], strict=True)
    ]
    return [*finer, low_res]


def multi_scale(
    retouched: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[Tensor], power: int
) -> Tensor:
    """``sum_i mean(w_i |R_i - R_gt_i|^power)``; with power 2 and unit weights, L_mse of Eq. 6."""
    levels = zip(retouched, targets, weights, strict=True)
    return torch.stack([(weight * (r - gt).abs().pow(power)).mean() for r, gt, weight in levels]).sum()


def dice(mask: Tensor, target: Tensor) -> Tensor:
    """``1 - (2 sum(M T) + 1) / (sum(M^2) + sum(T^2) + 1)`` over the batch (Milletari et al.; the paper's [34])."""
    overlap = (mask * target).sum()
    return 1 - (2 * overlap + 1) / (mask.square().sum() + target.square().sum() + 1)


def total_variation(blend_layers: Sequence[Tensor]) -> Tensor:
    """``sum_i`` of the mean absolute difference between neighbours of B_i, down and across."""
    return torch.stack(
        [layer.diff(dim=-1).abs().mean() + layer.diff(dim=-2).abs().mean() for layer in blend_layers]
    ).sum()
