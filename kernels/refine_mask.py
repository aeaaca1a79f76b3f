"""The mask of the finest level: which pixels keep the image, and where none can be anything else."""

from __future__ import annotations

import triton
import triton.language as tl

from abpn_fast.kernels.refine_inputs import columns_of


@triton.jit
def _taps(position, size, scale_bits):
    """The two samples around a pixel in a picture of ``size``, 2^scale_bits times coarser; the second one's weight."""
    doubled = 2 * position + 1 - (1 << scale_bits)
    first = doubled >> (scale_bits + 1)
    weight = (doubled - (first << (scale_bits + 1))).to(tl.float32) / (2 << scale_bits).to(tl.float32)
    weight = tl.where(first < 0, 0.0, weight)
    # Lanes right of the image read its last cell.
    first = tl.minimum(tl.maximum(first, 0), size - 1)
    # As in PyTorch: an edge meets its second sample with weight 0, a mask of the image's size is copied.
    return first, tl.minimum(first + tl.where(scale_bits > 0, 1, 0), size - 1), weight


@triton.jit
def _size(size, scale_bits):
    return (size + (1 << scale_bits) - 1) >> scale_bits


@triton.jit
def below_threshold(masking, shape, n, y, x):
    """Whether the upsampled mask at pixels x of row y is below the threshold."""
    mask, strides, scale_bits, threshold = masking
    upper, lower, down = _taps(y, _size(shape[0], scale_bits), scale_bits)
    left, right, across = _taps(x, _size(shape[1], scale_bits), scale_bits)
    upper, lower = mask + n * strides[0] + upper * strides[2], mask + n * strides[0] + lower * strides[2]
    left, right = left.to(tl.int64) * strides[3], right.to(tl.int64) * strides[3]
    above = (1 - across) * tl.load(upper + left).to(tl.float32) + across * tl.load(upper + right).to(tl.float32)
    below = (1 - across) * tl.load(lower + left).to(tl.float32) + across * tl.load(lower + right).to(tl.float32)
    return (1 - down) * above + down * below < threshold


@triton.jit
def is_active(masking, shape, n, x, first_row, end_row, COLUMNS: tl.constexpr):
    """Whether a pixel of these rows and of the COLUMNS from x on may reach the threshold.

    A mean of finite cells that are below it by more than it can round up is below it. What is not finite counts as
    active: NaN is below nothing.
    """
    mask, strides, scale_bits, threshold = masking
    top, _, _ = _taps(first_row, _size(shape[0], scale_bits), scale_bits)
    _, bottom, _ = _taps(end_row - 1, _size(shape[0], scale_bits), scale_bits)
    width = _size(shape[1], scale_bits)
    left, _, _ = _taps(tl.maximum(x, 0), width, scale_bits)
    _, right, _ = _taps(tl.minimum(x + COLUMNS, shape[1]) - 1, width, scale_bits)
    cells = left + tl.arange(0, COLUMNS)
    places = tl.minimum(cells, right).to(tl.int64) * strides[3]
    active = tl.zeros((COLUMNS,), tl.int32)
    y = top
    while y <= bottom:
        cell = tl.load(mask + n.to(tl.int64) * strides[0] + tl.cast(y, tl.int64) * strides[2] + places).to(tl.float32)
        margin = 1e-6 * (tl.abs(cell) + tl.abs(threshold))
        active |= ((cell + margin < threshold) & (tl.abs(cell) < float("inf"))).to(tl.int32) ^ 1
        y += 1
    return tl.max(active, 0) > 0


@triton.jit
def keep(pictures, strides, shape, span, masking, PARTLY: tl.constexpr, WIDE: tl.constexpr, GROUP: tl.constexpr):
    """The image itself where the mask is below its threshold; everywhere unless PARTLY."""
    n, x, first_row, end_row = span
    n, y, column = n.to(tl.int64), first_row.to(tl.int64), tl.arange(0, 2 * GROUP)
    # Neither the first column of a block nor its last has all its neighbours.
    finished = (column > 0) & (column < 2 * GROUP - 1) & (x + column >= 0) & (x + column < shape[1])
    x += column
    source = pictures[1] + n * strides[1][0] + columns_of(x, shape[1], strides[1][3], WIDE)
    target = pictures[3] + n * strides[3][0] + columns_of(x, shape[1], strides[3][3], WIDE)
    while y < end_row:
        kept = finished
        if PARTLY:
            kept = kept & below_threshold(masking, shape, n, y, x)
        for c in tl.static_range(3):
            pixels = tl.load(source + y * strides[1][2] + c * strides[1][1], mask=kept, other=0)
            tl.store(target + y * strides[3][2] + c * strides[3][1], pixels, mask=kept)
        y += 1
