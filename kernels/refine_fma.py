"""Plan fma: a warp walks down a strip of 64 columns, two rows a step, in float32 multiply-adds; a thread has a quad."""

from __future__ import annotations

import triton
import triton.language as tl

from abpn_fast.kernels.pixels import load_pixels, stored_pixels
from abpn_fast.kernels.polynomial import blended, load_coefficients
from abpn_fast.kernels.refine_inputs import columns_of, input_row, raised, three_columns


@triton.jit
def walk(
    pictures,
    strides,
    shape,
    span,
    weights,
    polynomials,
    strength,
    BLEND: tl.constexpr,
    WIDE: tl.constexpr,
    GROUP: tl.constexpr,
):
    """The result of a strip of 2 * GROUP columns from x on; x again."""
    n, x, first_row, end_row = span
    finishing = (pictures, strides, shape, span, weights[3], polynomials, strength)
    g, nothing = x // 2 + tl.arange(0, GROUP), tl.zeros((GROUP,), tl.float32)
    before, sums, none = (nothing,) * 48, (nothing,) * 24, (nothing,) * 24
    # Two steps before the first result is whole. As far as the compiler can see, g may change with every step: else it
    # works out all addresses before the loop, and their registers are missing in it.
    s = first_row // 2 - 1
    while s <= (end_row + 1) // 2:
        top, bottom = (), ()
        for high in tl.static_range(2):
            top += input_row(pictures, strides, shape, n, 2 * s, g, high, WIDE)
            bottom += input_row(pictures, strides, shape, n, 2 * s + 1, g, high, WIDE)
        inside = _inside(shape, 2 * s - 1, g) + _inside(shape, 2 * s, g)
        done = convolve(before + top + bottom, sums + none, weights[0], weights[1], weights[2], inside)
        for row in tl.static_range(2):
            _finish(finishing, g, done[row * 12 : row * 12 + 12], 2 * s - 2 + row, BLEND, WIDE)
        sums, before = done[24:], top + bottom
        g += (s > shape[0]).to(tl.int32)
        s += 1
    return x


@triton.jit
def convolve(window, sums, weight1, bias1, weight2, inside):
    """Hidden rows 2s - 1 and 2s, and what they add to four rows of the result.

    Args:
        window: rows 2s - 2 to 2s + 1 of the input, [row * 24 + channel * 4 + column].
        sums: rows 2s - 2 to 2s + 1 of the result, columns 2g - 1 to 2g + 2, [(row * 4 + column) * 3 + channel].
        weight1: two float32 in each element.
        inside: which of the hidden pixels exist, [row * 2 + column].
    """
    channel = 0
    while channel < 16:
        bias = tl.zeros_like(window[0]) + tl.load(bias1 + channel)
        totals = (bias, bias, bias, bias)
        for i in tl.static_range(54):
            if i % 2 == 0:
                taps = both(weight1 + channel * 27 + i // 2)
            longer = ()
            for pixel in tl.static_range(4):
                value = window[(pixel // 2 + i % 9 // 3) * 24 + i // 9 * 4 + pixel % 2 + i % 3]
                longer = longer + (tl.fma(value, taps[i % 2], totals[pixel]),)
            totals = longer
        hidden = ()
        for pixel in tl.static_range(4):
            hidden = hidden + (tl.where(inside[pixel], tl.maximum(totals[pixel], 0.2 * totals[pixel]), 0.0),)
        taps = ()
        for i in tl.static_range(27):
            taps = taps + (tl.load(weight2 + channel * 9 + (i // 9 * 144 + i % 9)),)
        spread = ()
        for i in tl.static_range(48):
            total = sums[i]
            for pixel in tl.static_range(4):
                # Hidden pixel (y, x) reaches rows y to y + 2 and columns x to x + 2, the furthest with the first tap.
                if (
                    (i // 12 >= pixel // 2)
                    & (i // 12 <= pixel // 2 + 2)
                    & (i // 3 % 4 >= pixel % 2)
                    & (i // 3 % 4 <= pixel % 2 + 2)
                ):
                    tap = taps[i % 3 * 9 + (2 + pixel // 2 - i // 12) * 3 + (2 + pixel % 2 - i // 3 % 4)]
                    total = tl.fma(hidden[pixel], tap, total)
            spread = spread + (total,)
        sums = spread
        channel += 1
    return sums


@triton.jit
def both(pointer):
    """The two float32 in 64 bits: one load."""
    bits = tl.load(pointer)
    first = bits.to(tl.int32).to(tl.float32, bitcast=True)
    return first, (bits >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _inside(shape, y, g):
    """Whether the even and the odd pixel of a row exist."""
    row = (y >= 0) & (y < shape[0])
    return row & (g >= 0) & (2 * g < shape[1]), row & (g >= 0) & (2 * g + 1 < shape[1])


@triton.jit
def _finish(finishing, g, sums, y, BLEND: tl.constexpr, WIDE: tl.constexpr):
    """Neighbours, bias, residual and blend of a row of pairs, from its sums, [column * 3 + channel]; out with it."""
    pictures, strides, shape, span, bias2, polynomials, strength = finishing
    n, _, first_row, end_row = span
    lane, n, y64 = tl.arange(0, g.shape[0]), n.to(tl.int64), y.to(tl.int64)
    inside = (y >= first_row) & (y < end_row)
    image = pictures[1] + n * strides[1][0] + y64 * strides[1][2]
    out = pictures[3] + n * strides[3][0] + y64 * strides[3][2]
    if BLEND:
        j, k = load_coefficients(polynomials[0]), load_coefficients(polynomials[1])
    low = pictures[0] + n * strides[0][0]
    for c in tl.static_range(3):
        three = three_columns(low, c, strides[0], shape, y64, g, WIDE)
        for odd in tl.static_range(2):
            # The left neighbour knows this pair's first column as its own last, the right one its second as its first.
            neighbour = tl.minimum(tl.maximum(lane - 1 + 2 * odd, 0), g.shape[0] - 1)
            # Neither the first column of a block nor its last has all its neighbours.
            x, whole = 2 * g + odd, lane != odd * (g.shape[0] - 1)
            here = inside & whole & (x >= 0) & (x < shape[1])
            value = sums[(1 + odd) * 3 + c] + tl.gather(sums[(3 - 3 * odd) * 3 + c], neighbour, 0)
            value += tl.load(bias2 + c).to(tl.float32)
            value += raised(three, 1 + odd)
            if BLEND:
                pixels = image + c * strides[1][1] + columns_of(x, shape[1], strides[1][3], WIDE)
                value = blended(load_pixels(pixels, here), strength * value, j, k)
            pointers = out + c * strides[3][1] + columns_of(x, shape[1], strides[3][3], WIDE)
            tl.store(pointers, stored_pixels(value, pictures[3].dtype.element_ty), mask=here)
