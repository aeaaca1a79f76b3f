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
    last = (H + 1) // 2 - 1
    near = tl.minimum(tl.maximum(y64 >> 1, 0), last)
    # The row above for an even row, the one below for an odd one.
    far = tl.minimum(tl.maximum((y64 >> 1) - 1 + 2 * (y64 & 1), 0), last)
    inside = ()
    for i in tl.static_range(COLUMNS):
        x = 2 * g + (i - 1)
        inside = inside + ((x >= 0) & (x < W) & (y >= 0) & (y < H),)
    low = pictures[2 * HIGH] + n * strides[2 * HIGH][0]
    _, along_c, along_y, along_x = strides[2 * HIGH]
    row = ()
    for c in tl.static_range(3):
        three = ()
        for i in tl.static_range(3):
            pointers = low + c * along_c + columns_of(g + (i - 1), (W + 1) // 2, along_x, WIDE)
            distant = tl.load(pointers + far * along_y).to(tl.float32)
            three = three + (tl.fma(tl.load(pointers + near * along_y).to(tl.float32), 0.75, 0.25 * distant),)
        for i in tl.static_range(COLUMNS):
            # Columns 2g - 1, 2g + 2 are nearer to their own low pixel, the middle two to g.
            value = tl.fma(three[(i + 1) // 2], 0.75, 0.25 * three[i // 2 + 1 - i % 2])
            if HIGH:
                pixels = pictures[1] + n * strides[1][0] + c * strides[1][1] + y64 * strides[1][2]
                pixels += columns_of(2 * g + (i - 1), W, strides[1][3], WIDE)
                value = load_pixels(pixels, inside[i]) - value
            row += (tl.where(inside[i], value, 0.0),)
    return row


@triton.jit
def upsampled(low, strides, shape, n, y, x, c, WIDE: tl.constexpr):
    """up() of one picture at pixels x of row y, x inside the image, by the operations of ``input_row``."""
    last_row, width = (shape[0] + 1) // 2 - 1, (shape[1] + 1) // 2
    y = tl.minimum(tl.maximum(y, 0), shape[0] - 1)
    pointers = low + n * strides[0] + c * strides[1]
    near = pointers + (y >> 1) * strides[2]
    far = pointers + tl.minimum(tl.maximum((y >> 1) - 1 + 2 * (y & 1), 0), last_row) * strides[2]
    own = columns_of(x >> 1, width, strides[3], WIDE)
    other = columns_of((x >> 1) - 1 + 2 * (x & 1), width, strides[3], WIDE)
    nearer = tl.fma(tl.load(near + own).to(tl.float32), 0.75, 0.25 * tl.load(far + own).to(tl.float32))
    further = tl.fma(tl.load(near + other).to(tl.float32), 0.75, 0.25 * tl.load(far + other).to(tl.float32))
    return tl.fma(nearer, 0.75, 0.25 * further)


@triton.jit
def stacked(leaves, SIZE: tl.constexpr, LEVELS: tl.constexpr):
    """(GROUP, columns of a leaf * SIZE) from a tuple of SIZE = 2^LEVELS tensors."""
    # The first joint makes the slowest index.
    for level in tl.static_range(LEVELS):
        joined = ()
        for i in tl.static_range(SIZE >> (level + 1)):
            joined = joined + (tl.join(leaves[i], leaves[i + (SIZE >> (level + 1))]),)
        leaves = joined
    return tl.reshape(leaves[0], (leaves[0].shape[0], leaves[0].numel // leaves[0].shape[0]))
