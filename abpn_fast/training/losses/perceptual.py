"""L_perc of Eq. 6: how far apart two pictures are to a network that was trained to recognise things."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from abpn_fast.training.features import Features


class Perceptual(nn.Module):
    """Feature reconstruction loss of Johnson et al. 2016 (the paper's [19]), Eq. 2, summed over layers.

    ``sum_layers mean((phi(R) - phi(R_gt))^2)``, the mean over batch, channels and positions. Johnson et al. match
    content at ReLU 2_2, their published code at 3_3; ABPN names no layers, here it is these two.

    Args:
        network: frozen features, usually ``load_features("vgg16")``.
        layers: which of its outputs to compare.
    """

    def __init__(self, network: Features, layers: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.network, self.layers = network, layers
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, result: Tensor, target: Tensor) -> Tensor:
        """The loss of R_l against R_gt_l, both (N, 3, h, w) in [0, 1], as a scalar; no gradient reaches the target."""
        self.to(result.device)
        with torch.no_grad():
            wanted = self._features(target)
        found = self._features(result)
        return torch.stack([(a - b).square().mean() for a, b in zip(found, wanted, strict=True)]).sum()

    def _features(self, image: Tensor) -> list[Tensor]:
        normal = (image.to(self.mean.dtype) - self.mean) / self.deviation  # type: ignore[operator, arg-type]
        every = self.network(normal, depth=max(self.layers) + 1)
        return [every[layer] for layer in self.layers]
