"""Backend ``reference``: the equations of ``abpn_fast.reference`` in plain PyTorch, on any device and in any dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from abpn_fast import reference
from abpn_fast.backends.gradient_strips import in_strips


def why_not(operator: str, tensors: Sequence[Tensor]) -> None:
    """It runs everything."""


def adaptive_blend(image: Tensor, blend: Tensor, j: Tensor, k: Tensor, strength: float, out: Tensor) -> None:
    out.copy_(reference.adaptive_blend(image, blend, j, k, strength=strength))


def reverse_adaptive_blend(image: Tensor, retouched: Tensor, j: Tensor, k: Tensor, damping: float, out: Tensor) -> None:
    out.copy_(reference.reverse_adaptive_blend(image, retouched, j, k, damping=damping))


def pyramid_down(image: Tensor, filter: str, out: Tensor) -> None:
    out.copy_(reference.pyramid_down(reference.to_unit(image, out.dtype), filter=filter))


def laplacian_decompose(image: Tensor, levels: int, filter: str, out: Sequence[Tensor]) -> None:
    gaussian, high = reference.laplacian_decompose(reference.to_unit(image, out[0].dtype), levels, filter=filter)
    for target, value in zip(out, [*gaussian[1:], *high], strict=True):
        target.copy_(value)


def upsample_refine(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    out: Tensor,
) -> None:
    out.copy_(reference.upsample_refine(blend_low, image, image_low, weight1, bias1, weight2, bias2))


def upsample_refine_blend(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    j: Tensor,
    k: Tensor,
    strength: float,
    mask: Tensor | None,
    mask_threshold: float | None,
    out: Tensor,
) -> None:
    out.copy_(
        reference.upsample_refine_blend(
            blend_low,
            image,
            image_low,
            weight1,
            bias1,
            weight2,
            bias2,
            j,
            k,
            strength=strength,
            mask=mask,
            mask_threshold=mask_threshold,
        )
    )


def gated_conv(
    features: Tensor,
    skip: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    negative_slope: float,
    out: Tensor,
) -> None:
    out.copy_(
        reference.gated_conv(features, skip, mask, weight, bias, skip_weight, skip_bias, negative_slope=negative_slope)
    )


def backward(operator: str) -> Callable[..., list[Tensor]]:
    """The gradient of any operator: the equation once more, under autograd, so that nothing is stored in between."""

    def gradients(
        grads: Sequence[Tensor],
        arguments: dict[str, Any],
        wanted: Sequence[str],
        results: Callable[[Any], list[Tensor]],
    ) -> list[Tensor]:
        with torch.enable_grad():
            inputs = {name: arguments[name].detach().requires_grad_() for name in wanted}
            outputs = results(getattr(reference, operator)(**{**arguments, **inputs}))
            # An output that reaches no wanted input has no graph; autograd refuses it rather than skip it.
            pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
            found = torch.autograd.grad(
                [output for output, _ in pairs],
                list(inputs.values()),
                [grad for _, grad in pairs],
                materialize_grads=True,
            )
        return [grad.contiguous() for grad in found]

    return in_strips(gradients) if operator in ("upsample_refine", "upsample_refine_blend") else gradients
