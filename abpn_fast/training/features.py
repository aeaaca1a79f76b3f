"""The convolutions of VGG16 and AlexNet, whose ImageNet features stand in for how people see."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

Name = Literal["vgg16", "alexnet"]
NAMES: tuple[Name, ...] = ("vgg16", "alexnet")

_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_ALEXNET = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))


class Features(nn.Module):
    """Five blocks; the output of each is that of its last ReLU. Frozen.

    VGG16: ReLU 1_2, 2_2, 3_3, 4_3, 5_3. AlexNet: ReLU 1 to 5. The keys of the parameters are torchvision's.

    Args:
        blocks: lists of layers.
    """

    def __init__(self, blocks: list[list[nn.Module]]) -> None:
        super().__init__()
        self.features = nn.Sequential(*(layer for block in blocks for layer in block))
        self.ends = torch.tensor([len(block) for block in blocks]).cumsum(0).tolist()
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, depth: int = 5) -> list[Tensor]:
        """Outputs of the first ``depth`` blocks for (N, 3, H, W), standardised by ImageNet's mean and deviation."""
        outputs = []
        for index in range(1, self.ends[depth - 1] + 1):
            image = self.features[index - 1](image)
            if index in self.ends:
                outputs.append(image)
        return outputs


def vgg16() -> Features:
    """Simonyan and Zisserman's configuration D without its classifier, untrained."""
    blocks: list[list[nn.Module]] = []
    channels = 3
    for widths in _VGG16:
        block: list[nn.Module] = [nn.MaxPool2d(2, 2)] if blocks else []
        for width in widths:
            block += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        blocks.append(block)
    return Features(blocks)


def alexnet() -> Features:
    """AlexNet in the widths of "One weird trick" (Krizhevsky 2014) without its classifier, untrained."""
    blocks: list[list[nn.Module]] = []
    channels = 3
    for width, kernel, stride, padding in _ALEXNET:
        block: list[nn.Module] = [nn.MaxPool2d(3, 2)] if len(blocks) in (1, 2) else []
        blocks.append([*block, nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()])
        channels = width
    return Features(blocks)


def cache_folder() -> Path:
    """Where fetched weights are kept: ``ABPN_FAST_CACHE``, or the user's cache folder of the platform."""
    given = os.environ.get("ABPN_FAST_CACHE")
    if given:
        return Path(given)
    from platformdirs import user_cache_path

    return user_cache_path("abpn-fast", appauthor=False)


def cached(name: Name) -> Path:
    """The file that ``abpn-fast fetch-vgg`` writes for ``name``; it need not exist."""
    return cache_folder() / f"{name}.safetensors"


def load_weights(name: Name) -> dict[str, Tensor]:
    """Convolutions, ``features.N.weight`` and ``.bias``, and the heads of LPIPS, ``lpips.0`` to ``lpips.4``.

    Raises:
        FileNotFoundError: not fetched yet.
        ValueError: the file is damaged.
    """
    path = cached(name)
    if not path.is_file():
        raise FileNotFoundError(f"no {name} weights in {path.parent}; run abpn-fast fetch-vgg once")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); run abpn-fast fetch-vgg again") from error


def load_features(name: Name = "vgg16") -> Features:
    """Trained, frozen features from the cache.

    Raises:
        FileNotFoundError, ValueError: as for :func:`load_weights`.
    """
    network = vgg16() if name == "vgg16" else alexnet()
    weights = load_weights(name)
    own = {key: value for key, value in weights.items() if key.startswith("features.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"{cached(name)} holds no whole {name}; run abpn-fast fetch-vgg again") from error
    return network
