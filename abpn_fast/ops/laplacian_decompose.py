"""The image pyramid and the high-frequency pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from abpn_fast.ops import arguments
from abpn_fast.ops.operator import Like, Operator
from abpn_fast.reference.arguments import integer


def _result(image: Tensor, levels: int, filter: str) -> list[Like]:
    dtype = image.dtype if image.is_floating_point() else torch.float32
    shapes = [image.shape]
    for _ in range(levels):
        *leading, height, width = shapes[-1]
        shapes.append(torch.Size((*leading, arguments.halved(height), arguments.halved(width))))
    return [Like(image, shape, dtype) for shape in (*shapes[1:], *shapes[:-1])]


def _flat(pyramids: tuple[list[Tensor], list[Tensor]]) -> list[Tensor]:
    gaussian, high = pyramids
    return [*gaussian[1:], *high]


def _is_pair(out: object) -> bool:
    sequences = (list, tuple)
    return isinstance(out, sequences) and len(out) == 2 and all(isinstance(part, sequences) for part in out)


_operator = Operator("laplacian_decompose", "Tensor image, int levels, str filter", _result, _flat)


def laplacian_decompose(
    image: Tensor,
    levels: int,
    *,
    filter: str = "binomial",
    out: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
    backend: str | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """``I_{i+1} = reduce(I_i)`` and ``H_i = I_i - up(I_{i+1})``, so that ``I_i = H_i + up(I_{i+1})`` (Sec. 4.1).

    Args:
        image: I_0, (N, 3, H, W), uint8 or uint16 (white at 255, 65535) or floating.
        levels: l >= 0.
        filter: of ``reduce``, ``"binomial"`` or ``"box"``.
        out: ``([I_1, ..., I_l], [H_0, ..., H_{l-1}])``, written instead of new tensors; no gradients then.
        backend: a name from ``compatible_backends``; None for the context's or the automatic choice.

    Returns:
        ``([I_0, ..., I_l], [H_0, ..., H_{l-1}])``; I_0 is ``image`` itself, the rest has its dtype (float32 for
        integers) and memory format and takes together 5/3 of a floating image.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
        RuntimeError: the requested backend cannot run this, with the reason.
    """
    image = arguments.picture("image", image)
    arguments.choice("filter", filter, ("binomial", "box"))
    levels = integer("levels", levels, 0)
    if out is not None and not _is_pair(out):
        raise TypeError(f"out must be a pair of lists of tensors, got {type(out).__name__}")
    if out is not None and (len(out[0]), len(out[1])) != (levels, levels):
        raise ValueError(f"out must hold {levels} and {levels} tensors, got {len(out[0])} and {len(out[1])}")
    if levels == 0:
        return [image], []
    flat = None if out is None else [*out[0], *out[1]]
    result: list[Tensor] = _operator(image, levels, filter, out=flat, backend=backend)
    return [image, *result[:levels]], list(result[levels:])
