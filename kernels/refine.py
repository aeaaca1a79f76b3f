"""Eq. 5, and Eq. 3 for the finest level, in one launch: the hidden layer lives in registers.

A program is one warp that walks down a strip of 64 columns, for plan dot 32, and waits for no other warp. When it has
read rows 2s and 2s + 1 of the input it knows hidden rows 2s - 1 and 2s, and by them rows 2s - 2 and 2s - 1 of the
result. The outermost columns lack a neighbour and are not kept. Any pixel goes through the same operations in the same
order wherever its strip or its block begins, as long as that is at an even row. A mask is laid over the finished strip:
it takes no registers while they are scarce.

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
from abpn_fast.kernels.launching import coefficients, start
from abpn_fast.kernels.pixels import load_pixels, stored_pixels
from abpn_fast.kernels.polynomial import blended, load_coefficients
from abpn_fast.kernels.refine_inputs import columns_of, input_row, upsampled
from abpn_fast.kernels.refine_mask import finished, is_active, keep

PLANS = ("fma", "dot")
_PLAN = "ABPN_FAST_REFINE_PLAN"
# Pairs of columns of a program, one warp: a thread per quad for fma, two threads per pair for dot.
_GROUPS = (32, 16)

# Two rows more than a strip has are worked on.
_TALLEST, _SHORTEST, _PROGRAMS = 128, 16, 4096


def plan_for(dtype: torch.dtype) -> str:
    """Tensor cores for half precision; ``ABPN_FAST_REFINE_PLAN`` overrides it, for measurements."""
    asked = os.environ.get(_PLAN)
    if asked and asked not in PLANS:
        raise ValueError(f"{_PLAN} must be one of {', '.join(PLANS)}, got {asked!r}; unset it for the automatic choice")
    return asked or ("fma" if dtype == torch.float32 else "dot")


def rows_per_strip(count: int, height: int, width: int, group: int) -> int:
    """Long strips, which work on few rows twice, but enough of them for every part of a large GPU."""
    blocks = count * -(-(width + 1) // (2 * group - 2))
    return min(max(_SHORTEST, -(-height * blocks // _PROGRAMS) // 2 * 2), _TALLEST)


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
    plan = plan_for(blend_low.dtype)
    ready = [(x.float() if plan == "fma" else x).contiguous() for x in weights]
    group = _GROUPS[PLANS.index(plan)]
    rows = rows_per_strip(count, height, width, group)
    pictures = (blend_low, image, image_low, out)
    j, k, strength = (coefficients(blend[0]), coefficients(blend[1]), blend[2]) if blend else (image, image, 0.0)
    programs = count * -(-height // rows) * -(-(width + 1) // (2 * group - 2))
    start(
        kernel,
        programs,
        image,
        pictures,
        tuple(tuple(x.stride()) for x in pictures),
        (height, width),
        rows,
        tuple(ready),
        (j, k),
        strength,
        image if mask is None else mask,
        (0, 0, 0, 0) if mask is None else tuple(mask.stride()),
        0 if mask is None else scale_bits(height, width, mask),
        0.0 if mask_threshold is None else mask_threshold,
        PLAN=PLANS.index(plan),
        # The interpreter multiplies no matrices of bfloat16; their products are exact in float32.
        WIDEN=int(blend_low.dtype == torch.bfloat16 and interpreted()),
        BLEND=int(blend is not None),
        MASKED=int(mask is not None),
        WIDE=int(max((x.shape[3] - 1) * x.stride(3) for x in pictures) >= 2**31),
        GROUP=group,
        num_warps=1,
        # Left to itself the compiler spills registers of dot, to have more warps at once.
        maxnreg=255 if plan == "dot" else None,
    )


def scale_bits(height: int, width: int, mask: Tensor) -> int:
    """The mask's scale is two to this."""
    bits = 0
    while (-(-height >> bits), -(-width >> bits)) != (mask.shape[2], mask.shape[3]):
        bits += 1
    return bits


@triton.jit(do_not_specialize=["strides", "shape", "rows", "mask_strides", "scale_bits", "strength", "threshold"])
def kernel(
    pictures,
    strides,
    shape,
    rows,
    weights,
    polynomials,
    strength,
    mask,
    mask_strides,
    scale_bits,
    threshold,
    PLAN: tl.constexpr,
    WIDEN: tl.constexpr,
    BLEND: tl.constexpr,
    MASKED: tl.constexpr,
    WIDE: tl.constexpr,
    GROUP: tl.constexpr,
):
    """The result of one strip of one block of columns."""
    H, W = shape
    program = tl.program_id(0)
    blocks, strips = tl.cdiv(W + 1, 2 * GROUP - 2), tl.cdiv(H, rows)
    block, strip, n = program % blocks, program // blocks % strips, program // blocks // strips
    first_row = strip * rows
    end_row = tl.minimum(first_row + rows, H)
    span = (n, block * (GROUP - 1) - 1 + tl.arange(0, GROUP), first_row, end_row)
    masking = (mask, mask_strides, scale_bits, threshold)
    active = True
    if MASKED:
        active = is_active(masking, shape, n, block * (2 * GROUP - 2) - 1, first_row, end_row, 2 * GROUP)
    if active:
        _refine(pictures, strides, shape, span, weights, polynomials, strength, PLAN, WIDEN, BLEND, WIDE)
        if MASKED:
            # What this warp has stored, other lanes of it may overwrite.
            tl.debug_barrier()
            keep(pictures, strides, shape, span, masking, True, WIDE)
    else:
        keep(pictures, strides, shape, span, masking, False, WIDE)


@triton.jit
def _refine(
    pictures,
    strides,
    shape,
    span,
    weights,
    polynomials,
    strength,
    PLAN: tl.constexpr,
    WIDEN: tl.constexpr,
    BLEND: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, g, first_row, end_row = span
    GROUP: tl.constexpr = g.shape[0]
    finishing = (pictures, strides, shape, span, weights[3], polynomials, strength)
    nothing = tl.zeros((GROUP,), tl.float32)
    # Two steps before the first result is whole. As far as the compiler can see, g may change with every step: else it
    # works out all addresses before the loop, and their registers are missing in it.
    s, end = first_row // 2 - 1, (end_row + 1) // 2
    if PLAN == 0:
        before, sums, none = (nothing,) * 48, (nothing,) * 24, (nothing,) * 24
        while s <= end:
            top, bottom = (), ()
            for high in tl.static_range(2):
                top += input_row(pictures, strides, shape, n, 2 * s, g, high == 1, WIDE)
                bottom += input_row(pictures, strides, shape, n, 2 * s + 1, g, high == 1, WIDE)
            inside = _inside(shape, 2 * s - 1, g) + _inside(shape, 2 * s, g)
            done = refine_fma.convolve(before + top + bottom, sums + none, weights[0], weights[1], weights[2], inside)
            for row in tl.static_range(2):
                own, given = refine_fma.pairs(done[row * 12 : row * 12 + 12])
                _finish(finishing, g, own, given, 2 * s - 2 + row, BLEND, WIDE)
            sums, before = done[24:], top + bottom
            g += (s > shape[0]).to(tl.int32)
            s += 1
    else:
        dtype: tl.constexpr = pictures[0].dtype.element_ty
        operand: tl.constexpr = tl.float32 if WIDEN else dtype
        weights1, bias = refine_dot.load_weights1(weights[0], weights[1], operand, GROUP)
        weights2 = refine_dot.load_weights2(weights[2], operand)
        hidden, sums = (tl.zeros((GROUP, 16), dtype),) * 4, (bias,) * 4
        high = tl.arange(0, 2)[None, :] == 1
        y = 2 * s
        while y < 2 * end + 2:
            row = input_row(pictures, strides, shape, n, y, g[:, None], high, WIDE)
            done, sums = refine_dot.convolve1(row, sums, weights1, bias, _inside(shape, y - 1, g), dtype)
            own, given = refine_dot.convolve2(hidden + done, weights2, GROUP)
            _finish(finishing, g, own, given, y - 2, BLEND, WIDE)
            hidden = hidden[2:] + done
            g += (y > 2 * shape[0]).to(tl.int32)
            y += 1


@triton.jit
def _inside(shape, y, g):
    """Whether the even and the odd pixel of a row exist."""
    row = (y >= 0) & (y < shape[0])
    return row & (g >= 0) & (2 * g < shape[1]), row & (g >= 0) & (2 * g + 1 < shape[1])


@triton.jit
def _finish(finishing, g, own, given, y, BLEND: tl.constexpr, WIDE: tl.constexpr):
    """Neighbours, bias, residual and blend of a row of pairs, (GROUP, 8), [channel * 2 + odd]; out with it."""
    pictures, strides, shape, span, bias2, polynomials, strength = finishing
    n, _, first_row, end_row = span
    lane, c, odd, x, here = finished(g, shape)
    neighbour = tl.minimum(tl.maximum(lane - 1 + 2 * odd, 0), g.shape[0] - 1)
    here = here & (y >= first_row) & (y < end_row)
    c, n, y64 = c.to(tl.int64), n.to(tl.int64), y.to(tl.int64)
    inside = tl.minimum(tl.maximum(x, 0), shape[1] - 1)
    residual = upsampled(pictures[0], strides[0], shape, n, y64, inside, c, WIDE)
    value = own + tl.gather(given, neighbour, 0) + tl.load(bias2 + c).to(tl.float32) + residual
    if BLEND:
        row = pictures[1] + n * strides[1][0] + y64 * strides[1][2]
        pixels = load_pixels(row + c * strides[1][1] + columns_of(x, shape[1], strides[1][3], WIDE), here)
        value = blended(pixels, strength * value, load_coefficients(polynomials[0]), load_coefficients(polynomials[1]))
    row = pictures[3] + n * strides[3][0] + y64 * strides[3][2]
    pointers = row + c * strides[3][1] + columns_of(x, shape[1], strides[3][3], WIDE)
    tl.store(pointers, stored_pixels(value, pictures[3].dtype.element_ty), mask=here)
