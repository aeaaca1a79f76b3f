"""One REDUCE step of the image pyramid."""

from __future__ import annotations

import torch
from torch import Tensor

from abpn_fast.ops import arguments
from abpn_fast.ops.operator import Like, Operator


def _result(image: Tensor, filter: str) -> Like:
    dtype = image.dtype if image.is_floating_point() else torch.float32
    height, width = image.shape[-2:]
    return Like(image, (*image.shape[:2], arguments.halved(height), arguments.halved(width)), dtype)


_operator = Operator("pyramid_down", "Tensor image, str filter", _result)


def pyramid_down(
    image: Tensor, *, filter: str = "binomial", out: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """``I_{i+1}`` from ``I_i``: low-pass, then every second sample, centred between two pixels, edges replicated.

    Args:
        image: (N, 3, H, W), uint8 or uint16 (white at 255, 65535) or floating.
        filter: ``"binomial"``, the separable [1 3 3 1] / 8, or ``"box"``, the 2x2 mean.
        out: written instead of a new tensor, of any floating dtype for an integer image; no gradients then.
        backend: a name from ``compatible_backends``; None for the context's or the automatic choice.

    Returns:
        (N, 3, ceil(H / 2), ceil(W / 2)), dtype (float32 for integers) and memory format of ``image``.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
        RuntimeError: the requested backend cannot run this, with the reason.
    """
    image = arguments.picture("image", image)
    arguments.choice("filter", filter, ("binomial", "box"))
    result: Tensor = _operator(image, filter, out=out, backend=backend)
    return result
