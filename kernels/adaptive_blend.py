"""ABM, Eq. 3."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from abpn_fast.kernels.launching import coefficients, start
from abpn_fast.kernels.pixels import load_pixels, store_pixels
from abpn_fast.kernels.polynomial import blended, load_coefficients
from abpn_fast.kernels.tiles import at, is_whole, locate, tiling


def launch(image: Tensor, blend: Tensor, j: Tensor, k: Tensor, strength: float, out: Tensor) -> None:
    """Fill ``out`` with R in one pass."""
    programs, shape, strides, options = tiling(image, blend, out)
    j, k = coefficients(j), coefficients(k)
    start(kernel, programs, image, image, blend, out, j, k, strength, shape, strides, **options)


@triton.jit
def kernel(
    image, blend, out, j, k, strength, shape, strides, FLAT: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr
):
    """R of one program's pixels."""
    if is_whole(shape, FLAT, BLOCK, PARTS):
        _parts(image, blend, out, j, k, strength, shape, strides, True, FLAT, BLOCK, PARTS)
    else:
        _parts(image, blend, out, j, k, strength, shape, strides, False, FLAT, BLOCK, PARTS)


@triton.jit
def _parts(
    image,
    blend,
    out,
    j,
    k,
    strength,
    shape,
    strides,
    WHOLE: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    j, k = load_coefficients(j), load_coefficients(k)
    for part in tl.static_range(PARTS):
        place, exist = locate(shape, part, FLAT, BLOCK, PARTS)
        mask = None if WHOLE else exist
        pixels = load_pixels(at(image, place, part, strides[0], FLAT), mask)
        layer = strength * load_pixels(at(blend, place, part, strides[1], FLAT), mask)
        store_pixels(at(out, place, part, strides[2], FLAT), blended(pixels, layer, j, k), mask)
