"""The local retouching layer (Sec. 4.2) while it learns: convolutions of upsampled features by 16 taps in place of 36.

Nearest x2 and a 3x3 convolution are a transposed convolution of stride 2, whose 4x4 filter has sums of the 3x3's taps.
So no concatenation is made, nor kept for the way back.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate

from abpn_fast import low_res, reference
from abpn_fast.reference.attention import LocalAttentiveModule

# Of a level; of smaller ones the modules' way takes no longer. Measured.
_LEAST_PIXELS = 256


def branches(model: reference.ABPN, features: list[Tensor]) -> tuple[Tensor | None, Tensor] | None:
    """``ABPN.branches`` up to rounding, or None where the modules have to run.

    They run where backend ``cpu`` would not run ``gated_conv``, in other dtypes than float32, in a compiled graph,
    where no gradient is recorded, with attention ``"pcb"`` and where a module of the two branches but a norm has a hook
    or is not the reference's.
    """
    image = features[0]
    if not torch.is_grad_enabled() or image.dtype != torch.float32 or not low_res.is_plain_call(image):
        return None
    parts = (model.retouching_branch, *([] if model.mask_branch is None else [model.mask_branch]))
    modules = [module for part in parts for module in part.modules()]
    if not all(_is_called(module) or _is_transparent(module) for module in modules):
        return None
    if low_res.backend(image, next(model.parameters())) != "cpu":
        return None
    mask = None if model.mask_branch is None else _mask(model.mask_branch, features)
    x = features[6]
    for block, skip in zip(model.retouching_branch.blocks, features[5::-1], strict=True):
        x = _attend(cast(LocalAttentiveModule, block), x, skip, mask) if _is_large(skip) else block(x, skip, mask)
    return mask, x


def _mask(branch: reference.MaskPredictionBranch, features: list[Tensor]) -> Tensor:
    x = features[6]
    for block, skip in zip(branch.blocks, features[5:1:-1], strict=True):
        convolution, norm, activation = cast(nn.Sequential, block)
        assert isinstance(convolution, nn.Conv2d)
        if _is_large(skip):
            weight = convolution.weight
            y = _upsampled(x, weight, convolution.bias) + conv2d(skip, weight[:, x.shape[1] :], padding=1)
        else:
            y = convolution(torch.cat([interpolate(x, scale_factor=2, mode="nearest"), skip], 1))
        x = activation(norm(y))
    mask: Tensor = torch.sigmoid(branch.head(x))
    return mask


def _attend(block: LocalAttentiveModule, features: Tensor, skip: Tensor, mask: Tensor | None) -> Tensor:
    """One LAM."""
    weight, gate_bias = torch.cat([block.feature.weight, block.gate.weight]), cast(Tensor, block.gate.bias)
    bias = torch.cat([torch.zeros_like(gate_bias) if block.feature.bias is None else block.feature.bias, gate_bias])
    if mask is None:
        beside = skip
    else:
        at_level = interpolate(mask, size=skip.shape[2:], mode="bilinear", align_corners=False)
        beside = torch.cat([skip, at_level.to(skip.dtype)], 1)
    both = _upsampled(features, weight, bias) + conv2d(beside, weight[:, features.shape[1] :], padding=1)
    feature, gate = both.chunk(2, 1)
    return block.choose(feature, gate, skip)


def _upsampled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of nearest x2 of x with the first input channels of ``weight``."""
    weight = weight[:, : x.shape[1]]
    for axis in (2, 3):
        first, middle, last = weight.unbind(axis)
        weight = torch.stack([last, middle + last, first + middle, first], axis)
    return conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2, padding=1)


def _is_large(skip: Tensor) -> bool:
    return skip.shape[2] * skip.shape[3] >= _LEAST_PIXELS


def _is_called(module: nn.Module) -> bool:
    """Whether it runs as a module, whatever it does."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _is_transparent(module: nn.Module) -> bool:
    """Whether all that it does is known."""
    return low_res.is_known(module) and not module._backward_hooks and not module._backward_pre_hooks
