"""Which pixels a program works on, for operators that treat every pixel alone.

Where all pictures lie in the same order in dense memory (``launching.alike``), they are one long row: a program has
``PARTS`` blocks of it, read and written 16 bytes a thread. Otherwise a program has a tile of pixels and a part is one
of their channels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from abpn_fast.kernels.launching import alike, tuned

_COLUMNS = tl.constexpr(64)
_THREADS = 128


def tiling(*pictures: Tensor) -> tuple[int, tuple[int, ...], tuple[tuple[int, ...], ...], dict[str, int]]:
    """How many programs, the arguments ``shape`` and ``strides``, and the options of a launch over ``pictures``."""
    count, channels, height, width = pictures[0].shape
    sizes = tuned("tiles", pictures[0], threads=_THREADS, parts=4)
    threads, parts = sizes["threads"], sizes["parts"]
    if not alike(*pictures):
        strides = tuple(tuple(x.stride()) for x in pictures)
        block, tiles = 8 * threads, -(-width // _COLUMNS.value) * -(-height // (8 * threads // _COLUMNS.value))
        options = {"FLAT": 0, "BLOCK": block, "PARTS": channels, "threads": threads}
        return count * tiles, (height, width), strides, options
    # A thread's 16 bytes of the widest picture; wider loads of the others would leave gaps between the threads.
    block = threads * (16 // max(x.element_size() for x in pictures))
    options = {"FLAT": 1, "BLOCK": block, "PARTS": parts, "threads": threads}
    return -(-pictures[0].numel() // (block * parts)), (pictures[0].numel(),), ((),) * len(pictures), options


@triton.jit
def is_whole(shape, FLAT: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """Whether nothing of this program lies outside, so that it needs no masks: they would cost it the wide loads."""
    whole = False
    if FLAT:
        whole = (tl.program_id(0).to(tl.int64) + 1) * (BLOCK * PARTS) <= shape[0]
    return whole


@triton.jit
def locate(shape, part, FLAT: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """Where the pixels of a part are, for ``at``, and which of them exist."""
    lane = tl.arange(0, BLOCK)
    program = tl.program_id(0).to(tl.int64)
    if FLAT:
        first = (program * PARTS + part) * BLOCK
        place, exist = (first, lane), first + lane < shape[0]
    else:
        height, width = shape
        across, down = tl.cdiv(width, _COLUMNS), tl.cdiv(height, BLOCK // _COLUMNS)
        x = (program % across) * _COLUMNS + lane % _COLUMNS
        y = (program // across % down) * (BLOCK // _COLUMNS) + lane // _COLUMNS
        place, exist = (program // across // down, y, x), (y < height) & (x < width)
    return place, exist


@triton.jit
def at(pointer, place, part, strides, FLAT: tl.constexpr):
    """Pointers to the pixels that ``locate`` found in a picture with these strides."""
    if FLAT:
        pointers = pointer + place[0] + place[1]
    else:
        first = place[0] * strides[0] + tl.cast(part, tl.int64) * strides[1]
        pointers = pointer + first + (place[1] * strides[2] + place[2] * strides[3])
    return pointers
