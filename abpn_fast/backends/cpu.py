"""Backend ``cpu``: C++ kernels that keep everything between load and store in cache (``csrc/cpu``)."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from abpn_fast import native

INSTRUCTION_SETS = ("portable", "avx2", "avx512")
_VARIABLE = "ABPN_FAST_CPU_ISA"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


def why_not(operator: str, tensors: Sequence[Tensor]) -> str | None:
    """Why this backend cannot run ``operator`` on these tensors, in one sentence, or None."""
    if operator == "gated_conv":
        return "backend cpu has no gated_conv yet"
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"backend cpu runs on tensors on the CPU, got one on {tensor.device}"
        # j and k may have any floating dtype.
        if tensor.dtype not in _DTYPES and tensor.shape != (3,):
            return (
                f"backend cpu computes in float32, for float32, bfloat16, float16 and uint8 tensors, got {tensor.dtype}"
            )
    return native.why_missing()


def adaptive_blend(image: Tensor, blend: Tensor, j: Tensor, k: Tensor, strength: float, out: Tensor) -> None:
    _ops().adaptive_blend(image, blend, j, k, strength, out)


def reverse_adaptive_blend(image: Tensor, retouched: Tensor, j: Tensor, k: Tensor, damping: float, out: Tensor) -> None:
    _ops().reverse_adaptive_blend(image, retouched, j, k, damping, out)


def pyramid_down(image: Tensor, filter: str, out: Tensor) -> None:
    _ops().pyramid_down(image, filter == "box", out)


def laplacian_decompose(image: Tensor, levels: int, filter: str, out: Sequence[Tensor]) -> None:
    _ops().laplacian_decompose(image, levels, filter == "box", out)


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
    _ops().upsample_refine(blend_low, image, image_low, weight1, bias1, weight2, bias2, out)


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
    _ops().upsample_refine_blend(
        blend_low, image, image_low, weight1, bias1, weight2, bias2, j, k, strength, mask, mask_threshold, out
    )


def instruction_set() -> str:
    """The instruction set the kernels run on, one of ``INSTRUCTION_SETS``."""
    return INSTRUCTION_SETS[_ops().isa()]


def use_instruction_set(name: str, source: str = "instruction set") -> None:
    """Run the kernels on instruction set ``name`` from now on.

    Raises:
        ValueError: no such instruction set.
        RuntimeError: this machine does not have it.
    """
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"{source} must be one of {', '.join(INSTRUCTION_SETS)}, got {name!r}")
    best = torch.ops.abpn_fast_cpu.best_isa()
    if INSTRUCTION_SETS.index(name) > best:
        raise RuntimeError(f"{source} asks for {name}, this machine has {', '.join(INSTRUCTION_SETS[: best + 1])}")
    torch.ops.abpn_fast_cpu.use_isa(INSTRUCTION_SETS.index(name))


@functools.cache
def _ops() -> Any:
    reason = native.why_missing()
    if reason is not None:
        raise RuntimeError(reason)
    name = os.environ.get(_VARIABLE)
    if name:
        use_instruction_set(name, _VARIABLE)
    return torch.ops.abpn_fast_cpu
