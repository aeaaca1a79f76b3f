"""How a blend layer acts on an image, and back: ABM and R-ABM with their coefficients, and what Table 2 compares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from abpn_fast.config import ABPNConfig
from abpn_fast.reference.adaptive_blend import adaptive_blend
from abpn_fast.reference.reverse_adaptive_blend import reverse_adaptive_blend

# Pegtop's soft light with its blend layer shifted by one half, so that B = 0 leaves the image as it is.
SOFT_LIGHT = (0.0, 2.0, -2.0), (0.0, 1.0, 0.0)
_FIXED = {
    "soft_light": SOFT_LIGHT,
    "addition": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "rgb": ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
}


class PolynomialBlend(nn.Module):
    """ABM (Eq. 3) and R-ABM (Eq. 4) with one j and k for the whole model, learned when ``config.blend`` is adaptive.

    Addition, soft light and ``rgb`` are the same equation with j and k fixed.
    """

    j: Tensor
    k: Tensor

    def __init__(self, config: ABPNConfig) -> None:
        super().__init__()
        coefficients = _FIXED.get(config.blend, SOFT_LIGHT)
        for name, values in zip(("j", "k"), coefficients, strict=True):
            if config.blend == "adaptive":
                self.register_parameter(name, nn.Parameter(torch.tensor(values)))
            else:
                self.register_buffer(name, torch.tensor(values))
        # d = 1 everywhere needs no damping, and none makes the inverse exact.
        self.damping = 0.0 if config.blend in ("addition", "rgb") else config.damping

    def forward(self, image: Tensor, blend: Tensor, strength: float = 1.0) -> Tensor:
        """R from I and B."""
        return adaptive_blend(image, blend, self.j, self.k, strength=strength)

    def reverse(self, image: Tensor, retouched: Tensor) -> Tensor:
        """B from I and R."""
        return reverse_adaptive_blend(image, retouched, self.j, self.k, damping=self.damping)


class ConvBlend(nn.Module):
    """Two networks of three 1x1 convolutions in the place of Eq. 3 and Eq. 4 (Sec. 4.3 and 5.4)."""

    def __init__(self) -> None:
        super().__init__()
        self.apply_layers, self.reverse_layers = _pointwise(), _pointwise()

    def forward(self, image: Tensor, blend: Tensor) -> Tensor:
        """R from I and B."""
        result: Tensor = self.apply_layers(torch.cat([image, blend], 1))
        return result

    def reverse(self, image: Tensor, retouched: Tensor) -> Tensor:
        """B from I and R."""
        result: Tensor = self.reverse_layers(torch.cat([image, retouched], 1))
        return result


def _pointwise(hidden: int = 16) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(6, hidden, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(hidden, hidden, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(hidden, 3, 1),
    )
