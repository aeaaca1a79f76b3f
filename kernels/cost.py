"""What each operator must at least move and compute, and what its kernel does: the floors of docs/triton.md.

Per pixel of the finer level, all three channels: bytes to and from device memory, and floating-point operations, of
which a fused multiply-add is two and conversions and selections are none.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Cost(NamedTuple):
    """Bytes and floating-point operations of a pixel."""

    bytes: float
    flops: float


def adaptive_blend(image: torch.dtype, blend: torch.dtype) -> Cost:
    """I and B in, R out; two polynomials of two steps each, strength, product and sum."""
    return Cost(3 * (2 * image.itemsize + blend.itemsize), 3 * (11 + 3 * _integer(image)) + 3 * 2 * _integer(image))


def reverse_adaptive_blend(image: torch.dtype, retouched: torch.dtype, out: torch.dtype) -> Cost:
    """I and R in, B out; two polynomials, a difference, a damped quotient."""
    flops = 13 + 3 * _integer(image) + 3 * _integer(retouched)
    return Cost(3 * (image.itemsize + retouched.itemsize + out.itemsize), 3 * flops)


def pyramid_down(image: torch.dtype, out: torch.dtype) -> Cost:
    """I_i in, a quarter as many pixels out; [1 3 3 1] / 8 along both axes, the sums of a column shared by two rows."""
    return Cost(3 * (image.itemsize + out.itemsize / 4), 3 * (2 * 4 + 5) / 4)


def laplacian_decompose(image: torch.dtype, low: torch.dtype, high: torch.dtype) -> Cost:
    """I_i in, I_{i+1} and H_i out; every pixel is reduced three times, so that no program waits for its neighbours."""
    reduced, raised = 3 * (2 * 4 + 5), 2 * (3 * 3 + 1 + 2 * 2)
    flops = 3 * (reduced + raised + 4) / 4
    return Cost(3 * (image.itemsize + low.itemsize / 4 + high.itemsize), flops)


def upsample_refine(image: torch.dtype, low: torch.dtype, plan: str, rows: int) -> Cost:
    """I_i and a quarter each of B_{i+1} and I_{i+1} in, B_i out; both convolutions, in strips of ``rows``.

    Four rows more than a strip has and two columns in 64, for dot in 32, are worked on twice. Plan dot multiplies by
    zeros where a matrix has room for 32 taps and holds 18, or for 8 results and holds 6.
    """
    multiplications = {"fma": 6 * 9 * 16 + 16 * 9 * 3, "dot": 3 * 32 * 16 + 3 * 4 * 16 * 8 / 2}[plan]
    if plan == "fma":
        # up() of six channels in four columns for each pair, one subtraction for three; the blend layer's again.
        inputs = (6 * (3 + 4) * 3 + 3 * 4) / 2 + 3 * 4 / 2 * 3 * _integer(image)
        finishing, columns = 3 * (3 + 9), 64
    else:
        # As many threads as pixels: four low columns of two pictures between their rows, six columns, H. Then a sum of
        # two products, and the bias.
        inputs = 8 * 2 + 4 / 2 + 12 * 2 + 6 * 2 + 6 * 3 * _integer(image)
        finishing, columns = 4 * 2, 32
    again = (rows + 4) / rows * columns / (columns - 2)
    flops = (2 * multiplications + inputs) * again + finishing
    return Cost(3 * (image.itemsize + low.itemsize + 2 * low.itemsize / 4), flops)


def upsample_refine_blend(image: torch.dtype, low: torch.dtype, plan: str, rows: int) -> Cost:
    """The same, with Eq. 3 and the image's dtype for the result. For dot five fused steps and no bias of its own."""
    refined = upsample_refine(image, low, plan, rows)
    stored = 3 * (image.itemsize - low.itemsize)
    blending = 3 * (11 + 3 * _integer(image)) if plan == "fma" else 4 * (5 * 2 - 1) + (6 * 3 + 4) * _integer(image)
    return Cost(refined.bytes + stored, refined.flops + blending)


def _integer(dtype: torch.dtype) -> int:
    return int(not dtype.is_floating_point)
