"""The gradient of ``gated_conv`` in PyTorch's own convolutions, on any device: nothing is stored between the passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad

from abpn_fast.reference.gated_conv import attend


def gated_conv_backward(
    grads: Sequence[Tensor],
    arguments: dict[str, Any],
    wanted: Sequence[str],
    results: Callable[[Any], list[Tensor]],
) -> list[Tensor]:
    (grad,) = grads
    features, skip, mask = (arguments[name] for name in ("features", "skip", "mask"))
    weight, skip_weight = arguments["weight"], arguments["skip_weight"]
    slope = arguments["negative_slope"]
    joined = attend(features, skip, mask)
    feature, gate = conv2d(joined, weight, arguments["bias"], padding=1).chunk(2, 1)
    gate = gate.sigmoid()
    difference = leaky_relu(feature, slope)
    found: dict[str, Tensor] = {}
    if skip_weight is not None:
        kept = conv2d(skip, skip_weight, arguments["skip_bias"], padding=1)
        difference = difference - leaky_relu(kept, slope)
        found = _convolution(
            _through(kept, grad * (1 - gate), slope), skip, skip_weight, wanted, ("skip", "skip_weight", "skip_bias")
        )
        del kept
    if not {"features", "skip", "mask", "weight", "bias"}.isdisjoint(wanted):
        pair = torch.cat([_through(feature, grad * gate, slope), grad * difference * (gate * (1 - gate))], 1)
        del feature, gate, difference
        asked = ["joined" if name in ("features", "skip", "mask") else name for name in wanted]
        both = _convolution(pair, joined, weight, asked, ("joined", "weight", "bias"))
        del joined, pair
        if "joined" in both:
            both |= _parted(both.pop("joined"), features, skip, mask, wanted)
        if "skip" in both and "skip" in found:
            found["skip"] += both.pop("skip")
        found |= both
    return [found[name].contiguous() for name in wanted]


def _through(x: Tensor, grad: Tensor, slope: float) -> Tensor:
    """The gradient before the leaky ReLU of x."""
    return torch.where(x > 0, grad, slope * grad)


def _convolution(
    grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[str], names: tuple[str, str, str]
) -> dict[str, Tensor]:
    """Gradients by the names of the input, of the weight and of the bias, those that are wanted."""
    asked = [name in wanted for name in names]
    if not any(asked):
        return {}
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, asked
    )
    return {name: gradient for name, gradient, ask in zip(names, found, asked, strict=True) if ask}


def _parted(
    grad: Tensor, features: Tensor, skip: Tensor, mask: Tensor | None, wanted: Sequence[str]
) -> dict[str, Tensor]:
    """The gradient of the concatenation as those of its parts."""
    count, channels, height, width = features.shape
    parts: dict[str, Tensor] = {}
    if "features" in wanted:
        upsampled = pad(grad[:, :channels], (0, 2 * width - skip.shape[3], 0, 2 * height - skip.shape[2]))
        parts["features"] = upsampled.reshape(count, channels, height, 2, width, 2).sum((3, 5))
    if "skip" in wanted:
        parts["skip"] = grad[:, channels : channels + skip.shape[1]]
    if mask is not None and "mask" in wanted:
        parts["mask"] = torch.ops.aten.upsample_bilinear2d_backward(
            grad[:, -1:], list(skip.shape[2:]), list(mask.shape), False, None, None
        )
    return parts
