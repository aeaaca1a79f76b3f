"""One step up the blend pyramid, Eq. 5."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.ops import arguments
from abpn_fast.ops.operator import Like, Operator

PARAMETERS = (
    "Tensor blend_low, Tensor image, Tensor image_low, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2"
)


def _result(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Like:
    return Like(image, image.shape, blend_low.dtype)


_operator = Operator("upsample_refine", PARAMETERS, _result)


def upsample_refine(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """``B_i = phi_2(h(phi_1(Cat(up(B_{i+1}), H_i)))) + up(B_{i+1})`` with ``H_i = I_i - up(I_{i+1})`` (Eq. 5).

    phi_1 and phi_2 are 3x3 convolutions, zero-padded, h is the leaky ReLU with slope 0.2, ``up`` is bilinear.

    Args:
        blend_low: B_{i+1}, (N, 3, ceil(H / 2), ceil(W / 2)), floating.
        image: I_i, (N, 3, H, W), uint8 or uint16 (white at 255, 65535) or the dtype of ``blend_low``.
        image_low: I_{i+1}, shape and dtype of ``blend_low``.
        weight1, bias1: (16, 6, 3, 3) and (16,), phi_1, dtype of ``blend_low``.
        weight2, bias2: (3, 16, 3, 3) and (3,), phi_2, dtype of ``blend_low``.
        out: written instead of a new tensor; no gradients then.
        backend: a name from ``compatible_backends``; None for the context's or the automatic choice.

    Returns:
        B_i, (N, 3, H, W), dtype of ``blend_low``, memory format of ``image``.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
        RuntimeError: the requested backend cannot run this, with the reason.
    """
    check(blend_low, image, image_low, weight1, bias1, weight2, bias2)
    result: Tensor = _operator(blend_low, image, image_low, weight1, bias1, weight2, bias2, out=out, backend=backend)
    return result


def check(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> None:
    """Refuse arguments that do not fit, by name."""
    image = arguments.picture("image", image)
    low = (image.shape[0], 3, arguments.halved(image.shape[2]), arguments.halved(image.shape[3]))
    blend_low = arguments.tensor("blend_low", blend_low, low, like=image)
    arguments.floating("blend_low", blend_low, image.dtype if image.is_floating_point() else None)
    arguments.floating("image_low", arguments.tensor("image_low", image_low, low, like=image), blend_low.dtype)
    arguments.refining_weights(weight1, bias1, weight2, bias2, blend_low)
