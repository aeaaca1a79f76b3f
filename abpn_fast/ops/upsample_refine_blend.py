"""The finest level: Eq. 5, then Eq. 3."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.ops import arguments
from abpn_fast.ops.operator import Like, Operator
from abpn_fast.ops.upsample_refine import PARAMETERS, check
from abpn_fast.reference import mask_scale
from abpn_fast.reference.arguments import number


def _result(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    j: Tensor,
    k: Tensor,
    strength: float,
    mask: Tensor | None,
    mask_threshold: float | None,
) -> Like:
    return Like(image, image.shape, image.dtype)


_operator = Operator(
    "upsample_refine_blend",
    f"{PARAMETERS}, Tensor j, Tensor k, float strength, Tensor? mask, float? mask_threshold",
    _result,
)


def upsample_refine_blend(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    j: Tensor,
    k: Tensor,
    *,
    strength: float = 1.0,
    mask: Tensor | None = None,
    mask_threshold: float | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """R_0 from B_1, I_0 and I_1: ``upsample_refine``, then ``adaptive_blend``, without B_0 in memory.

    Args:
        blend_low, image, image_low, weight1, bias1, weight2, bias2: as for ``upsample_refine``.
        j, k, strength: as for ``adaptive_blend``.
        mask: M, (N, 1, ceil(H / s), ceil(W / s)) for a power of two s, dtype of ``blend_low``, in [0, 1].
        mask_threshold: pixels whose bilinearly upsampled mask is below it keep the bits of ``image``; with ``mask`` or
            not at all.
        out: written instead of a new tensor; no gradients then.
        backend: a name from ``compatible_backends``; None for the context's or the automatic choice.

    Returns:
        R_0, (N, 3, H, W), dtype and memory format of ``image``; integers are clamped and rounded half to even.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
        RuntimeError: the requested backend cannot run this, with the reason.
    """
    check(blend_low, image, image_low, weight1, bias1, weight2, bias2)
    arguments.coefficients(j, k, image)
    if (mask is None) != (mask_threshold is None):
        raise ValueError("mask and mask_threshold go together; give both or neither")
    if mask is not None:
        mask = arguments.tensor("mask", mask, (image.shape[0], 1, None, None), like=image)
        arguments.floating("mask", mask, blend_low.dtype)
        size, mask_size = (image.shape[2], image.shape[3]), (mask.shape[2], mask.shape[3])
        if mask_scale(size, mask_size) is None:
            raise ValueError(f"mask must be {size} divided by a power of two and rounded up, got {mask_size}")
    result: Tensor = _operator(
        blend_low,
        image,
        image_low,
        weight1,
        bias1,
        weight2,
        bias2,
        j,
        k,
        number("strength", strength),
        mask,
        None if mask_threshold is None else number("mask_threshold", mask_threshold),
        out=out,
        backend=backend,
    )
    return result
