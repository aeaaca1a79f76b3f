"""What training minimises: Eq. 6 as far as it needs no second network, with the region given more weight."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy

from abpn_fast.reference import Retouched
from abpn_fast.reference.blending import PolynomialBlend
from abpn_fast.training.losses import (
    changed_region,
    dice,
    multi_scale,
    retouched_pyramid,
    target_pyramid,
    total_variation,
)


@dataclasses.dataclass(frozen=True)
class Objective:
    """Weights of the terms. A blemish covers a few percent of a crop; without ``region`` doing nothing is optimal.

    Args:
        mse, absolute: squared and absolute error of R_0 .. R_l, summed over the levels.
        dice, cross_entropy: of the mask against the changed region of the thumbnail.
        total_variation: of the blend layers B_0 .. B_l.
        region: how many times more a changed pixel counts in ``absolute`` and ``cross_entropy`` than another.
    """

    mse: float = 1.0
    absolute: float = 1.0
    dice: float = 0.1
    cross_entropy: float = 0.1
    total_variation: float = 0.01
    region: float = 10.0

    def terms(self, output: Retouched, target: Tensor, blend: PolynomialBlend, filter: str) -> dict[str, Tensor]:
        """Each term, unweighted, as a scalar.

        Args:
            output: of the model on the image, float.
            target: R_gt_0, (N, 3, H, W) in [0, 1].
            blend: the model's ABM.
            filter: of the model's pyramid.
        """
        targets = target_pyramid(target, len(output.pyramid) - 1, filter=filter)
        changed = [changed_region(image, goal) for image, goal in zip(output.pyramid, targets, strict=True)]
        retouched = retouched_pyramid(output.pyramid, output.blend_layers, output.low_res, blend)
        weights = [1 + (self.region - 1) * region for region in changed]
        terms = {
            "mse": multi_scale(retouched, targets, [torch.ones_like(w) for w in weights], 2),
            "absolute": multi_scale(retouched, targets, weights, 1),
            "total_variation": total_variation(output.blend_layers),
        }
        if output.mask is not None:
            mask = output.mask.to(target.dtype)
            truth = adaptive_max_pool2d(changed[-1], (mask.shape[-2], mask.shape[-1]))
            terms["dice"] = dice(mask, truth)
            terms["cross_entropy"] = binary_cross_entropy(mask, truth, weight=1 + (self.region - 1) * truth)
        return terms

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return torch.stack([getattr(self, name) * value for name, value in terms.items()]).sum()
