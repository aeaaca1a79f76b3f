"""The gradient of one step up the pyramid, a strip of rows at a time: no 16-channel layer is taller than a strip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

# A fine row depends on two rows of the convolutions' input and one more of the interpolation's; even, to cut between
# coarse rows.
_HALO = 4
_PIXELS = 1 << 17

Gradients = Callable[[Sequence[Tensor], dict[str, Any], Sequence[str], Callable[[Any], list[Tensor]]], list[Tensor]]


def in_strips(whole: Gradients, pixels: int | None = None) -> Gradients:
    """``whole``, the gradient of ``upsample_refine`` or ``upsample_refine_blend``, strip by strip and added up.

    Beyond its results it takes memory for so many ``pixels``, 2^17 by default. A mask has a size of its own: then the
    image is one strip.
    """

    def gradients(
        grads: Sequence[Tensor],
        arguments: dict[str, Any],
        wanted: Sequence[str],
        results: Callable[[Any], list[Tensor]],
    ) -> list[Tensor]:
        count, _, height, width = arguments["image"].shape
        rows = max((pixels or _PIXELS) // max(count * width, 1) // 2 * 2, 8)
        if height <= rows or arguments.get("mask") is not None:
            found = whole(grads, arguments, wanted, results)
            return [each.to(arguments[name].dtype) for name, each in zip(wanted, found, strict=True)]
        # Of half precision in float32 until all strips are in.
        found = [zeros_to_add_to(arguments[name]) for name in wanted]
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(top - _HALO, 0), min(bottom + _HALO, height)
            coarse = slice(first // 2, -(-last // 2))
            own = {"image": slice(first, last), "blend_low": coarse, "image_low": coarse}
            part = {name: value[:, :, own[name]] if name in own else value for name, value in arguments.items()}
            around = (0, 0, top - first, last - bottom)
            pieces = whole([pad(grad[:, :, top:bottom], around) for grad in grads], part, wanted, results)
            for name, sum_, piece in zip(wanted, found, pieces, strict=True):
                (sum_[:, :, own[name]] if name in own else sum_).add_(piece)
        return [sum_.to(arguments[name].dtype) for name, sum_ in zip(wanted, found, strict=True)]

    return gradients


def zeros_to_add_to(x: Tensor) -> Tensor:
    """Contiguous zeros of the shape of ``x``, in its dtype, or float32 where that is wider."""
    return torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
