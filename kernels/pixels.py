"""Pixels between memory and float32, the dtype that every kernel computes in."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_pixels(pointers, mask):
    """float32 with white at 1: integers over 255 or 65535, correctly rounded; 0 outside ``mask``, if there is one."""
    raw = tl.load(pointers) if mask is None else tl.load(pointers, mask=mask, other=0)
    pixels = raw.to(tl.float32)
    if raw.dtype == tl.uint8:
        # 1 / 255 in two parts, the first so short that its product is exact: one rounding and no division.
        pixels = tl.fma(pixels, 1 / 255 - 257 / 65536, pixels * (257 / 65536))
    elif raw.dtype == tl.uint16:
        pixels = tl.fma(pixels, 1 / 65535 - 1 / 65536, pixels * (1 / 65536))
    return pixels


@triton.jit
def stored_pixels(pixels, dtype: tl.constexpr):
    """float32 as ``dtype``; for integers clamped to [0, 1] and rounded half to even, NaN becomes 0."""
    if dtype.is_int():
        white: tl.constexpr = 255 if dtype == tl.uint8 else 65535
        clamped = tl.minimum(tl.where(pixels > 0, pixels, 0.0), 1.0)
        # Beyond 2^23 the last bit of a float32 counts ones: the sum rounds, and its last bytes are the result.
        stored = (clamped * white + 12582912.0).to(tl.int32, bitcast=True).to(dtype)
    else:
        stored = pixels.to(dtype)
    return stored


@triton.jit
def store_pixels(pointers, pixels, mask):
    """Write float32 with white at 1 in the dtype of ``pointers``."""
    tl.store(pointers, stored_pixels(pixels, pointers.dtype.element_ty), mask=mask)
