"""Plan dot: a warp walks down a strip of 32 columns, two rows a step, and multiplies matrices.

A thread has four pixels of a row in one of four places: a channel of the three, the last one twice. It makes up(B) and
H in six columns, 4i - 1 to 4i + 4, from the low columns 2i - 1 to 2i + 2, and has four pixels of the result.
"""

from __future__ import annotations

import triton
import triton.language as tl

from abpn_fast.kernels.pixels import load_pixels, stored_pixels
from abpn_fast.kernels.polynomial import load_coefficients
from abpn_fast.kernels.refine_inputs import columns_of
from abpn_fast.kernels.refine_products import convolve1, convolve2, load_weights1, load_weights2


@triton.jit
def walk(
    pictures,
    strides,
    shape,
    span,
    weights,
    polynomials,
    strength,
    WIDEN: tl.constexpr,
    BLEND: tl.constexpr,
    WIDE: tl.constexpr,
    GROUP: tl.constexpr,
):
    """The result of the strip and the 2 * GROUP columns of ``span``."""
    n, x, first_row, end_row = span
    dtype: tl.constexpr = pictures[0].dtype.element_ty
    operand: tl.constexpr = tl.float32 if WIDEN else dtype
    ready = (load_weights1(weights[0], weights[1], operand), load_weights2(weights[2], operand))
    blending = _load_blending(polynomials, weights[3], strength, BLEND, GROUP)
    end = (end_row + 1) // 2
    s = first_row // 2 - 1
    above = _low_row(pictures, strides, shape, n, x, s - 1, GROUP, True, WIDE)
    near = _low_row(pictures, strides, shape, n, x, s, GROUP, True, WIDE)
    even = ()
    for i in tl.static_range(8):
        even += (tl.fma(near[i], 3.0, above[i]),)
    sums = (tl.zeros((GROUP, 16), tl.float32),) * 4, (tl.zeros((GROUP, 8), tl.float32),) * 6
    state = near, even, sums[0], sums[1]
    # In the middle of the image nothing is outside it. Elsewhere x may change with every step, as far as the compiler
    # can see: else it works out all addresses before the loop, and their registers are missing in it.
    stop, moving = tl.where(first_row == 0, 1, s), x
    if (x < 1) | (x + 2 * GROUP >= shape[1]):
        stop = end + 1
    while s <= end:
        while s < stop:
            state = _step(
                pictures, strides, shape, (n, moving, first_row, end_row), s, state, ready, blending, True, BLEND, WIDE
            )
            moving += (s > shape[0]).to(tl.int32)
            s += 1
        while s < tl.minimum(end + 1, shape[0] // 2):
            state = _step(
                pictures, strides, shape, (n, x, first_row, end_row), s, state, ready, blending, False, BLEND, WIDE
            )
            s += 1
        stop = end + 1
    return moving


@triton.jit
def _step(
    pictures,
    strides,
    shape,
    span,
    s,
    state,
    weights,
    blending,
    EDGE: tl.constexpr,
    BLEND: tl.constexpr,
    WIDE: tl.constexpr,
):
    """With rows 2s and 2s + 1 of the input, rows 2s - 2 and 2s - 1 of the result; the next state."""
    n, x, _, _ = span
    near, even, sums1, sums2 = state
    GROUP: tl.constexpr = near[0].shape[0] // 2
    dtype: tl.constexpr = pictures[0].dtype.element_ty
    operand: tl.constexpr = weights[0][0].dtype
    below = _low_row(pictures, strides, shape, n, x, s + 1, GROUP, EDGE, WIDE)
    after = ()
    for row in tl.static_range(2):
        after += _image_row(pictures, strides, shape, n, x, 2 * s + row, GROUP, EDGE, WIDE)
    odd, next_even = (), ()
    for i in tl.static_range(8):
        odd, next_even = odd + (tl.fma(near[i], 3.0, below[i]),), next_even + (tl.fma(below[i], 3.0, near[i]),)
    for row in tl.static_range(2):
        y = 2 * s + row
        image = after[row * 6 : row * 6 + 6]
        up, high = _input_row(odd if row else even, image, shape, x, y, GROUP, EDGE)
        hidden, sums1 = convolve1(up, high, sums1, weights[0], dtype)
        hidden = _activated(hidden, shape, x, y - 1, dtype, EDGE)
        done, sums2 = convolve2(hidden[0].to(operand), hidden[1].to(operand), sums2, up[1:5], weights[1])
        _finish(pictures, strides, shape, span, y - 2, done, blending, EDGE, BLEND, WIDE)
    return below, next_even, sums1, sums2


@triton.jit
def _places(x, GROUP: tl.constexpr):
    """The channel of each thread, and its first column."""
    thread = tl.arange(0, 2 * GROUP)
    return tl.minimum(thread % 4, 2), x + thread // 4 * 4


@triton.jit
def _begin(picture, strides, n, c, x, y, WIDE: tl.constexpr):
    """Where column x of row y is, and how far it is to the next one."""
    at = picture + n.to(tl.int64) * strides[0] + c.to(tl.int64) * strides[1] + x.to(tl.int64) * strides[3]
    return at + (y.to(tl.int64) if WIDE else y) * strides[2], tl.cast(strides[3], tl.int64)


@triton.jit
def _low_row(pictures, strides, shape, n, x, y, GROUP: tl.constexpr, EDGE: tl.constexpr, WIDE: tl.constexpr):
    """Row y, moved inside, of the coarser blend layer, divided by 16, and the coarser image: [picture * 4 + column]."""
    c, x = _places(x, GROUP)
    x = x // 2 - 1
    y = tl.minimum(tl.maximum(y, 0), (shape[0] + 1) // 2 - 1)
    row = ()
    for picture in tl.static_range(2):
        at, step = _begin(pictures[2 * picture], strides[2 * picture], n, c, x * 0 if EDGE else x, y, WIDE)
        for i in tl.static_range(4):
            if EDGE:
                pixels = tl.load(at + columns_of(x + i, (shape[1] + 1) // 2, strides[2 * picture][3], WIDE))
            else:
                pixels = tl.load(at + i * step)
            row += (pixels.to(tl.float32) * (1.0 if picture else 0.0625),)
    return row


@triton.jit
def _image_row(pictures, strides, shape, n, x, y, GROUP: tl.constexpr, EDGE: tl.constexpr, WIDE: tl.constexpr):
    """Row y of the image in six columns, moved inside."""
    c, x = _places(x, GROUP)
    row = ()
    if EDGE:
        y = tl.minimum(tl.maximum(y, 0), shape[0] - 1)
        at, step = _begin(pictures[1], strides[1], n, c, x * 0, y, WIDE)
        for i in tl.static_range(6):
            row += (load_pixels(at + columns_of(x + (i - 1), shape[1], strides[1][3], WIDE), None),)
    else:
        at, step = _begin(pictures[1], strides[1], n, c, x, y, WIDE)
        row += (load_pixels(at - step, None),)
        for i in tl.static_range(2):
            pair = at[:, None] + (2 * i + tl.arange(0, 2)[None, :]) * step
            row += tl.split(load_pixels(pair, None))
        row += (load_pixels(at + 4 * step, None),)
    if pictures[1].dtype.element_ty.is_int():
        # Sums of one: the compiler looks no further, and puts operands into the order that suits their own width.
        opaque = ()
        for i in tl.static_range(6):
            opaque += (tl.sum(row[i][None], 0),)
        row = opaque
    return row


@triton.jit
def _input_row(low, image, shape, x, y, GROUP: tl.constexpr, EDGE: tl.constexpr):
    """up(B) and H in six columns of row y, from low columns already between their rows, times 4."""
    _, x = _places(x, GROUP)
    up, high = (), ()
    for i in tl.static_range(6):
        # The nearer low column, and the one further away.
        raised, lifted = (
            tl.fma(low[(i + 1) // 2], 3.0, low[i // 2 + 1 - i % 2]),
            tl.fma(low[4 + (i + 1) // 2], 3.0, low[4 + i // 2 + 1 - i % 2]),
        )
        u, h = raised, tl.fma(lifted, -0.0625, image[i])
        if EDGE:
            inside = (y >= 0) & (y < shape[0]) & (x + (i - 1) >= 0) & (x + (i - 1) < shape[1])
            u, h = tl.where(inside, u, 0.0), tl.where(inside, h, 0.0)
        up, high = up + (u,), high + (h,)
    return up, high


@triton.jit
def _activated(hidden, shape, x, y, dtype: tl.constexpr, EDGE: tl.constexpr):
    """Leaky ReLU, and zero outside the image."""
    GROUP: tl.constexpr = hidden[0].shape[0]
    pair = tl.arange(0, GROUP)
    x = x + pair % (GROUP // 2) * 4 + pair // (GROUP // 2) * 2
    activated = ()
    for odd in tl.static_range(2):
        value = tl.maximum(hidden[odd], 0.2 * hidden[odd])
        if EDGE:
            inside = (y >= 0) & (y < shape[0]) & (x + odd >= 0) & (x + odd < shape[1])
            value = tl.where(inside[:, None], value, 0.0)
        activated += (value.to(dtype),)
    return activated


@triton.jit
def _load_blending(polynomials, bias2, strength, BLEND: tl.constexpr, GROUP: tl.constexpr):
    """The polynomial that B without its bias makes of Eq. 3, B times the first three and the others; or the bias."""
    c, _ = _places(0, GROUP)
    bias = tl.load(bias2 + c).to(tl.float32)
    found = (bias,)
    if BLEND:
        j, k = load_coefficients(polynomials[0]), load_coefficients(polynomials[1])
        scaled, moved = (), ()
        for i in tl.static_range(3):
            scaled += (j[i] * strength,)
            moved += (tl.fma(bias, j[i] * strength, k[i]),)
        found = scaled + moved
    return found


@triton.jit
def _finish(
    pictures, strides, shape, span, y, done, blending, EDGE: tl.constexpr, BLEND: tl.constexpr, WIDE: tl.constexpr
):
    """Bias and blend of four pixels of row y; out with them."""
    n, x, first_row, end_row = span
    GROUP: tl.constexpr = done[0].shape[0] // 2
    if BLEND:
        # Once more, from a cache: it takes no registers meanwhile.
        image = _image_row(pictures, strides, shape, n, x, y if EDGE else tl.maximum(y, 0), GROUP, EDGE, WIDE)
    c, x = _places(x, GROUP)
    thread = tl.arange(0, 2 * GROUP)
    at, step = _begin(pictures[3], strides[3], n, c, x, y, WIDE)
    for i in tl.static_range(4):
        value = done[i]
        if BLEND:
            # Terms by powers of I.
            terms = ()
            for power in tl.static_range(3):
                terms += (tl.fma(blending[power], value, blending[3 + power]),)
            value = tl.fma(image[1 + i], tl.fma(image[1 + i], terms[2], terms[1]), terms[0])
        else:
            value += blending[0]
        here = (thread % 4 < 3) & (y >= first_row)
        # Neither the first column of a block nor its last has all its neighbours.
        if i == 0:
            here &= thread >= 4
        if i == 3:
            here &= thread < 2 * GROUP - 4
        if EDGE:
            here &= (y < end_row) & (x + i >= 0) & (x + i < shape[1])
        tl.store(at + i * step, stored_pixels(value, pictures[3].dtype.element_ty), mask=here)
