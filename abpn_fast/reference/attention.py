"""The blocks that a retouching branch can be made of: LAM (Sec. 4.2, Fig. 4), and the two it is compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, interpolate, leaky_relu

from abpn_fast.reference.gated_conv import attend


def _conv(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class LocalAttentiveModule(nn.Module):
    """``out = F * G + S * (1 - G)``: the gate chooses between new features and re-convolved low-level texture.

    With ``x = Cat(up(f), F_skip, M)``: ``F = act(bn(conv_f(x)))``, ``G = sigmoid(conv_g(x))``,
    ``S = act(bn(conv_s(F_skip)))``.

    Args:
        features, skip, out: channels of f, of F_skip and of the result.
        masked: x has the mask as its last channel.
        keep: has the S term; without, the result is ``F * G`` (the gated convolution of DeepFill v2).
        last: biases instead of batch norms, and no activation.
    """

    def __init__(
        self, features: int, skip: int, out: int, *, masked: bool = True, keep: bool = True, last: bool = False
    ) -> None:
        super().__init__()
        joined = features + skip + masked
        self.feature = _conv(joined, out, bias=last)
        self.gate = _conv(joined, out)
        self.feature_norm = nn.Identity() if last else nn.BatchNorm2d(out)
        self.skip = _conv(skip, out, bias=last) if keep else None
        self.skip_norm = nn.Identity() if last or not keep else nn.BatchNorm2d(out)
        self.negative_slope = 1.0 if last else 0.2

    def forward(self, features: Tensor, skip: Tensor, mask: Tensor | None) -> Tensor:
        """(N, out, H, W) from f (N, ., H / 2, W / 2), F_skip (N, ., H, W) and M (N, 1, any, any) or None."""
        x = attend(features, skip, mask)
        return self.choose(self.feature(x), self.gate(x), skip)

    def choose(self, feature: Tensor, gate: Tensor, skip: Tensor) -> Tensor:
        """The result from ``conv_f(x)`` and ``conv_g(x)``, both (N, out, H, W), and F_skip."""
        feature = leaky_relu(self.feature_norm(feature), self.negative_slope)
        gate = torch.sigmoid(gate)
        if self.skip is None:
            return feature * gate
        kept = leaky_relu(self.skip_norm(self.skip(skip)), self.negative_slope)
        return feature * gate + kept * (1 - gate)


class ProbabilisticContextBlock(nn.Module):
    """The block of VCNet (Wang et al., ECCV 2020; the paper's [53]): convolutions, context normalisation, shortcut.

    Args:
        features, skip, out: channels of f, of F_skip and of the result.
        last: no activation on the result.
    """

    def __init__(self, features: int, skip: int, out: int, *, last: bool = False) -> None:
        super().__init__()
        joined = features + skip + 1
        self.conv1, self.conv2 = _conv(joined, out), _conv(out, out)
        self.shortcut = nn.Conv2d(joined, out, 1)
        squeezed = max(out // 4, 1)
        self.balance = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(out, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, out, 1), nn.Sigmoid()
        )
        self.last = last

    def forward(self, features: Tensor, skip: Tensor, mask: Tensor) -> Tensor:
        """(N, out, H, W) from f (N, ., H / 2, W / 2), F_skip (N, ., H, W) and M (N, 1, any, any)."""
        x = attend(features, skip, mask)
        at_level = interpolate(mask, size=(skip.shape[-2], skip.shape[-1]), mode="bilinear", align_corners=False)
        y = self.normalise(self.conv2(elu(self.conv1(x))), at_level) + self.shortcut(x)
        return y if self.last else elu(y)

    def normalise(self, x: Tensor, mask: Tensor) -> Tensor:
        """Inside the mask, ``beta T(x) + (1 - beta) x``, with T giving the inside the statistics of the outside."""
        inside_mean, inside_std = _statistics(x, mask)
        outside_mean, outside_std = _statistics(x, 1 - mask)
        transferred = (x - inside_mean) / inside_std * outside_std + outside_mean
        beta: Tensor = self.balance(x)
        return (beta * transferred + (1 - beta) * x) * mask + x * (1 - mask)


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel under ``weight``."""
    total = weight.sum((2, 3), keepdim=True) + 1e-5
    mean = (x * weight).sum((2, 3), keepdim=True) / total
    variance = ((x - mean).square() * weight).sum((2, 3), keepdim=True) / total
    return mean, (variance + 1e-5).sqrt()
