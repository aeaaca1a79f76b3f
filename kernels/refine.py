"""Eq. 5, and Eq. 3 for the finest level, in one launch: the hidden layer lives in registers.

A program is one warp that walks down a strip of 64 columns, for plan dot 32, twice as many where warps have 64 threads,
and waits for no other warp. When it has read rows 2s and 2s + 1 of the input it knows hidden rows 2s - 1 and 2s, and by
them rows 2s - 2 and 2s - 1 of the result. The outermost columns lack a neighbour and are not kept. Any pixel goes
through the same operations in the same order wherever its strip or its block begins, as long as that is at an even row.
A mask is laid over the finished strip: it takes no registers while they are scarce, and its addresses begin with what
the walk returns, which only then exists.

Plan fma multiplies in float32, plan dot in products of matrices in the weights' dtype, which tensor cores have for half
precision.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from abpn_fast.backends.triton import interpreted
from abpn_fast.kernels import refine_dot, refine_fma
from abpn_fast.kernels.launching import coefficients, from_ampere_on, start, tuned, warp
from abpn_fast.kernels.refine_mask import is_active, keep

PLANS = ("fma", "dot")
_PLAN = "ABPN_FAST_REFINE_PLAN"
# From how far apart on 32 bits no longer hold it for two planes.
_FAR = 2**30

# What differs between photos of one kind, and between masks: the same code serves them all.
_FREE = [f"{picture}_{axis}" for picture in ("blend_low", "image", "image_low", "out", "mask") for axis in "nchw"]
_FREE = [name for name in _FREE if name != "mask_c"] + [
    "height",
    "width",
    "rows",
    "scale_bits",
    "strength",
    "threshold",
]

# Four rows more than a strip has are worked on.
_TALLEST, _SHORTEST, _PROGRAMS = 128, 16, 4096


def plan_for(blend_low: Tensor) -> str:
    """Tensor cores for half precision; ``ABPN_FAST_REFINE_PLAN`` overrides it, for measurements.

    Plan dot arranges its operands as NVIDIA's tensor cores have taken them since Ampere. For AMD's and for Turing's,
    which take half as many at a time, it would need more registers than there are.
    """
    asked = os.environ.get(_PLAN)
    if asked and asked not in PLANS:
        raise ValueError(f"{_PLAN} must be one of {', '.join(PLANS)}, got {asked!r}; unset it for the automatic choice")
    return asked or ("dot" if blend_low.dtype != torch.float32 and from_ampere_on(blend_low) else "fma")


def group_of(plan: str, threads: int) -> int:
    """Pairs of columns of a program, one warp: a thread per quad for fma, four threads per four columns for dot."""
    return threads if plan == "fma" else threads // 2


def rows_per_strip(count: int, height: int, width: int, group: int, programs: int = _PROGRAMS) -> int:
    """Long strips, which work on few rows twice, but enough of them for every part of a large GPU."""
    blocks = count * -(-(width + 1) // (2 * group - 2))
    return min(max(_SHORTEST, -(-height * blocks // programs) // 2 * 2), _TALLEST)


def launch(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    out: Tensor,
    *,
    blend: tuple[Tensor, Tensor, float] | None = None,
    mask: Tensor | None = None,
    mask_threshold: float | None = None,
) -> None:
    """Fill ``out`` with B_i, or where ``blend``, (j, k, strength), is given with R_0."""
    count, _, height, width = image.shape
    plan = plan_for(blend_low)
    ready = [(x.float() if plan == "fma" else x).contiguous() for x in weights]
    if plan == "fma":
        ready[0] = in_pairs(ready[0])
    threads = warp(image)
    group = group_of(plan, threads)
    rows = rows_per_strip(count, height, width, group, **tuned("refine", image, programs=_PROGRAMS))
    pictures = (blend_low, image, image_low, out)
    planar = all(x.stride(3) == 1 for x in pictures)
    # Plan dot loads two columns of the image at once where they lie in one word.
    unit = 2 if plan == "dot" and planar and all(stride % 2 == 0 for stride in image.stride()[:3]) else 1
    strides = [stride for x in pictures for stride in x.stride()]
    strides[4:7] = (stride // unit for stride in image.stride()[:3])
    j, k, strength = (coefficients(blend[0]), coefficients(blend[1]), blend[2]) if blend else (image, image, 0.0)
    programs = count * -(-height // rows) * -(-(width + 1) // (2 * group - 2))
    start(
        kernel,
        programs,
        image,
        *pictures,
        *strides,
        *(height, width, rows),
        *ready,
        *(j, k, strength),
        image if mask is None else mask,
        *((0, 0, 0) if mask is None else (mask.stride(0), mask.stride(2), mask.stride(3))),
        0 if mask is None else scale_bits(height, width, mask),
        0.0 if mask_threshold is None else mask_threshold,
        PLAN=PLANS.index(plan),
        # The interpreter multiplies no matrices of bfloat16; their products are exact in float32.
        WIDEN=int(blend_low.dtype == torch.bfloat16 and interpreted()),
        BLEND=int(blend is not None),
        MASKED=int(mask is not None),
        WIDE=int(max(map(reach, pictures)) >= _FAR),
        PLANAR=int(planar),
        UNIT=unit,
        GROUP=group,
        threads=threads,
    )


def reach(picture: Tensor) -> int:
    """The furthest that two pixels of a plane, or two planes side by side, are apart."""
    _, along_c, along_y, along_x = picture.stride()
    return max(along_c, (picture.shape[2] - 1) * along_y + (picture.shape[3] - 1) * along_x)


def in_pairs(weight: Tensor) -> Tensor:
    """A contiguous float32 tensor of an even size, two numbers in each int64; copied only if misaligned for 64 bits."""
    if weight.storage_offset() % 2 or weight.data_ptr() % 8:
        weight = weight.clone()
    return weight.view(-1).view(torch.int64)


def scale_bits(height: int, width: int, mask: Tensor) -> int:
    """The mask's scale is two to this."""
    bits = 0
    while (-(-height >> bits), -(-width >> bits)) != (mask.shape[2], mask.shape[3]):
        bits += 1
    return bits


@triton.jit(do_not_specialize=_FREE)
def kernel(
    blend_low,
    image,
    image_low,
    out,
    blend_low_n,
    blend_low_c,
    blend_low_h,
    blend_low_w,
    image_n,
    image_c,
    image_h,
    image_w,
    image_low_n,
    image_low_c,
    image_low_h,
    image_low_w,
    out_n,
    out_c,
    out_h,
    out_w,
    height,
    width,
    rows,
    weight1,
    bias1,
    weight2,
    bias2,
    j,
    k,
    strength,
    mask,
    mask_n,
    mask_h,
    mask_w,
    scale_bits,
    threshold,
    PLAN: tl.constexpr,
    WIDEN: tl.constexpr,
    BLEND: tl.constexpr,
    MASKED: tl.constexpr,
    WIDE: tl.constexpr,
    PLANAR: tl.constexpr,
    UNIT: tl.constexpr,
    GROUP: tl.constexpr,
):
    """The result of one strip of one block of columns."""
    pictures, weights, polynomials = (blend_low, image, image_low, out), (weight1, bias1, weight2, bias2), (j, k)
    strides = (
        _strides(blend_low_n, blend_low_c, blend_low_h, blend_low_w, WIDE, PLANAR, 1),
        _strides(image_n, image_c, image_h, image_w, WIDE, PLANAR, UNIT),
        _strides(image_low_n, image_low_c, image_low_h, image_low_w, WIDE, PLANAR, 1),
        _strides(out_n, out_c, out_h, out_w, WIDE, PLANAR, 1),
    )
    shape = height, width
    program = tl.program_id(0)
    blocks, strips = tl.cdiv(width + 1, 2 * GROUP - 2), tl.cdiv(height, rows)
    block, strip, n = program % blocks, program // blocks % strips, program // blocks // strips
    first_row = strip * rows
    end_row = tl.minimum(first_row + rows, height)
    x = block * (2 * GROUP - 2) - 2
    span = (n, x, first_row, end_row)
    masking = (mask, (mask_n, 0, mask_h, mask_w), scale_bits, threshold)
    active = True
    if MASKED:
        active = is_active(masking, shape, n, x + 1, first_row, end_row, 2 * GROUP)
    if active:
        if PLAN == 0:
            x = refine_fma.walk(pictures, strides, shape, span, weights, polynomials, strength, BLEND, WIDE, GROUP)
        else:
            x = refine_dot.walk(
                pictures, strides, shape, span, weights, polynomials, strength, WIDEN, BLEND, WIDE, GROUP
            )
        if MASKED:
            # What this warp has stored, other lanes of it may overwrite.
            tl.debug_barrier()
            keep(pictures, strides, shape, (n, x, first_row, end_row), masking, True, WIDE, GROUP)
    else:
        keep(pictures, strides, shape, span, masking, False, WIDE, GROUP)


@triton.jit
def _strides(n, c, h, w, WIDE: tl.constexpr, PLANAR: tl.constexpr, UNIT: tl.constexpr):
    """Elements from one image, channel, row and column to the next."""
    if WIDE:
        c, h = c.to(tl.int64), h.to(tl.int64)
    if UNIT > 1:
        n, c, h = n.to(tl.int64) * UNIT, c.to(tl.int64) * UNIT, h * UNIT
    return n, c, h, 1 if PLANAR else w
