"""What the refining module reads: up(B) and H, made on the fly from the coarser level and the image.

A thread has a *quad*, the 2x2 pixels (2s, 2s + 1) x (2g, 2g + 1) over pixel (s, g) of the coarser level. With one
column more on either side that is all the first convolution of a quad meets in these rows, and it takes only the nine
low pixels around (s, g): no thread needs another one's.
"""

from __future__ import annotations

import triton
import triton.language as tl

from abpn_fast.kernels.pixels import load_pixels

# Columns of a row around a quad: 2g - 1 to 2g + 2.
COLUMNS = tl.constexpr(4)


@triton.jit
def columns_of(x, size, stride, WIDE: tl.constexpr):
    """Where columns x, moved inside a picture of this width, are from the begin of a row."""
    x = tl.minimum(tl.maximum(x, 0), size - 1)
    return (x.to(tl.int64) if WIDE else x) * stride


@triton.jit
def input_row(pictures, strides, shape, n, y, g, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """Row y of up(B), if HIGH of H, zero outside the image: a tuple of 12, [channel * 4 + column]."""
    H, W = shape
    n, y64 = n.to(tl.int64), y.to(tl.int64)
    inside = ()
    for i in tl.static_range(COLUMNS):
        x = 2 * g + (i - 1)
        inside = inside + ((x >= 0) & (x < W) & (y >= 0) & (y < H),)
    low = pictures[2 * HIGH] + n * strides[2 * HIGH][0]
    row = ()
    for c in tl.static_range(3):
        three = three_columns(low, c, strides[2 * HIGH], shape, y64, g, WIDE)
        for i in tl.static_range(COLUMNS):
            value = raised(three, i)
            if HIGH:
                pixels = pictures[1] + n * strides[1][0] + c * strides[1][1] + y64 * strides[1][2]
                pixels += columns_of(2 * g + (i - 1), W, strides[1][3], WIDE)
                value = load_pixels(pixels, inside[i]) - value
            row += (tl.where(inside[i], value, 0.0),)
    return row


@triton.jit
def three_columns(low, c: tl.constexpr, strides, shape, y64, g, WIDE: tl.constexpr):
    """Low columns g - 1, g and g + 1 of a channel, between their rows as row y is."""
    last = (shape[0] + 1) // 2 - 1
    near = tl.minimum(tl.maximum(y64 >> 1, 0), last)
    # The row above for an even row, the one below for an odd one.
    far = tl.minimum(tl.maximum((y64 >> 1) - 1 + 2 * (y64 & 1), 0), last)
    near, far = low + near * strides[2] + c * strides[1], low + far * strides[2] + c * strides[1]
    three = ()
    for i in tl.static_range(3):
        column = columns_of(g + (i - 1), (shape[1] + 1) // 2, strides[3], WIDE)
        distant = tl.load(far + column).to(tl.float32)
        three += (tl.fma(tl.load(near + column).to(tl.float32), 0.75, 0.25 * distant),)
    return three


@triton.jit
def raised(three, i: tl.constexpr):
    """up() in column 2g - 1 + i of a row of ``three_columns``."""
    # Columns 2g - 1, 2g + 2 are nearer to their own low pixel, the middle two to g.
    return tl.fma(three[(i + 1) // 2], 0.75, 0.25 * three[i // 2 + 1 - i % 2])
