"""What the losses compare with: the pyramids of results and targets, and where they may differ."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from abpn_fast import ops
from abpn_fast.reference import pyramid_down
from abpn_fast.reference.blending import ConvBlend, PolynomialBlend


def changed_region(image: Tensor, target: Tensor, threshold: float = 0.02) -> Tensor:
    """M_gt: where the pair differs, ``max_c |I - R_gt| > threshold`` (Sec. 4.2).

    Args:
        image, target: (N, 3, H, W) in [0, 1].

    Returns:
        (N, 1, H, W), 0 or 1, in the dtype of ``image``.
    """
    return (_change(image, target) > threshold).to(image.dtype)


def mask_target(region: Tensor, mask: Tensor) -> Tensor:
    """The changed region of I_l, (N, 1, h, w), at the size of ``mask``: a cell counts where any of its pixels does."""
    return adaptive_max_pool2d(region, (mask.shape[-2], mask.shape[-1]))


def largest_change(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``max |I_l - R_gt_l|`` in every cell of ``mask``, (N, 1, h, w), in the dtype of ``image``."""
    return mask_target(_change(image, target), mask)


def target_pyramid(target: Tensor, levels: int, *, filter: str = "binomial") -> list[Tensor]:
    """``[R_gt_0, ..., R_gt_l]``, reduced as the image pyramid is."""
    pyramid = [target]
    for _ in range(levels):
        pyramid.append(pyramid_down(pyramid[-1], filter=filter))
    return pyramid


def retouched_pyramid(
    pyramid: Sequence[Tensor], blend_layers: Sequence[Tensor], low_res: Tensor, blend: PolynomialBlend | ConvBlend
) -> list[Tensor]:
    """``[R_0, ..., R_l]``: the blend, Eq. 3, at every level above the thumbnail, as the multi-scale loss asks for."""

    def apply(image: Tensor, layer: Tensor) -> Tensor:
        # The operator keeps nothing for its gradient but what it is given.
        if isinstance(blend, PolynomialBlend):
            return ops.adaptive_blend(image, layer, blend.j, blend.k)
        result: Tensor = blend(image, layer)
        return result

    return [*map(apply, pyramid[:-1], blend_layers[:-1]), low_res]


def _change(image: Tensor, target: Tensor) -> Tensor:
    return (image - target).abs().amax(1, keepdim=True)
