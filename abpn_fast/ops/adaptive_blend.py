"""ABM, Eq. 3."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.ops import arguments
from abpn_fast.ops.operator import Like, Operator
from abpn_fast.reference.arguments import number


def _result(image: Tensor, blend: Tensor, j: Tensor, k: Tensor, strength: float) -> Like:
    return Like(image, image.shape, image.dtype)


_operator = Operator("adaptive_blend", "Tensor image, Tensor blend, Tensor j, Tensor k, float strength", _result)


def adaptive_blend(
    image: Tensor,
    blend: Tensor,
    j: Tensor,
    k: Tensor,
    *,
    strength: float = 1.0,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """``R = sum_i (j_i s B + k_i) I^i`` for i = 0, 1, 2 (Eq. 3): apply a blend layer to an image.

    Args:
        image: I, (N, 3, H, W), uint8 (white at 255), uint16 (65535) or the dtype of ``blend`` (white at 1).
        blend: B, (N, 3, H, W), floating; 0 is neutral for the model's initial j and k.
        j, k: (3,), floating, the coefficients; one set for the whole model.
        strength: s, scales the blend layer.
        out: written instead of a new tensor; no gradients then.
        backend: a name from ``compatible_backends``; None for the context's or the automatic choice.

    Returns:
        R, (N, 3, H, W), dtype and memory format of ``image``; integers are clamped and rounded half to even.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
        RuntimeError: the requested backend cannot run this, with the reason.
    """
    image = arguments.picture("image", image)
    blend = arguments.tensor("blend", blend, image.shape, like=image)
    arguments.floating("blend", blend, image.dtype if image.is_floating_point() else None)
    arguments.coefficients(j, k, image)
    result: Tensor = _operator(image, blend, j, k, number("strength", strength), out=out, backend=backend)
    return result
