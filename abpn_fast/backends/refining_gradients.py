"""The gradient of the refining operators strip by strip: the 16-channel layer exists for a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from abpn_fast import reference
from abpn_fast.backends.gradient_strips import zeros_to_add_to

# Even, as the rows of two levels go together.
_ROWS = 256
# Low rows above and below a strip that its pixels depend on.
_HALO = 2
_FINE, _LOW = ("image",), ("blend_low", "image_low")


def refining_gradients(grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str]) -> list[Tensor]:
    """The gradients of ``wanted``, contiguous, in their dtypes; the strips are added in one order.

    On a GPU the last bits may still vary: PyTorch's gradient of an interpolation adds atomically there. The equation is
    computed once more under autograd, on PyTorch. Beside the gradients, in float32 until all strips are in, it takes
    what PyTorch keeps of one strip.

    Args:
        grad: of the result, (N, 3, H, W), contiguous.
        arguments: those of ``upsample_refine`` or ``upsample_refine_blend``, by name.
    """
    totals = {name: zeros_to_add_to(arguments[name]) for name in wanted}
    inputs = {name: value for name, value in arguments.items() if name not in ("mask", "mask_threshold")}
    sought = [name for name in wanted if name != "mask"]
    below = pixels_below(arguments)
    for first in range(0, grad.shape[2] if sought else 0, _ROWS):
        _add_strip(totals, grad, inputs, sought, below, first)
    return [totals[name].to(arguments[name].dtype) for name in wanted]


def pixels_below(arguments: dict[str, Any]) -> Tensor | None:
    """Which pixels, (N, 1, H, W), keep the image, its mask being below the threshold; None where all are retouched."""
    mask, threshold, image = (arguments.get(name) for name in ("mask", "mask_threshold", "image"))
    if mask is None or threshold is None or image is None:
        return None
    size = (image.shape[2], image.shape[3])
    scale = reference.mask_scale(size, (mask.shape[2], mask.shape[3]))
    assert scale is not None, "the operator has checked it"
    below: Tensor = reference.upsample(mask, size, scale) < threshold
    return below


def _add_strip(
    totals: dict[str, Tensor],
    grad: Tensor,
    inputs: dict[str, Any],
    sought: Sequence[str],
    below: Tensor | None,
    first: int,
) -> None:
    """Add what the rows from ``first`` on give."""
    height = grad.shape[2]
    last = min(first + _ROWS, height)
    low = slice(max(first // 2 - _HALO, 0), min((last + 1) // 2 + _HALO, (height + 1) // 2))
    rows = dict.fromkeys(_FINE, slice(2 * low.start, min(2 * low.stop, height))) | dict.fromkeys(_LOW, low)
    strip = {name: value[:, :, rows[name]] if name in rows else value for name, value in inputs.items()}
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        strip |= {name: strip[name].detach().requires_grad_() for name in sought}
        operator = reference.upsample_refine_blend if "j" in strip else reference.upsample_refine
        inner = slice(first - rows["image"].start, last - rows["image"].start)
        result = operator(**strip)[:, :, inner]
        if below is not None:
            result = torch.where(below[:, :, first:last], strip["image"][:, :, inner], result)
        if not result.requires_grad:
            # Under a dispatch mode, as of torch.library.opcheck, nothing is recorded.
            return
        found = torch.autograd.grad(
            result, [strip[name] for name in sought], grad[:, :, first:last], materialize_grads=True
        )
    for name, part in zip(sought, found, strict=True):
        (totals[name][:, :, rows[name]] if name in rows else totals[name]).add_(part)
