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
from torch.nn.functional import pad

from abpn_fast import native
from abpn_fast.backends import fused_blend_gradients, fused_refining_gradients
from abpn_fast.backends.packed_filters import (
    DirectFilters,
    Filters,
    PackedFilters,
    pack,
    pack_directly,
    unpack,
    without_phases,
)
from abpn_fast.prepared import Arranged, from_tensors

INSTRUCTION_SETS = ("portable", "avx2", "avx512", "avx512_bf16", "neon")
_VARIABLE = "ABPN_FAST_CPU_ISA"
_PRECISION = "ABPN_FAST_CPU_PRECISION"
# Of fewer channels the transformed pixels cost more than they save.
_LEAST_CHANNELS = 8
# Filters beyond it go tap by tap.
_LARGEST_TAP = 64.0
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.uint16)


def why_not(operator: str, tensors: Sequence[Tensor]) -> str | None:
    """Why this backend cannot run ``operator`` on these tensors, in one sentence, or None."""
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"backend cpu runs on tensors on the CPU, got one on {tensor.device}"
        # j and k may have any floating dtype.
        if tensor.dtype not in _DTYPES and tensor.shape != (3,):
            return (
                f"backend cpu computes in float32, for float32, bfloat16, float16, uint8 and uint16 tensors, "
                f"got {tensor.dtype}"
            )
    return native.why_missing()


def adaptive_blend(image: Tensor, blend: Tensor, j: Tensor, k: Tensor, strength: float, out: Tensor) -> None:
    _ops().adaptive_blend(image, blend, j, k, strength, out)


def adaptive_blend_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return fused_blend_gradients.gradients(_ops(), grads[0], arguments, wanted, "blend", "strength")


def reverse_adaptive_blend(image: Tensor, retouched: Tensor, j: Tensor, k: Tensor, damping: float, out: Tensor) -> None:
    _ops().reverse_adaptive_blend(image, retouched, j, k, damping, out)


def reverse_adaptive_blend_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return fused_blend_gradients.gradients(_ops(), grads[0], arguments, wanted, "retouched", "damping")


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


def upsample_refine_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return fused_refining_gradients.upsample_refine(_ops(), grads[0], arguments, wanted)


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


def upsample_refine_blend_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return fused_refining_gradients.upsample_refine_blend(_ops(), grads[0], arguments, wanted)


def _in_bf16(layer: Tensor) -> bool:
    """Whether a level may be made of products of bfloat16 numbers."""
    return layer.dtype == torch.bfloat16 or (layer.dtype == torch.float32 and precision() == "bf16")


def _by_dots(x: Tensor) -> bool:
    """Whether ``x`` is multiplied by dot products of pairs."""
    return _in_bf16(x) and instruction_set() == "avx512_bf16"


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
    filters, sizes = (weight, bias, skip_weight, skip_bias), (features.shape[1], skip.shape[1])
    if _is_even(skip) and out.shape[1] >= _LEAST_CHANNELS:
        bf16 = _by_dots(skip)
        packed = from_tensors(("packed", sizes, bf16), filters, lambda: _arranged(filters, 1, *sizes, bf16))
        _convolve(features, skip, mask, packed, negative_slope, out)
    else:
        even = _is_even(skip)
        direct = from_tensors(("direct", sizes, even), filters, lambda: pack_directly(filters, 1, *sizes, even))
        _convolve_directly(features, skip, mask, direct, negative_slope, out)


def convolution(weight: Tensor, bias: Tensor, stride: int, negative_slope: float) -> Callable[[Tensor], Tensor]:
    """``leaky_relu(conv(x))`` of 3x3 or 1x1 filters; ``weight`` and ``bias`` must not change from now on."""
    filters = pad(weight, (1 - weight.shape[3] // 2,) * 4), bias, None, None
    kept, channels = Arranged[Filters, DirectFilters](filters), weight.shape[1]

    def run(x: Tensor) -> Tensor:
        height, width = (-(-size // stride) for size in x.shape[2:])
        out = x.new_empty((x.shape[0], len(bias), height, width))
        direct = kept.get(lambda filters: pack_directly(filters, 0, 0, channels, even=True))
        _convolve_directly(None, x, None, direct, negative_slope, out)
        return out

    return run


def joined_convolution(weight: Tensor, bias: Tensor, negative_slope: float) -> Callable[[Tensor, Tensor], Tensor]:
    """``leaky_relu(conv3x3(Cat(up(f), F_skip)))`` of even sizes; the filters must not change."""
    join = _joined((weight, bias, None, None), 0, negative_slope)
    return lambda features, skip: join(features, skip, None)


def attention(
    weight: Tensor, bias: Tensor, skip_weight: Tensor | None, skip_bias: Tensor | None, negative_slope: float
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """``gated_conv`` of even sizes with filters that must not change."""
    filters = weight, bias, skip_weight, skip_bias
    if len(bias) >= 2 * _LEAST_CHANNELS:
        return _joined(filters, 1, negative_slope)
    kept = Arranged[Filters, DirectFilters](filters)

    def run(features: Tensor, skip: Tensor, mask: Tensor | None) -> Tensor:
        out = skip.new_empty((skip.shape[0], len(bias) // 2, *skip.shape[2:]))
        direct = kept.get(lambda filters: pack_directly(filters, 1, features.shape[1], skip.shape[1], even=True))
        _convolve_directly(features, skip, mask, direct, negative_slope, out)
        return out

    return run


def arrangement(weight: Tensor) -> tuple[bool, ...]:
    """What the functions above make of filters like ``weight`` depends on, besides the filters."""
    return (_by_dots(weight),)


def _joined(filters: Filters, gates: int, negative_slope: float) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    kept, channels = Arranged[Filters, PackedFilters | DirectFilters](filters), len(filters[1]) // (1 + gates)
    bf16 = _by_dots(filters[0])

    def run(features: Tensor, skip: Tensor, mask: Tensor | None) -> Tensor:
        out = skip.new_empty((skip.shape[0], channels, *skip.shape[2:]))
        packed = kept.get(lambda filters: _arranged(filters, gates, features.shape[1], skip.shape[1], bf16))
        _convolve(features, skip, mask, packed, negative_slope, out)
        return out

    return run


def _arranged(
    filters: Filters, gates: int, channels: int, skip_channels: int, bf16: bool
) -> PackedFilters | DirectFilters:
    """For the fast products; tap by tap where a sum of taps would lose what a small one or an infinity means."""
    if all(x is None or float(x.abs().max()) <= _LARGEST_TAP for x in filters):
        return pack(filters, gates, channels, skip_channels, bf16)
    return pack_directly(filters, gates, channels, skip_channels, even=False)


def _is_even(skip: Tensor) -> bool:
    """Whether height and width of a level are, so that its pixels are whole sets of phases."""
    return skip.shape[2] % 2 == 0 and skip.shape[3] % 2 == 0


def _convolve(
    features: Tensor,
    skip: Tensor,
    mask: Tensor | None,
    packed: PackedFilters | DirectFilters,
    negative_slope: float,
    out: Tensor,
) -> None:
    if isinstance(packed, DirectFilters):
        return _convolve_directly(features, skip, mask, packed, negative_slope, out)
    if out.numel() == 0:
        return
    given = None if packed.features is None else features
    ordinary = _ops().gated_conv(
        given,
        skip,
        mask,
        packed.features,
        packed.skip,
        packed.bias,
        packed.groups,
        negative_slope,
        packed.skip.dtype == torch.bfloat16,
        out,
    )
    if not ordinary:
        # Rare: infinite values, NaN or huge ones. Made from the packed filters, so that there need be no others.
        sizes = 0 if given is None else features.shape[1], skip.shape[1]
        direct = pack_directly(unpack(packed), min(packed.groups, 2) - 1, *sizes, even=False)
        _convolve_directly(given, skip, mask, direct, negative_slope, out)


def _convolve_directly(
    features: Tensor | None,
    skip: Tensor,
    mask: Tensor | None,
    direct: DirectFilters,
    negative_slope: float,
    out: Tensor,
) -> None:
    if out.numel() == 0:
        return
    features = None if direct.features is None else features
    while not _ops().gated_conv_directly(features, skip, mask, *direct, negative_slope, out):
        direct = without_phases(direct)


def give_back() -> None:
    """Return what is free in the heap to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def precision() -> str:
    """``ABPN_FAST_CPU_PRECISION``: what float32 models compute in, ``"float32"`` (the default) or ``"bf16"``.

    It is followed on instruction set ``avx512_bf16``; the others have no faster arithmetic for it.

    Raises:
        ValueError: another value.
    """
    name = os.environ.get(_PRECISION) or "float32"
    if name not in ("float32", "bf16"):
        raise ValueError(f"{_PRECISION} must be float32 or bf16, got {name!r}; unset it for float32")
    return name


def instruction_set() -> str:
    """The instruction set the kernels run on, one of ``INSTRUCTION_SETS``."""
    return INSTRUCTION_SETS[_ops().isa()]


def available_instruction_sets() -> list[str]:
    """Those of ``INSTRUCTION_SETS`` that this machine has, in that order; the library must be loaded."""
    return [name for index, name in enumerate(INSTRUCTION_SETS) if torch.ops.abpn_fast_cpu.has_isa(index)]


def use_instruction_set(name: str, source: str = "instruction set") -> None:
    """Run the kernels on instruction set ``name`` from now on.

    Raises:
        ValueError: no such instruction set.
        RuntimeError: this machine does not have it.
    """
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"{source} must be one of {', '.join(INSTRUCTION_SETS)}, got {name!r}")
    if source != _VARIABLE:
        _ops()
    available = available_instruction_sets()
    if name not in available:
        raise RuntimeError(f"{source} asks for {name}, this machine has {', '.join(available)}")
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
