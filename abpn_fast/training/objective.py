"""What training minimises: Eq. 6 with the paper's weights, or a form of it that trains from scratch on its own."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from abpn_fast.reference import Retouched
from abpn_fast.reference.blending import ConvBlend, PolynomialBlend
from abpn_fast.training.adversarial import Adversary
from abpn_fast.training.features import load_features
from abpn_fast.training.losses import (
    Perceptual,
    changed_region,
    decibels,
    dice,
    largest_change,
    mask_target,
    multi_scale,
    retouched_pyramid,
    target_pyramid,
    total_variation,
)

# Squared errors of 40 and 57 dB: a better result is not worth anything else.
_BEST_INSIDE, _BEST_OUTSIDE = 1e-4, 2e-6


@dataclasses.dataclass(frozen=True)
class Objective:
    """Weights of the terms; a term of weight 0 is not computed. The defaults need no second network.

    A blemish covers a few percent of a crop: from scratch, without ``region``, doing nothing is a deep local optimum.

    Args:
        mse, absolute: squared and absolute error of R_0 .. R_l, summed over the levels.
        dice, cross_entropy: of the mask against the changed region of the thumbnail.
        total_variation: of the blend layers B_0 .. B_l.
        region: how many times more a changed pixel counts in ``absolute`` and ``cross_entropy`` than another.
        inside, outside: PSNR of every picture and level by itself, negated, in bels, where it is changed and
            elsewhere; up to 40 and 57 dB.
        contrast: a changed cell of the mask counts this many times its largest change, from 0.1 to 6 times as much as
            another, in the place of ``region``; 0 for ``region``.
        perceptual: of R_l; needs ``features``.
        adversarial: of R_0; needs an adversary in :meth:`terms`.
        adversarial_loss: ``"hinge"`` or ``"least_squares"``.
        features: what the perceptual term looks through.

    Raises:
        ValueError: ``perceptual`` without ``features``.
    """

    mse: float = 1.0
    absolute: float = 1.0
    dice: float = 0.1
    cross_entropy: float = 0.1
    total_variation: float = 0.01
    region: float = 10.0
    inside: float = 0.0
    outside: float = 0.0
    contrast: float = 0.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    adversarial_loss: str = "hinge"
    features: Perceptual | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.perceptual and self.features is None:
            raise ValueError("perceptual needs features; pass Perceptual(load_features()), or use Objective.paper()")

    @classmethod
    def paper(cls, features: Perceptual | None = None, adversarial_loss: str = "hinge") -> Objective:
        """Eq. 6: multi-scale MSE 1, perceptual 0.1, adversarial 0.1, dice 1, total variation 0.1, and nothing else.

        Args:
            features: of the perceptual loss; None for the fetched VGG16.
            adversarial_loss: ``"hinge"`` or ``"least_squares"``.

        Raises:
            FileNotFoundError: VGG16 has not been fetched; the message says how to.
        """
        features = features or Perceptual(load_features("vgg16"))
        terms = cls(1.0, 0.0, 1.0, 0.0, 0.1, 1.0, perceptual=0.1, adversarial=0.1, features=features)
        return dataclasses.replace(terms, adversarial_loss=adversarial_loss)

    @classmethod
    def psnr(cls) -> Objective:
        """PSNR of every picture inside and, a sixth as much, outside, in the place of the batch's mean errors."""
        return cls(0.0, 0.0, 0.3, 0.3, 0.01, inside=1.0, outside=0.16, contrast=8.0)

    def terms(
        self,
        output: Retouched,
        target: Tensor,
        blend: PolynomialBlend | ConvBlend,
        filter: str,
        adversary: Adversary | None = None,
    ) -> dict[str, Tensor]:
        """Each term that has a weight, before it is weighted, as a scalar.

        Args:
            output: of the model on the image, float.
            target: R_gt_0, (N, 3, H, W) in [0, 1].
            blend: the model's.
            filter: of the model's pyramid.
            adversary: for the adversarial term, which is left out without one.
        """
        targets = target_pyramid(target, len(output.pyramid) - 1, filter=filter)
        changed = [changed_region(image, goal) for image, goal in zip(output.pyramid, targets, strict=True)]
        retouched = retouched_pyramid(output.pyramid, output.blend_layers, output.low_res, blend)
        terms = {}
        if self.mse:
            terms["mse"] = multi_scale(retouched, targets, [torch.ones_like(region) for region in changed], 2)
        if self.absolute:
            terms["absolute"] = multi_scale(retouched, targets, [self._weights(region) for region in changed], 1)
        if self.inside:
            terms["inside"] = decibels(retouched, targets, changed, _BEST_INSIDE)
        if self.outside:
            terms["outside"] = decibels(retouched, targets, [1 - region for region in changed], _BEST_OUTSIDE)
        if self.total_variation:
            terms["total_variation"] = total_variation(output.blend_layers)
        if output.mask is not None:
            mask = output.mask.to(target.dtype)
            truth = mask_target(changed[-1], mask)
            cells = self._contrast(output.pyramid[-1], targets[-1], truth) if self.contrast else None
            if self.dice:
                terms["dice"] = dice(mask, truth, 1.0 if cells is None else cells)
            if self.cross_entropy:
                weights = self._weights(truth) if cells is None else cells
                terms["cross_entropy"] = _cross_entropy(output.mask, truth, weights)
        if self.perceptual and self.features is not None:
            terms["perceptual"] = self.features(output.low_res, targets[-1])
        if self.adversarial and adversary is not None:
            terms["adversarial"] = adversary.generator_loss(output.image)
        return terms

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return torch.stack([getattr(self, name) * value for name, value in terms.items()]).sum()

    def _weights(self, region: Tensor) -> Tensor:
        return 1 + (self.region - 1) * region

    def _contrast(self, image: Tensor, target: Tensor, truth: Tensor) -> Tensor:
        """What a cell counts: the faint edge of a blemish, which nobody can tell from grain, next to nothing."""
        change = largest_change(image, target, truth)
        return torch.where(truth > 0, (self.contrast * change).clamp(0.1, 6), 1.0)


def _cross_entropy(mask: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted, of probabilities that are kept off 0 and 1 by the least step of their dtype; NaN where the mask is.

    Not torch's, which raises where the mask is NaN, on a GPU by ending the process.
    """
    limits = torch.finfo(mask.dtype)
    mask = mask.to(truth.dtype).clamp(limits.tiny, 1 - limits.eps / 2)
    return -(weight * (truth * mask.log() + (1 - truth) * (-mask).log1p())).mean()
