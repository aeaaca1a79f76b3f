"""The losses of Eq. 6 and their kin, one per file, and the targets that they compare with."""

from abpn_fast.training.losses.adversarial import HINGE, LEAST_SQUARES, AdversarialLoss
from abpn_fast.training.losses.decibels import decibels
from abpn_fast.training.losses.dice import dice
from abpn_fast.training.losses.multi_scale import multi_scale
from abpn_fast.training.losses.perceptual import Perceptual
from abpn_fast.training.losses.targets import (
    changed_region,
    largest_change,
    mask_target,
    retouched_pyramid,
    target_pyramid,
)
from abpn_fast.training.losses.total_variation import total_variation

__all__ = [
    "HINGE",
    "LEAST_SQUARES",
    "AdversarialLoss",
    "Perceptual",
    "changed_region",
    "decibels",
    "dice",
    "largest_change",
    "mask_target",
    "multi_scale",
    "retouched_pyramid",
    "target_pyramid",
    "total_variation",
]
