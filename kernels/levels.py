"""One level of the image pyramid: I_{i+1}, and H_i where it is wanted, in one pass over I_i.

A program walks a block of columns downwards and keeps what the next row needs. Of every column of the coarser level it
also has the neighbours (REACH 1), since up(I_{i+1}) needs them: it reduces them again and waits for no other program.

Where the pixels of a row lie side by side (PLANAR) a program has one channel and ``x`` is its first column; otherwise
the channels take turns and ``x`` is every lane's column.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from abpn_fast.kernels.launching import start, tuned
from abpn_fast.kernels.pixels import load_pixels, store_pixels, stored_pixels

_THREADS = 64
# Pixels of the coarser level from which on the strips are longer: a large GPU must have enough programs first; then,
# the fewer rows are read by two of them the better.
_LARGE = 2**20
_SIZES = ["channels", "height", "width", "low_width"]
_STRIDES = [f"{picture}_{axis}" for picture in ("image", "low", "high") for axis in "nchw"]


def launch(image: Tensor, filter: str, low: Tensor, high: Tensor | None = None) -> None:
    """Fill ``low`` with I_{i+1} and ``high`` with H_i.

    Sizes and strides are handed over in units that divide them, so that the compiler knows how wide it may load; it
    sees nothing else of them, and a photo of another size needs no other code.
    """
    pictures = (image, low) if high is None else (image, low, high)
    planar = all(x.stride(3) == 1 for x in pictures)
    fine_unit, low_unit = (_unit(*level) if planar else 1 for level in ((image, *pictures[2:]), (low,)))
    units = (fine_unit, low_unit, fine_unit)
    high = low if high is None else high
    strides = [s for x, unit in zip((image, low, high), units, strict=True) for s in _in_units(x, unit)]
    count, channels, height, width = image.shape
    # A thread's 16 bytes of the widest picture; where it reads pixels one by one, what its registers have room for.
    per_thread = 8 // max(x.element_size() for x in pictures) if planar else 2
    sizes = tuned("levels", image, threads=_THREADS, rows=16)
    columns = sizes["threads"] * per_thread
    rows = sizes["rows"] if low.shape[2] * low.shape[3] >= _LARGE else 4
    lanes, planes = (low.shape[3], count * channels) if planar else (low.shape[3] * channels, count)
    start(
        kernel,
        planes * -(-low.shape[2] // rows) * -(-lanes // columns),
        image,
        image,
        low,
        high,
        *(channels, height, width // fine_unit, low.shape[3] // low_unit),
        *strides,
        REACH=len(pictures) - 2,
        BOX=int(filter == "box"),
        PLANAR=int(planar),
        UNIT=fine_unit,
        LOW_UNIT=low_unit,
        ROWS=rows,
        COLUMNS=columns,
        threads=sizes["threads"],
    )


def _unit(*pictures: Tensor) -> int:
    return math.gcd(16, *(length for x in pictures for length in (x.shape[3], *x.stride()[:3])))


def _in_units(x: Tensor, unit: int) -> list[int]:
    return [*(stride // unit for stride in x.stride()[:3]), x.stride(3)]


@triton.jit(do_not_specialize=_SIZES + _STRIDES)
def kernel(
    image,
    low,
    high,
    channels,
    height,
    width,
    low_width,
    image_n,
    image_c,
    image_h,
    image_w,
    low_n,
    low_c,
    low_h,
    low_w,
    high_n,
    high_c,
    high_h,
    high_w,
    REACH: tl.constexpr,
    BOX: tl.constexpr,
    PLANAR: tl.constexpr,
    UNIT: tl.constexpr,
    LOW_UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """ROWS rows of COLUMNS columns of the coarser level, and with REACH the pixels of H_i above them."""
    width, low_width, low_height = width * UNIT, low_width * LOW_UNIT, (height + 1) // 2
    n, c, first, x = _place(channels, low_height, low_width, PLANAR, ROWS, COLUMNS)
    image = image + (n * image_n + c * image_c) * UNIT
    low = low + (n * low_n + c * low_c) * LOW_UNIT
    high = high + (n * high_n + c * high_c) * UNIT
    image_h, low_h, high_h = _wide(image_h, UNIT), _wide(low_h, LOW_UNIT), _wide(high_h, UNIT)
    column = x + tl.arange(0, COLUMNS) if PLANAR else x
    low_column = column if PLANAR else column.to(tl.int64) * low_w
    spots, edges = (), ()
    for i in tl.static_range(2 * REACH + 3):
        spots = spots + (_spot(x + (i - REACH - 1), width, image_w, PLANAR, COLUMNS),)
    for i in tl.static_range(2 * REACH + 1):
        edges = edges + (_edges(column + (i - REACH), width),)
    high_spot = _spot(x, width, high_w, PLANAR, COLUMNS)

    y = first - REACH
    before = _across(_row(image, 2 * y - 1, height, image_h), spots, edges, REACH, PLANAR, BOX)
    upper = _across(_row(image, 2 * y, height, image_h), spots, edges, REACH, PLANAR, BOX)
    low_before, low_here = before, upper
    for _ in range(ROWS + 2 * REACH):
        lower = _across(_row(image, 2 * y + 1, height, image_h), spots, edges, REACH, PLANAR, BOX)
        after = _across(_row(image, 2 * y + 2, height, image_h), spots, edges, REACH, PLANAR, BOX)
        reduced = _down(before, upper, lower, after, low.dtype.element_ty, column, low_width, REACH, BOX)
        if REACH == 0:
            inside = (column < low_width) & (y < low_height)
            store_pixels(_row(low, y, low_height, low_h) + low_column, reduced[0], inside)
        else:
            # The row above is complete, now that the one below it is known.
            exists = (y > first) & (y <= low_height)
            row = _row(low, y - 1, low_height, low_h)
            store_pixels(row + low_column, low_here[1], (column < low_width) & exists)
            above, below = _inside(low_before, low_here, y > 1), _inside(reduced, low_here, y < low_height)
            for i in tl.static_range(2):
                row = 2 * y - 2 + i
                up = _up(above if i == 0 else below, low_here)
                left, right = _pair(_row(image, row, height, image_h), spots[2], PLANAR)
                target = _row(high, row, height, high_h)
                _store_pair(target, high_spot, left - up[0], right - up[1], exists & (row < height), PLANAR)
            low_before, low_here = low_here, reduced
        before, upper = lower, after
        y += 1


@triton.jit
def _wide(stride, UNIT: tl.constexpr):
    return stride.to(tl.int64) * UNIT


@triton.jit
def _place(channels, low_height, low_width, PLANAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A program's image n, channel c, first row y and columns x."""
    program = tl.program_id(0)
    across = tl.cdiv(low_width if PLANAR else low_width * channels, COLUMNS)
    down = tl.cdiv(low_height, ROWS)
    first, y = program % across * COLUMNS, program // across % down * ROWS
    plane = (program // across // down).to(tl.int64)
    if PLANAR:
        place = plane // channels, plane % channels, y, first
    else:
        lane = first + tl.arange(0, COLUMNS)
        place = plane, (lane % channels).to(tl.int64), y, lane // channels
    return place


@triton.jit
def _row(channel, y, height, stride):
    """A pointer to row y, or to that nearest to it."""
    return channel + tl.minimum(tl.maximum(y, 0), height - 1) * stride


@triton.jit
def _spot(x, width, stride, PLANAR: tl.constexpr, COLUMNS: tl.constexpr):
    """Where in a row of the finer level the two pixels of each coarser one are, and which of them exist."""
    if PLANAR:
        both = 2 * x + tl.arange(0, 2 * COLUMNS)
        spot = both, (both >= 0) & (both < width)
    else:
        left, right = 2 * x, 2 * x + 1
        left_exists, right_exists = (left >= 0) & (left < width), (right >= 0) & (right < width)
        spot = left.to(tl.int64) * stride, left_exists, right.to(tl.int64) * stride, right_exists
    return spot


@triton.jit
def _edges(column, width):
    """Which columns have no left neighbour, no right pixel, no right neighbour."""
    return column == 0, 2 * column + 1 >= width, 2 * column + 2 >= width


@triton.jit
def _pair(row, spot, PLANAR: tl.constexpr):
    """The left and the right pixel at each of the columns, 0 where there is none."""
    if PLANAR:
        both = load_pixels(row + spot[0], spot[1])
        left, right = tl.split(tl.reshape(both, (both.shape[0] // 2, 2)))
    else:
        left, right = load_pixels(row + spot[0], spot[1]), load_pixels(row + spot[2], spot[3])
    return left, right


@triton.jit
def _store_pair(row, spot, left, right, exists, PLANAR: tl.constexpr):
    if PLANAR:
        both = tl.reshape(tl.join(left, right), (2 * left.shape[0],))
        store_pixels(row + spot[0], both, spot[1] & exists)
    else:
        store_pixels(row + spot[0], left, spot[1] & exists)
        store_pixels(row + spot[2], right, spot[3] & exists)


@triton.jit
def _across(row, spots, edges, REACH: tl.constexpr, PLANAR: tl.constexpr, BOX: tl.constexpr):
    """[1 3 3 1], or the sum of the middle two, at the columns and REACH neighbours; edges are replicated."""
    pairs, found = (), ()
    for i in tl.static_range(2 * REACH + 3):
        pairs = pairs + (_pair(row, spots[i], PLANAR),)
    for i in tl.static_range(2 * REACH + 1):
        left, right = pairs[i + 1]
        right = tl.where(edges[i][1], left, right)
        if BOX:
            found = found + (left + right,)
        else:
            before, after = tl.where(edges[i][0], left, pairs[i][1]), tl.where(edges[i][2], right, pairs[i + 2][0])
            found = found + (tl.fma(left + right, 3.0, before + after),)
    return found


@triton.jit
def _down(before, upper, lower, after, dtype: tl.constexpr, column, low_width, REACH: tl.constexpr, BOX: tl.constexpr):
    """A row of the coarser level, as ``dtype`` keeps it, from ``_across`` of four rows; edges are replicated."""
    found = ()
    for i in tl.static_range(2 * REACH + 1):
        middle = upper[i] + lower[i]
        total = middle * 0.25 if BOX else tl.fma(middle, 3.0, before[i] + after[i]) * (1 / 64)
        found = found + (stored_pixels(total, dtype).to(tl.float32),)
    if REACH == 1:
        left, here, right = found
        found = tl.where(column == 0, here, left), here, tl.where(column + 1 >= low_width, here, right)
    return found


@triton.jit
def _inside(row, otherwise, exists):
    """``row`` where it exists."""
    return (
        tl.where(exists, row[0], otherwise[0]),
        tl.where(exists, row[1], otherwise[1]),
        tl.where(exists, row[2], otherwise[2]),
    )


@triton.jit
def _up(far, near):
    """The left and the right pixel of up(I_{i+1}) at each of the columns, between two rows of I_{i+1}."""
    left = tl.fma(far[0], 0.25, near[0] * 0.75)
    here = tl.fma(far[1], 0.25, near[1] * 0.75)
    right = tl.fma(far[2], 0.25, near[2] * 0.75)
    most = here * 0.75
    return tl.fma(left, 0.25, most), tl.fma(right, 0.25, most)
