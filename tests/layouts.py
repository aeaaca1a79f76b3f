"""The same values laid out in memory in every way a caller may hand them over."""

from __future__ import annotations

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "sliced", "expanded")


class Guarded:
    """``view`` holds the values of ``x`` inside a larger buffer of sentinels; ``intact`` tells whether they stand.

    The sentinel is large enough to spoil any sum it leaks into, finite so that it can be compared, exact in any dtype.
    """

    def __init__(self, x: Tensor) -> None:
        inside = tuple(slice(2, 2 + 2 * size, 2) if x.dim() == 1 else slice(2, 2 + size) for size in x.shape)
        shape = [2 * size + 4 if x.dim() == 1 else size + 5 for size in x.shape]
        sentinel = 16384 if x.is_floating_point() else 99
        self.buffer = torch.full(shape, sentinel, dtype=x.dtype, device=x.device)
        self.outside = torch.ones_like(self.buffer, dtype=torch.bool)
        self.outside[inside] = False
        self.sentinel = sentinel
        self.view = self.buffer[inside]
        self.view.copy_(x)

    @property
    def intact(self) -> bool:
        return bool(((self.buffer == self.sentinel) | ~self.outside).all())


def arrange(x: Tensor, layout: str) -> Tensor:
    """``x``, 1-D or (N, C, H, W), in another layout; ``"expanded"`` repeats the first image and column by stride 0."""
    if layout == "expanded":
        return x[:1].expand(x.shape) if x.dim() == 1 else x[:1, :, :, :1].expand(x.shape)
    if layout == "channels_last" and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def arrange_all(inputs: dict[str, object], layout: str) -> tuple[dict[str, object], list[Guarded]]:
    """Every tensor of ``inputs`` in ``layout``, and the guards to look at afterwards."""
    if layout != "sliced":
        return {k: arrange(v, layout) if isinstance(v, Tensor) else v for k, v in inputs.items()}, []
    guards = {name: Guarded(value) for name, value in inputs.items() if isinstance(value, Tensor)}
    return inputs | {name: guard.view for name, guard in guards.items()}, list(guards.values())


def far_apart(x: Tensor, dim: int) -> Tensor:
    """``x`` with 2^30 from one to the next along ``dim``: two of them no longer fit 32 bits.

    On a CPU the gap takes no memory before somebody touches it.
    """
    strides = list(x.stride())
    strides[dim] = 2**30
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, strides, strict=True))
    return torch.empty(reach + 1, dtype=x.dtype, device=x.device).as_strided(x.shape, strides).copy_(x)
