"""Backend ``triton``: fused kernels for NVIDIA's and AMD's GPUs (``kernels/``, imported as ``abpn_fast.kernels``)."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from abpn_fast.backends.refining_gradients import refining_gradients

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.uint16)


def why_not(operator: str, tensors: Sequence[Tensor]) -> str | None:
    """Why this backend cannot run ``operator`` on these tensors, in one sentence, or None."""
    for tensor in tensors:
        if tensor.device.type != "cuda" and not (tensor.device.type == "cpu" and interpreted()):
            return f"backend triton runs on tensors on an NVIDIA or AMD GPU, got one on {tensor.device}"
        # j and k may have any floating dtype.
        if tensor.dtype not in _DTYPES and tensor.shape != (3,):
            return (
                f"backend triton computes in float32, for float32, bfloat16, float16, uint8 and uint16 tensors, "
                f"got {tensor.dtype}"
            )
    if not _installed():
        return "backend triton needs the package triton 3.6 or newer; run `pip install triton`"
    return None


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on the CPU: ``TRITON_INTERPRET=1``, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _kernel(operator: str) -> ModuleType:
    # Not at import: triton is optional and slow to load.
    return importlib.import_module(f"abpn_fast.kernels.{operator}")


def adaptive_blend(image: Tensor, blend: Tensor, j: Tensor, k: Tensor, strength: float, out: Tensor) -> None:
    _kernel("adaptive_blend").launch(image, blend, j, k, strength, out)


def adaptive_blend_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return _blend_backward(grads[0], arguments, wanted, "blend", "strength", reverse=False)


def reverse_adaptive_blend(image: Tensor, retouched: Tensor, j: Tensor, k: Tensor, damping: float, out: Tensor) -> None:
    _kernel("reverse_adaptive_blend").launch(image, retouched, j, k, damping, out)


def reverse_adaptive_blend_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return _blend_backward(grads[0], arguments, wanted, "retouched", "damping", reverse=True)


def pyramid_down(image: Tensor, filter: str, out: Tensor) -> None:
    _kernel("pyramid_down").launch(image, filter, out)


def laplacian_decompose(image: Tensor, levels: int, filter: str, out: Sequence[Tensor]) -> None:
    _kernel("laplacian_decompose").launch(image, levels, filter, out)


def upsample_refine(
    blend_low: Tensor,
    image: Tensor,
    image_low: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    out: Tensor,
) -> None:
    _kernel("upsample_refine").launch(blend_low, image, image_low, weight1, bias1, weight2, bias2, out)


def upsample_refine_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return refining_gradients(grads[0], arguments, wanted)


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
    strength: float,
    mask: Tensor | None,
    mask_threshold: float | None,
    out: Tensor,
) -> None:
    _kernel("upsample_refine_blend").launch(
        blend_low, image, image_low, weight1, bias1, weight2, bias2, j, k, strength, mask, mask_threshold, out
    )


def upsample_refine_blend_backward(
    grads: Sequence[Tensor], arguments: dict[str, Any], wanted: Sequence[str], results: object
) -> list[Tensor]:
    return refining_gradients(grads[0], arguments, wanted)


def _blend_backward(
    grad: Tensor, arguments: dict[str, Any], wanted: Sequence[str], other: str, number: str, *, reverse: bool
) -> list[Tensor]:
    image, j, k = (arguments[name] for name in ("image", "j", "k"))
    found: list[Tensor] = _kernel("blend_gradients").launch(
        grad, ("image", image), (other, arguments[other]), j, k, arguments[number], wanted, reverse=reverse
    )
    return found
