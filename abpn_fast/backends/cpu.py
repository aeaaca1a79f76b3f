"""Backend ``cpu``: C++ kernels that keep everything between load and store in cache (``csrc/cpu``)."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu

from abpn_fast import native, reference
from abpn_fast.backends import joined, onednn
from abpn_fast.prepared import Arranged, from_tensors

INSTRUCTION_SETS = ("portable", "avx2", "avx512", "avx512_bf16")
_VARIABLE = "ABPN_FAST_CPU_ISA"
_PRECISION = "ABPN_FAST_CPU_PRECISION"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


def why_not(operator: str, tensors: Sequence[Tensor]) -> str | None:
    """Why this backend cannot run ``operator`` on these tensors, in one sentence, or None."""
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
    bf16 = _in_bf16(blend_low)
    _ops().upsample_refine(blend_low, image, image_low, weight1, bias1, weight2, bias2, bf16, out)


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
    bf16 = _in_bf16(blend_low)
    _ops().upsample_refine_blend(
        blend_low, image, image_low, weight1, bias1, weight2, bias2, j, k, strength, mask, mask_threshold, bf16, out
    )


def _in_bf16(layer: Tensor) -> bool:
    """Whether a level may be made of products of bfloat16 numbers."""
    return layer.dtype == torch.bfloat16 or (layer.dtype == torch.float32 and precision() == "bf16")


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
    filters = weight, bias, skip_weight, skip_bias
    masked = mask is not None
    if 0 in features.shape[:2] or skip.shape[1] == 0:
        out.copy_(reference.gated_conv(features, skip, mask, *filters, negative_slope=negative_slope))
    elif out.shape[1] == 3 and out.shape[2] % 2 == 0 and out.shape[3] % 2 == 0:
        if mask is not None:
            mask = interpolate(mask.float(), size=out.shape[2:], mode="bilinear", align_corners=False)
        _ops().gated_conv_picture(features, skip, mask, *filters, negative_slope, out)
    else:
        name = "join", joined.is_even(skip), masked, skip.dtype, onednn.computing_dtype(skip.dtype)
        join = from_tensors(name, filters, lambda: joined.arrange(features, skip, masked, filters, 1))
        joined.run(_ops(), features, skip, mask, join, negative_slope, out)


def convolution(weight: Tensor, bias: Tensor, stride: int, negative_slope: float) -> Callable[[Tensor], Tensor]:
    """``leaky_relu(conv3x3(x))``, channels last; ``weight`` and ``bias`` must not change from now on."""
    if onednn.computing_dtype(weight.dtype) != weight.dtype:
        return lambda x: leaky_relu(conv2d(x, weight, bias, stride, padding=1), negative_slope)
    kept, channels = Arranged[tuple[Tensor, Tensor], onednn.Convolution]((weight, bias)), len(bias)

    def run(x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        if count == 0:
            return x.new_empty((0, channels, -(-height // stride), -(-width // stride)))

        def arrange(filters: tuple[Tensor, Tensor]) -> onednn.Convolution:
            return onednn.Convolution(*filters, size=x.shape, stride=stride, negative_slope=negative_slope)

        return kept.get(arrange)(x)

    return run


def joined_convolution(weight: Tensor, bias: Tensor, negative_slope: float) -> Callable[[Tensor, Tensor], Tensor]:
    """``leaky_relu(conv3x3(Cat(up(f), F_skip)))``, channels last, even sizes; the filters must not change."""
    join = _joined((weight, bias, None, None), 0, negative_slope)
    return lambda features, skip: join(features, skip, None)


def attention(
    weight: Tensor, bias: Tensor, skip_weight: Tensor | None, skip_bias: Tensor | None, negative_slope: float
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """``gated_conv`` of even sizes with filters that must not change; None where it keeps nothing made from them."""
    return None if len(bias) == 6 else _joined((weight, bias, skip_weight, skip_bias), 1, negative_slope)


def _joined(
    filters: joined.Filters, gates: int, negative_slope: float
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    kept, channels = Arranged[joined.Filters, joined.Join](filters), len(filters[1]) // (1 + gates)

    def run(features: Tensor, skip: Tensor, mask: Tensor | None) -> Tensor:
        shape = skip.shape[0], channels, *skip.shape[2:]
        out = torch.empty(shape, dtype=skip.dtype, memory_format=torch.channels_last)
        if skip.shape[0]:
            join = kept.get(lambda filters: joined.arrange(features, skip, mask is not None, filters, gates))
            joined.run(_ops(), features, skip, mask, join, negative_slope, out)
        return out

    return run


def give_back() -> None:
    """Return what is free in the heap to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def precision() -> str:
    """``ABPN_FAST_CPU_PRECISION``: what float32 models compute in, ``"float32"`` (the default) or ``"bf16"``.

    The retouching layer follows it where the CPU has bfloat16 arithmetic, the pyramid on set ``avx512_bf16``.

    Raises:
        ValueError: another value.
    """
    name = os.environ.get(_PRECISION) or "float32"
    if name not in ("float32", "bf16"):
        raise ValueError(f"{_PRECISION} must be float32 or bf16, got {name!r}; unset it for float32")
    return name


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the folded retouching layer of a model in ``dtype`` computes in, on this machine."""
    wanted = precision() == "bf16"
    return torch.bfloat16 if wanted and dtype == torch.float32 and _has_bf16() else dtype


@functools.cache
def _has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers, rather than only storing them."""
    named: bool = onednn.available() and torch.cpu._is_avx512_bf16_supported()
    return named


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
