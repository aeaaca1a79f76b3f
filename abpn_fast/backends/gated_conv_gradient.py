"""The gradient of ``gated_conv`` around that of its gate, on any device: nothing is stored between the passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from abpn_fast.reference.gated_conv import attend

# From what the activations of features and gate got, what that of the skip got or None, the gradient of the result and
# the slope: the gradients of the first two, which may lie where those did.
ThroughGate = Callable[[Tensor, "Tensor | None", Tensor, float], "tuple[Tensor, Tensor | None]"]


def gated_conv_gradient(
    grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str], through_gate: ThroughGate
) -> list[Tensor]:
    """Gradients of the arguments that are named, by PyTorch's convolutions and ``through_gate``."""
    features, skip, mask = (arguments[name] for name in ("features", "skip", "mask"))
    weight, skip_weight = arguments["weight"], arguments["skip_weight"]
    joined = attend(features, skip, mask)
    both = conv2d(joined, weight, arguments["bias"], padding=1)
    kept = None if skip_weight is None else conv2d(skip, skip_weight, arguments["skip_bias"], padding=1)
    both, kept = through_gate(both, kept, grad, arguments["negative_slope"])
    found: dict[str, Tensor] = {}
    if kept is not None:
        found = _convolution(kept, skip, skip_weight, wanted, ("skip", "skip_weight", "skip_bias"))
        del kept
    asked = ["joined" if name in ("features", "skip", "mask") else name for name in wanted]
    of_both = _convolution(both, joined, weight, asked, ("joined", "weight", "bias"))
    del both, joined
    if "joined" in of_both:
        of_both |= _parted(of_both.pop("joined"), features, skip, mask, wanted)
    if "skip" in of_both and "skip" in found:
        found["skip"] += of_both.pop("skip")
    found |= of_both
    return [found[name].contiguous() for name in wanted]


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
