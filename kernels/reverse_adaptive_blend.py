"""R-ABM, Eq. 4."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from abpn_fast.kernels.launching import coefficients, start
from abpn_fast.kernels.pixels import load_pixels, store_pixels
from abpn_fast.kernels.polynomial import load_coefficients, unblended
from abpn_fast.kernels.tiles import at, is_whole, locate, tiling


def launch(image: Tensor, retouched: Tensor, j: Tensor, k: Tensor, damping: float, out: Tensor) -> None:
    """Fill ``out`` with B in one pass."""
    programs, shape, strides, options = tiling(image, retouched, out)
    j, k = coefficients(j), coefficients(k)
    undamped = int(damping == 0)
    start(kernel, programs, image, image, retouched, out, j, k, damping, shape, strides, UNDAMPED=undamped, **options)


@triton.jit
def kernel(
    image,
    retouched,
    out,
    j,
    k,
    damping,
    shape,
    strides,
    UNDAMPED: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """B of one program's pixels."""
    if is_whole(shape, FLAT, BLOCK, PARTS):
        _parts(image, retouched, out, j, k, damping, shape, strides, UNDAMPED, True, FLAT, BLOCK, PARTS)
    else:
        _parts(image, retouched, out, j, k, damping, shape, strides, UNDAMPED, False, FLAT, BLOCK, PARTS)


@triton.jit
def _parts(
    image,
    retouched,
    out,
    j,
    k,
    damping,
    shape,
    strides,
    UNDAMPED: tl.constexpr,
    WHOLE: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    j, k = load_coefficients(j), load_coefficients(k)
    for part in tl.static_range(PARTS):
        place, exist = locate(shape, part, FLAT, BLOCK, PARTS)
        mask = None if WHOLE else exist
        before = load_pixels(at(image, place, part, strides[0], FLAT), mask)
        after = load_pixels(at(retouched, place, part, strides[1], FLAT), mask)
        blend = unblended(before, after, j, k, damping, UNDAMPED)
        store_pixels(at(out, place, part, strides[2], FLAT), blend, mask)
