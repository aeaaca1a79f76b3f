"""Pixels between memory and float32, the dtype that every kernel computes in."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_pixels(pointers, mask):
    """float32 with white at 1: a byte divided by 255, correctly rounded; 0 outside ``mask``, if there is one."""
    raw = tl.load(pointers) if mask is None else tl.load(pointers, mask=mask, other=0)
    pixels = raw.to(tl.float32)
    if raw.dtype == tl.uint8:
        # 1 / 255 in two parts, the first so short that its product is exact: one rounding and no division.
        pixels = tl.fma(pixels, 1 / 255 - 257 / 65536, pixels * (257 / 65536))
    return pixels


@triton.jit
def stored_pixels(pixels, dtype: tl.constexpr):
    """float32 as ``dtype``; for bytes clamped to [0, 1] and rounded half to even, NaN becomes 0."""
    if dtype == tl.uint8:
        clamped = tl.minimum(tl.where(pixels > 0, pixels, 0.0), 1.0)
        # Beyond 2^23 the last bit of a float32 counts ones: the sum rounds, and its last byte is the result.
        stored = (clamped * 255 + 12582912.0).to(tl.int32, bitcast=True).to(tl.uint8)
    else:
        stored = pixels.to(dtype)
    return stored


@triton.jit
def store_pixels(pointers, pixels, mask):
    """Write float32 with white at 1 in the dtype of ``pointers``."""
    tl.store(pointers, stored_pixels(pixels, pointers.dtype.element_ty), mask=mask)
