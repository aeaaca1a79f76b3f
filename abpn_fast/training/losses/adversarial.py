"""L_adv of Eq. 6: what the two sides of the game minimise, given the discriminator's scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import relu


class AdversarialLoss(NamedTuple):
    """A pair of losses over scores of any shape, higher meaning "real"; each returns a scalar.

    Args:
        discriminator: of the scores of real and of made images.
        generator: of the scores of made images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return relu(1 - real).mean() + relu(1 + fake).mean()


def _hinge_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


def _least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def _least_squares_generator(fake: Tensor) -> Tensor:
    return (fake - 1).square().mean() / 2


HINGE = AdversarialLoss(_hinge_discriminator, _hinge_generator)
"""Lim and Ye 2017; Miyato et al. 2018, Eq. 16 and 17."""

LEAST_SQUARES = AdversarialLoss(_least_squares_discriminator, _least_squares_generator)
"""Mao et al. 2017, Eq. 9: labels 1 for real, 0 for made, 1 for what the generator wants believed."""
