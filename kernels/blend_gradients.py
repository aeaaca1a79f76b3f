"""The gradients of ABM and R-ABM: one pass that reads what the forward read, and nothing stored in between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from abpn_fast.kernels.launching import coefficients, start
from abpn_fast.kernels.pixels import load_pixels, store_pixels
from abpn_fast.kernels.polynomial import blended_gradient, load_coefficients, unblended_gradient
from abpn_fast.kernels.tiles import at, is_whole, locate, tiling


def launch(
    grad: Tensor,
    image: tuple[str, Tensor],
    other: tuple[str, Tensor],
    j: Tensor,
    k: Tensor,
    number: float,
    wanted: Sequence[str],
    *,
    reverse: bool,
) -> list[Tensor]:
    """The gradients of ``wanted``, contiguous, in their dtypes.

    Those of j and k are sums over all pixels, always in the same order: six numbers per program, then added up.

    Args:
        grad: of the result, contiguous.
        image, other: the pictures with their names; ``other`` is the blend layer, with ``reverse`` the retouched image.
        number: the strength, or with ``reverse`` the damping.
    """
    found = {
        name: torch.empty_like(picture, memory_format=torch.contiguous_format) if name in wanted else grad
        for name, picture in (image, other)
    }
    programs, shape, strides, options = tiling(grad, image[1], other[1], *found.values())
    sums = torch.empty(programs, 6, dtype=torch.float32, device=grad.device)
    options |= {
        "IMAGE": int(image[0] in wanted),
        "OTHER": int(other[0] in wanted),
        "SUMS": int("j" in wanted or "k" in wanted),
    }
    start(
        kernel,
        programs,
        grad,
        grad,
        image[1],
        other[1],
        *found.values(),
        sums,
        coefficients(j),
        coefficients(k),
        number,
        shape,
        strides,
        REVERSE=int(reverse),
        UNDAMPED=int(number == 0),
        **options,
    )
    total = sums.sum(0, dtype=torch.float64)
    found |= {"j": total[:3].to(j.dtype), "k": total[3:].to(k.dtype)}
    return [found[name] for name in wanted]


@triton.jit
def kernel(
    grad,
    image,
    other,
    image_grad,
    other_grad,
    sums,
    j,
    k,
    number,
    shape,
    strides,
    REVERSE: tl.constexpr,
    UNDAMPED: tl.constexpr,
    IMAGE: tl.constexpr,
    OTHER: tl.constexpr,
    SUMS: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The gradients at one program's pixels, and its terms of the sums for j and k."""
    j, k = load_coefficients(j), load_coefficients(k)
    pictures, grads = (grad, image, other), (image_grad, other_grad)
    if is_whole(shape, FLAT, BLOCK, PARTS):
        totals = _parts(
            pictures, grads, j, k, number, shape, strides, REVERSE, UNDAMPED, IMAGE, OTHER, True, FLAT, BLOCK, PARTS
        )
    else:
        totals = _parts(
            pictures, grads, j, k, number, shape, strides, REVERSE, UNDAMPED, IMAGE, OTHER, False, FLAT, BLOCK, PARTS
        )
    if SUMS:
        for i in tl.static_range(6):
            tl.store(sums + tl.program_id(0) * 6 + i, tl.sum(totals[i]))


@triton.jit
def _parts(
    pictures,
    grads,
    j,
    k,
    number,
    shape,
    strides,
    REVERSE: tl.constexpr,
    UNDAMPED: tl.constexpr,
    IMAGE: tl.constexpr,
    OTHER: tl.constexpr,
    WHOLE: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    none = tl.zeros((BLOCK,), tl.float32)
    along_j, along_k = (none, none, none), (none, none, none)
    for part in tl.static_range(PARTS):
        place, exist = locate(shape, part, FLAT, BLOCK, PARTS)
        mask = None if WHOLE else exist
        grad = load_pixels(at(pictures[0], place, part, strides[0], FLAT), mask)
        image = load_pixels(at(pictures[1], place, part, strides[1], FLAT), mask)
        other = load_pixels(at(pictures[2], place, part, strides[2], FLAT), mask)
        if REVERSE:
            to_image, to_other, to_j, to_k = unblended_gradient(grad, image, other, j, k, number, UNDAMPED)
        else:
            to_image, to_other, to_j, to_k = blended_gradient(grad, image, number * other, j, k)
            to_other = to_other * number
        if IMAGE:
            store_pixels(at(grads[0], place, part, strides[3], FLAT), to_image, mask)
        if OTHER:
            store_pixels(at(grads[1], place, part, strides[4], FLAT), to_other, mask)
        along_j, along_k = _moments(along_j, to_j, image), _moments(along_k, to_k, image)
    return along_j + along_k


@triton.jit
def _moments(totals, terms, image):
    """``totals`` with ``terms`` times 1, I and I^2 added."""
    first = terms * image
    return totals[0] + terms, totals[1] + first, totals[2] + first * image
