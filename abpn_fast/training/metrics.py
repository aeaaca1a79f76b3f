"""Image quality, over the whole image or the part under a region."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def psnr(result: Tensor, target: Tensor, region: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1, at most 100; NaN where the error is not finite.

    Args:
        result, target: (N, 3, H, W) in [0, 1].
        region: (N, 1, H, W), 0 or 1; None for everywhere.
    """
    error = _mean((result - target).square(), region)
    if not math.isfinite(error):
        return math.nan
    return min(100.0, -10 * math.log10(max(error, 1e-12)))


def absolute_error(result: Tensor, target: Tensor, region: Tensor | None = None) -> float:
    """Mean absolute difference, in units of white."""
    return _mean((result - target).abs(), region)


def ssim(result: Tensor, target: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels and sigma 1.5, mean over whole windows."""
    channels = result.shape[1]
    at = torch.arange(11, dtype=result.dtype, device=result.device) - 5
    window = torch.exp(-at.square() / (2 * 1.5**2))
    window = (window / window.sum()).expand(channels, 1, -1)

    def blur(x: Tensor) -> Tensor:
        return conv2d(conv2d(x, window[..., None], groups=channels), window[..., None, :], groups=channels)

    a, b = blur(result), blur(target)
    variance_a, variance_b = blur(result * result) - a * a, blur(target * target) - b * b
    covariance = blur(result * target) - a * b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * a * b + c1) * (2 * covariance + c2) / ((a * a + b * b + c1) * (variance_a + variance_b + c2))
    return float(similarity.mean())


def intersection_over_union(mask: Tensor, truth: Tensor) -> float:
    """Of two masks of one shape, both cut at 0.5; 1 where both are empty, NaN where a mask is not finite."""
    if not (mask.isfinite().all() and truth.isfinite().all()):
        return math.nan
    found, wanted = mask > 0.5, truth > 0.5
    union = (wanted | found).sum()
    return float((wanted & found).sum() / union) if union else 1.0


def _mean(error: Tensor, region: Tensor | None) -> float:
    if region is None:
        return float(error.mean())
    return float((error * region).sum() / (region.sum() * error.shape[1]))
