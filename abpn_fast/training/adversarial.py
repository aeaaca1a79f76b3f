"""The adversary of Eq. 6: a discriminator of patches and its side of the game."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from abpn_fast.training.losses.adversarial import HINGE, LEAST_SQUARES

_LOSSES = {"hinge": HINGE, "least_squares": LEAST_SQUARES}


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, the paper's [18]): one score for every overlapping 70 x 70 patch.

    4 x 4 convolutions, strides 2, 2, 2, 1, 1, LeakyReLU 0.2 between them. Spectral norm takes the place of
    batch norm, which ties the images of a small batch together.

    Args:
        width: channels of the first convolution; the next have 2, 4 and 8 times as many.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for factor, stride in ((1, 2), (2, 2), (4, 2), (8, 1)):
            layers += [spectral_norm(nn.Conv2d(channels, width * factor, 4, stride, 1)), nn.LeakyReLU(0.2)]
            channels = width * factor
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 4, 1, 1)))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H/8 - 2, W/8 - 2) scores, any real numbers, of an (N, 3, H, W) image in [0, 1]; H, W >= 24."""
        scores: Tensor = self.layers(2 * image - 1)
        return scores


class Adversary(nn.Module):
    """The discriminator with its losses; its ``state_dict`` and that of its optimiser are all there is to save.

    A step of training: ``generator_loss(output)`` joins the other terms of the model's loss; then
    ``discriminator_loss(target, output)`` is minimised with :meth:`optimiser`.

    Args:
        loss: ``"hinge"`` or ``"least_squares"``.
        width: of the discriminator.
    """

    def __init__(self, loss: str = "hinge", width: int = 64) -> None:
        super().__init__()
        if loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(_LOSSES)}, got {loss!r}")
        self.loss = _LOSSES[loss]
        self.discriminator = PatchDiscriminator(width)

    def generator_loss(self, fake: Tensor) -> Tensor:
        """L_adv of R_0, (N, 3, H, W) in [0, 1], a scalar; no gradient reaches the discriminator."""
        self.discriminator.requires_grad_(False)
        try:
            return self.loss.generator(self.discriminator(fake))
        finally:
            self.discriminator.requires_grad_(True)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises, a scalar, of R_gt_0 and R_0; no gradient reaches either."""
        return self.loss.discriminator(self.discriminator(real.detach()), self.discriminator(fake.detach()))

    def optimiser(self, learning_rate: float = 5e-4) -> torch.optim.Adam:
        """Adam for the discriminator; without the usual momentum, which makes the game swing."""
        return torch.optim.Adam(self.parameters(), learning_rate, betas=(0.5, 0.999))
