"""LPIPS: how different two pictures look, judged by the features of a recognition network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from abpn_fast.training.features import Features, Name, cached, load_features, load_weights

_SHORT: dict[str, Name] = {"alex": "alexnet", "vgg": "vgg16"}


class LPIPS(nn.Module):
    """Zhang et al. 2018, version 0.1, Eq. 1: unit features, squared differences, one learned weight per channel.

    Args:
        network: frozen features, of VGG16 or AlexNet.
        heads: the weights, five of (1, channels, 1, 1).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Features, heads: list[Tensor]) -> None:
        super().__init__()
        self.network, self.heads = network, heads
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)

    @classmethod
    def pretrained(cls, name: Name = "alexnet") -> LPIPS:
        """With the weights that ``abpn-fast fetch-vgg`` put into the cache.

        Raises:
            FileNotFoundError: not fetched yet.
            ValueError: the file is damaged, or came from torchvision, which has no heads.
        """
        weights = load_weights(name)
        if not all(f"lpips.{index}" in weights for index in range(5)):
            raise ValueError(f"{cached(name)} has no LPIPS heads; run abpn-fast fetch-vgg without --torchvision")
        return cls(load_features(name), [weights[f"lpips.{index}"] for index in range(5)])

    @torch.no_grad()
    def forward(self, result: Tensor, target: Tensor) -> Tensor:
        """(N,) distances, 0 for equal pictures, of (N, 3, H, W) in [0, 1] against the same; H, W >= 31."""
        distances = [
            conv2d((a - b).square(), head).mean((2, 3))[:, 0]
            for a, b, head in zip(self._features(result), self._features(target), self.heads, strict=True)
        ]
        return torch.stack(distances).sum(0)

    def _features(self, image: Tensor) -> list[Tensor]:
        outputs = self.network((2 * image - 1 - self.shift) / self.scale)
        return [output / (output.square().sum(1, keepdim=True).sqrt() + 1e-10) for output in outputs]


def available(names: Sequence[str] = ("alex", "vgg")) -> tuple[dict[str, LPIPS], list[str]]:
    """Those of ``names`` that can be measured, and for each other one why not."""
    found, reasons = {}, []
    for short in names:
        try:
            found[short] = LPIPS.pretrained(_SHORT[short])
        except (FileNotFoundError, ValueError) as error:
            reasons.append(str(error))
    return found, reasons
