"""The gradients of ABM and R-ABM by backend ``cpu``'s kernel: one pass, nothing stored in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def gradients(
    kernels: Any, grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str], other: str, number: str
) -> list[Tensor]:
    """The gradients of ``wanted``, contiguous, in their dtypes, sums in one order whatever the number of threads.

    Args:
        kernels: ``torch.ops.abpn_fast_cpu``.
        grad: of the result, (N, 3, H, W).
        arguments: those of the operator, by name.
        other, number: the names of the picture beside ``image`` and of the plain number; a damping means R-ABM.
    """
    pictures = {name: arguments[name] for name in ("image", other)}
    found = {
        name: torch.empty_like(picture, memory_format=torch.contiguous_format)
        for name, picture in pictures.items()
        if name in wanted
    }
    j, k, sums = arguments["j"], arguments["k"], torch.empty(6, dtype=torch.float64, device="cpu")
    targets = [found.get(name) for name in pictures]
    kernels.blend_gradients(grad, *pictures.values(), j, k, arguments[number], number == "damping", *targets, sums)
    found |= {"j": sums[:3].to(j.dtype, copy=True), "k": sums[3:].to(k.dtype, copy=True)}
    return [found[name] for name in wanted]
