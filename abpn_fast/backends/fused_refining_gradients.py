"""The gradients of the refining operators by backend ``cpu``'s kernels: the hidden layer never leaves the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from abpn_fast.backends import fused_blend_gradients
from abpn_fast.backends.gradient_strips import in_strips
from abpn_fast.backends.refining_gradients import pixels_below

_WEIGHTS = ("weight1", "bias1", "weight2", "bias2")
_OPERANDS = ("blend_low", "image", "image_low", *_WEIGHTS)
# Of a strip, which is some tensors of three channels high.
_PIXELS, _PIXELS_BLENDED = 1 << 20, 1 << 18


def upsample_refine(kernels: Any, grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str]) -> list[Tensor]:
    """The gradients of ``wanted``, float32 sums in one order whatever the number of threads.

    Args:
        kernels: ``torch.ops.abpn_fast_cpu``.
        grad: of the result, (N, 3, H, W).
        arguments: those of the operator, by name.
    """

    def strip(grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], _: object) -> list[Tensor]:
        return _refining(kernels, grads[0], arguments, wanted)

    return in_strips(strip, _PIXELS)([grad], arguments, wanted, _itself)


def upsample_refine_blend(kernels: Any, grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str]) -> list[Tensor]:
    """As above; where the mask is below its threshold, the gradient is the image's."""

    def strip(grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], _: object) -> list[Tensor]:
        return _refining_and_blending(kernels, grads[0], arguments, wanted)

    below, sought = pixels_below(arguments), [name for name in wanted if name != "mask"]
    plain = arguments | {"mask": None, "mask_threshold": None}
    through = grad if below is None else grad.masked_fill(below, 0)
    found = dict(zip(sought, in_strips(strip, _PIXELS_BLENDED)([through], plain, sought, _itself), strict=True))
    if below is not None and "image" in found:
        found["image"] += grad.masked_fill(~below, 0)
    if "mask" in wanted:
        found["mask"] = torch.zeros_like(arguments["mask"], memory_format=torch.contiguous_format)
    return [found[name] for name in wanted]


def _refining_and_blending(
    kernels: Any, grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str]
) -> list[Tensor]:
    operands = {name: arguments[name] for name in _OPERANDS}
    blending = {name: arguments[name] for name in ("image", "j", "k", "strength")}
    blending["blend"] = grad.new_empty(grad.shape, dtype=torch.float32)
    kernels.upsample_refine(*operands.values(), False, blending["blend"])
    if arguments["image"].is_floating_point():
        blending["image"] = arguments["image"].float()
    asked = ["blend", *(name for name in wanted if name in ("image", "j", "k"))]
    parts = fused_blend_gradients.gradients(kernels, grad, blending, asked, "blend", "strength")
    found = dict(zip(asked, parts, strict=True))
    inner = [name for name in wanted if name in _OPERANDS]
    for name, part in zip(inner, _refining(kernels, found.pop("blend"), operands, inner), strict=True):
        found[name] = found[name] + part if name in found else part
    return [found[name] for name in wanted]


def _refining(kernels: Any, grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str]) -> list[Tensor]:
    sizes = [arguments[name].numel() for name in _WEIGHTS]
    sums, up = (grad.new_empty(shape, dtype=torch.float32) for shape in ((sum(sizes),), grad.shape))
    high = None if {"image", "image_low"}.isdisjoint(wanted) else torch.empty_like(up)
    kernels.upsample_refine_backward(grad, *(arguments[name] for name in _OPERANDS), up, high, sums)
    parts = zip(_WEIGHTS, torch.split(sums, sizes), strict=True)
    found = {name: part.view(arguments[name].shape).clone() for name, part in parts}
    if "blend_low" in wanted:
        found["blend_low"] = _halved(up)
    del up
    if high is not None:
        found["image"] = high
        if "image_low" in wanted:
            found["image_low"] = _halved(high).neg_()
    return [found[name] for name in wanted]


def _halved(grad: Tensor) -> Tensor:
    """The gradient of x from that of ``reference.upsample(x)``."""
    low = [*grad.shape[:2], *(-(-side // 2) for side in grad.shape[2:])]
    if 0 in low:
        return grad.new_zeros(low)
    halved: Tensor = torch.ops.aten.upsample_bilinear2d_backward(grad, grad.shape[2:], low, False, 2.0, 2.0)
    return halved


def _itself(result: Tensor) -> list[Tensor]:
    return [result]
