"""One local attentive module with its batch norms folded into the filters (Sec. 4.2, Fig. 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu


def attend(features: Tensor, skip: Tensor, mask: Tensor | None) -> Tensor:
    """``x = Cat(up(f), F_skip, M)``: features to the size of the skip by nearest, the mask by bilinear resizing."""
    height, width = skip.shape[-2:]
    parts = [interpolate(features, scale_factor=2, mode="nearest")[..., :height, :width], skip]
    if mask is not None:
        parts.append(interpolate(mask, size=(height, width), mode="bilinear", align_corners=False))
    return torch.cat(parts, 1)


def gated_conv(
    features: Tensor,
    skip: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    skip_weight: Tensor | None = None,
    skip_bias: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
) -> Tensor:
    """``F * G + S * (1 - G)``, or ``F * G`` without ``skip_weight``.

    With ``x = Cat(up(f), F_skip, M)``: ``F = act(conv_f(x))``, ``G = sigmoid(conv_g(x))``, ``S = act(conv_s(F_skip))``,
    3x3 convolutions, zero-padded; act is the leaky ReLU (``negative_slope=1``: none).

    Args:
        features: f, (N, C_f, ceil(H / 2), ceil(W / 2)), floating.
        skip: F_skip, (N, C_skip, H, W), same dtype, as all that follow.
        mask: M, (N, 1, h, w) of any size in [0, 1], or None.
        weight, bias: (2 C_out, C_f + C_skip + 1, 3, 3) and (2 C_out,), feature filters, then gate filters; the mask's
            input channel is the last and is absent without a mask.
        skip_weight, skip_bias: (C_out, C_skip, 3, 3) and (C_out,).

    Returns:
        (N, C_out, H, W).
    """
    feature, gate = conv2d(attend(features, skip, mask), weight, bias, padding=1).chunk(2, 1)
    feature, gate = leaky_relu(feature, negative_slope), torch.sigmoid(gate)
    if skip_weight is None:
        return feature * gate
    kept = leaky_relu(conv2d(skip, skip_weight, skip_bias, padding=1), negative_slope)
    return feature * gate + kept * (1 - gate)
