"""R-ABM, Eq. 4."""

from __future__ import annotations

import torch
from torch import Tensor

from abpn_fast.ops import arguments
from abpn_fast.ops.operator import Like, Operator
from abpn_fast.reference.arguments import number


def _result(image: Tensor, retouched: Tensor, j: Tensor, k: Tensor, damping: float) -> Like:
    dtypes = [dtype for dtype in (image.dtype, retouched.dtype) if dtype.is_floating_point]
    return Like(image, image.shape, dtypes[0] if dtypes else torch.float32)


_operator = Operator(
    "reverse_adaptive_blend", "Tensor image, Tensor retouched, Tensor j, Tensor k, float damping", _result
)


def reverse_adaptive_blend(
    image: Tensor,
    retouched: Tensor,
    j: Tensor,
    k: Tensor,
    *,
    damping: float = 1e-4,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """``B = (R - sum_i k_i I^i) d / (d^2 + damping)`` with ``d = sum_i j_i I^i``: the blend layer between two images.

    Eq. 4 with a damped quotient, finite where d vanishes (black and white for the initial j); ``damping=0`` is Eq. 4 to
    the letter, with 0 where d is 0.

    Args:
        image: I, (N, 3, H, W), uint8, uint16 or floating.
        retouched: R, (N, 3, H, W), uint8, uint16 or floating; the same dtype as ``image`` if both are floating.
        j, k: (3,), floating, the coefficients.
        damping: >= 0.
        out: written instead of a new tensor; no gradients then.
        backend: a name from ``compatible_backends``; None for the context's or the automatic choice.

    Returns:
        B, (N, 3, H, W), the floating dtype of the inputs (float32 for two integer images), memory format of ``image``.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
        RuntimeError: the requested backend cannot run this, with the reason.
    """
    image = arguments.picture("image", image)
    retouched = arguments.picture("retouched", retouched, like=image)
    if image.is_floating_point() and retouched.is_floating_point():
        arguments.floating("retouched", retouched, image.dtype)
    arguments.coefficients(j, k, image)
    damping = number("damping", damping, 0)
    result: Tensor = _operator(image, retouched, j, k, damping, out=out, backend=backend)
    return result
